"""Documents that share a run of words with a text that models are evaluated on.

A model that has read a question's text answers it from memory; so has one that read the same text with another title,
which no hash of whole documents finds. The measure is that of Brown et al. 2020 (GPT-3, appendix C): runs of 13 words.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from revocab.artifacts import Documents
from revocab.runtime.progress import track

WORD = re.compile(r"\w+")
# Odd, so that no power of it is 0 modulo 2^64: the fraction of the golden ratio (Knuth, section 6.4).
MULTIPLIER = 0x9E3779B97F4A7C15
FILTER_BITS = 24  # a table of 16 MB answers for most runs that they occur nowhere


class Overlap(NamedTuple):
    dataset: str  # that holds the run
    words: str  # the run, in lower case and without what stands between words


class Overlaps:
    """Every run of `length` words of the evaluation texts, as 64-bit hashes; 16 bytes of memory for each.

    Words are runs of letters, digits and underscores in lower case; what stands between them does not count. A text of
    fewer words has no run and is not found. Two different runs have one hash with a chance of 2^-64.

    Args:
        length: words of a run, 1 or more.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._powers = np.array([pow(MULTIPLIER, power, 1 << 64) for power in range(length)], dtype=np.uint64)
        self._datasets: list[str] = []
        self._added: list[tuple[np.ndarray, int]] = []  # runs of a text, number of its data set

    def add(self, dataset: str, text: str) -> None:
        """Add an evaluation text; all of them before the first is looked for."""
        if dataset not in self._datasets:
            self._datasets.append(dataset)
        self._added.append((self._hashes(_words(text)), self._datasets.index(dataset)))

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Different runs in ascending order, the data set of each, and which first bits of a run occur."""
        hashes = np.concatenate([runs for runs, _ in self._added] or [np.empty(0, np.uint64)])
        owners = np.repeat([number for _, number in self._added], [len(runs) for runs, _ in self._added])
        self._added.clear()
        runs, first = np.unique(hashes, return_index=True)
        occupied = np.zeros(1 << FILTER_BITS, dtype=bool)
        occupied[runs >> np.uint64(64 - FILTER_BITS)] = True
        return runs, owners.astype(np.uint16)[first], occupied

    def find(self, text: str) -> Overlap | None:
        """The first run of the document that an evaluation text has too."""
        words = _words(text)
        rows, starts = self._shared(words)
        return self._overlap(words, int(rows[0]), int(starts[0])) if len(rows) else None

    def find_rare(self, texts: Documents | Sequence[str], most: int) -> Iterator[tuple[int, Overlap]]:
        """(number, first such run) of each of the texts that shares a run which no more than `most` of them have.

        Reads all texts once and those that share a run a second time; memory holds a number for each of the latter.
        """
        counts = np.zeros(len(self._table[0]), dtype=np.int64)  # texts that have the run
        sharing = []
        for number in track(range(len(texts)), "comparing with the held-out part", unit="document"):
            rows, _ = self._shared(_words(texts[number]))
            if len(rows):
                counts[np.unique(rows)] += 1
                sharing.append(number)
        for number in sharing:
            words = _words(texts[number])
            rows, starts = self._shared(words)
            rare = np.flatnonzero(counts[rows] <= most)
            if len(rare):
                yield number, self._overlap(words, int(rows[rare[0]]), int(starts[rare[0]]))

    def _shared(self, words: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Of every run that the evaluation texts have too its row in the table and its first word, in text order."""
        runs, _, occupied = self._table
        if not len(runs):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        hashes = self._hashes(words)
        possible = np.flatnonzero(occupied[hashes >> np.uint64(64 - FILTER_BITS)])
        rows = np.minimum(np.searchsorted(runs, hashes[possible]), len(runs) - 1)
        found = np.flatnonzero(runs[rows] == hashes[possible])
        return rows[found], possible[found]

    def _overlap(self, words: list[str], row: int, start: int) -> Overlap:
        return Overlap(self._datasets[self._table[1][row]], " ".join(words[start : start + self.length]))

    def _hashes(self, words: list[str]) -> np.ndarray:
        """(runs,) uint64: a polynomial in the words' CRC-32, modulo 2^64."""
        runs = max(0, len(words) - self.length + 1)
        codes = np.fromiter(
            (zlib.crc32(word.encode("utf-8", "replace")) for word in words), dtype=np.uint64, count=len(words)
        )
        hashes = np.zeros(runs, dtype=np.uint64)
        for place, power in enumerate(self._powers):
            hashes += codes[place : place + runs] * power
        return hashes


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())
