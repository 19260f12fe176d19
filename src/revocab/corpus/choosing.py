"""A sample of a stream that does not depend on its order: the documents whose hashes are smallest."""

import heapq
from collections.abc import Iterable
from hashlib import sha256


def first_by_hash(texts: Iterable[str], count: int) -> list[str]:
    """The `count` different texts with the smallest SHA-256 digests, smallest first; fewer where there are fewer.

    Memory holds `count` texts, however long the stream is.
    """
    largest_first: list[
        tuple[int, str]
    ] = []  # a heap of negated digests: its head is what the next smaller one drives out
    kept: set[int] = set()
    for text in texts:
        digest = -int.from_bytes(sha256(text.encode()).digest(), "big")
        if digest in kept or (len(kept) == count and digest < largest_first[0][0]):
            continue
        kept.add(digest)
        if len(kept) <= count:
            heapq.heappush(largest_first, (digest, text))
        else:
            kept.remove(heapq.heappushpop(largest_first, (digest, text))[0])
    return [text for _, text in sorted(largest_first, reverse=True)]
