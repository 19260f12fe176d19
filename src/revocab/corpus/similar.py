"""Documents that are nearly the same as an earlier one: MinHash signatures in an index of bands (rensa)."""

import re
from importlib import import_module
from typing import Any

from revocab.errors import MissingDependencyError

WORD = re.compile(r"\w+")
SHINGLE = 5  # words
# Bands of 8 values: of pairs as similar as 0.8 the index compares 94 of 100, of those as 0.86 it misses 1 of 200.
PERMUTATIONS, BANDS = 128, 16
SEED = 1


class NearDuplicates:
    """What was seen so far, about 2 KB of memory a document.

    Similarity is Jaccard's, of the sets of five words in a row (lower case), as their signatures estimate it: its
    standard error is 0.035 at 0.8.

    Args:
        threshold: similarity from which on a document counts as a copy, in (0, 1].

    Raises:
        MissingDependencyError: rensa is not installed.
    """

    def __init__(self, threshold: float) -> None:
        try:
            rensa: Any = import_module("rensa")  # its types are not declared
        except ImportError as error:
            raise MissingDependencyError("rensa", "corpus.near_duplicates", "pip install 'revocab[dedup]'") from error
        self._new_signature = rensa.RMinHash
        self._index = rensa.RMinHashDeduplicator(threshold, PERMUTATIONS, True, BANDS, SEED)
        self._count = 0

    def seen(self, text: str) -> bool:
        """Whether a document like it came before; if not, remember it."""
        words = WORD.findall(text.lower())
        shingles = [" ".join(words[start : start + SHINGLE]) for start in range(max(1, len(words) - SHINGLE + 1))]
        signature = self._new_signature(PERMUTATIONS, SEED)
        signature.update(shingles)
        self._count += 1
        return not self._index.add(str(self._count), signature)
