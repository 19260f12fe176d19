"""Which documents a corpus leaves out, and why."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from revocab.corpus.overlap import Overlaps
from revocab.corpus.similar import NearDuplicates

# Two of a billion different documents share 16 bytes of a digest with a chance of 1e-21; whole digests would only cost
# memory, about 85 bytes a document as it is.
DIGEST_BYTES = 16


class LeftOut(NamedTuple):
    reason: str  # a name of `building.COUNTS`
    dataset: str | None = None  # of the evaluation text that it is, or shares words with
    words: str | None = None  # the words that it shares


class Filter:
    """Judges one document after the other; remembers those that it lets pass.

    Args:
        digest_of: digest of a text's bytes.
        deduplicate: leave out documents whose text occurred before.
        near_duplicates: as `NearDuplicates`; None: only exact copies count.
        overlap_words: words in a row that a document must not share with an evaluation text; 0: only whole texts count.
        evaluated: texts by data set, read once.
    """

    def __init__(
        self,
        *,
        digest_of: Callable[[bytes], bytes],
        deduplicate: bool,
        near_duplicates: float | None,
        overlap_words: int,
        evaluated: Mapping[str, Iterable[str]],
    ) -> None:
        self._deduplicate = deduplicate
        self._seen: set[bytes] = set()
        self._near = NearDuplicates(near_duplicates) if near_duplicates is not None else None
        self._overlaps = Overlaps(overlap_words) if overlap_words else None
        self._evaluated: dict[bytes, str] = {}
        for dataset, texts in evaluated.items():
            for text in texts:
                self._evaluated.setdefault(digest_of(text.encode("utf-8", "replace")), dataset)
                if self._overlaps:
                    self._overlaps.add(dataset, text)

    def judge(self, text: str, digest: bytes) -> LeftOut | None:
        """Why the document is left out; None: it is kept. `digest` is that of its bytes."""
        if not text or text.isspace():
            return LeftOut("too_short")
        if dataset := self._evaluated.get(digest):
            return LeftOut("excluded", dataset)
        if self._deduplicate:
            if digest in self._seen:
                return LeftOut("duplicates")
            self._seen.add(digest)
        if self._overlaps and (overlap := self._overlaps.find(text)):
            return LeftOut("contaminated", *overlap)
        if self._near and self._near.seen(text):
            return LeftOut("near_duplicates")
        return None
