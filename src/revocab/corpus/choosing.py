"""A sample of a stream that does not depend on its order: the documents whose hashes are smallest."""

import heapq
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import TypeVar

Document = TypeVar("Document")


def first_by_hash(
    documents: Iterable[Document], count: int, text_of: Callable[[Document], str] = str
) -> list[Document]:
    """The `count` documents of different texts with the smallest SHA-256 digests, smallest first; fewer where there are
    fewer. Of documents with one text it is the first in the stream.

    Memory holds `count` documents, however long the stream is.
    """
    # A heap of negated digests: its head is what the next smaller one drives out.
    largest_first: list[tuple[int, Document]] = []
    kept: set[int] = set()
    for document in documents:
        digest = -int.from_bytes(sha256(text_of(document).encode()).digest(), "big")
        if digest in kept or (len(kept) == count and digest < largest_first[0][0]):
            continue
        kept.add(digest)
        if len(kept) <= count:
            heapq.heappush(largest_first, (digest, document))
        else:
            kept.remove(heapq.heappushpop(largest_first, (digest, document))[0])
    return [document for _, document in sorted(largest_first, key=lambda entry: -entry[0])]
