"""Window counts on disk: what a shard leaves, how shards are added up, and the most frequent pairs of the sum.

Rows are read a block at a time, so memory does not grow with the counts, however many shards they come from.

V tokens of the vocabulary, U distinct pairs, K tokens that are kept, R rows of a block.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from revocab.artifacts import TokenizedCorpus
from revocab.runtime.cores import whole_machine
from revocab.runtime.files import disk_errors, write_json
from revocab.runtime.progress import track
from revocab.vectors.counting import add_up, count_pairs
from revocab.vectors.occurrences import token_counts

PAIRS_AT_ONCE = 1_000_000  # pairs of a block, all shards together, at least one row; about 40 bytes each
FINENESS_BITS = 8  # counts are told apart to one part in 256 where the most frequent pairs are chosen


@dataclass(frozen=True, kw_only=True)
class PairCounts:
    """Each unordered pair once, at the row of its smaller id, in units of `units_per_count(window)`."""

    folder: Path  # columns.bin: (U,) int32 larger ids, counts.bin: (U,) int64
    row_starts: np.ndarray  # (V + 1,) int64: row v is columns[row_starts[v]:row_starts[v + 1]]
    occurrences: np.ndarray  # (V,) int64 of each token, special ones included
    special_ids: tuple[int, ...]
    window: int

    @classmethod
    def load(cls, folder: Path) -> "PairCounts":
        facts = json.loads((folder / "pairs.json").read_text())
        return cls(
            folder=folder,
            row_starts=np.load(folder / "row_starts.npy"),
            occurrences=np.load(folder / "occurrences.npy"),
            special_ids=tuple(facts["special_ids"]),
            window=facts["window"],
        )

    def __len__(self) -> int:
        return int(self.row_starts[-1])

    @property
    def vocabulary_size(self) -> int:
        return len(self.occurrences)

    def rows(self, first: int, last: int) -> sparse.csr_matrix:
        """Read rows first..last: (last - first, V) int64."""
        start, stop = int(self.row_starts[first]), int(self.row_starts[last])
        columns = np.fromfile(self.folder / "columns.bin", np.int32, count=stop - start, offset=4 * start)
        counts = np.fromfile(self.folder / "counts.bin", np.int64, count=stop - start, offset=8 * start)
        row_starts = self.row_starts[first : last + 1] - start
        return sparse.csr_matrix((counts, columns, row_starts), shape=(last - first, self.vocabulary_size))


def count_shard(
    folder: Path, tokens: TokenizedCorpus, window: int, *, device: str = "cpu", threads: int | None = None
) -> dict[str, int]:
    """Count the pairs of a part of a corpus into a folder, for `PairCounts.load`; see `count_pairs`.

    Memory is that of the distinct pairs of this part.

    Raises:
        ConfigError: a window outside 1..20.
        ResourceError: the disk is full or the folder cannot be written.
    """
    with whole_machine():
        pairs_VV = count_pairs(tokens, window, device=device, threads=threads)
    return _write(folder, [pairs_VV], token_counts(tokens), tokens.special_ids, window)


def add_shards(folder: Path, shards: Sequence[Path], *, pairs_at_once: int = PAIRS_AT_ONCE) -> dict[str, int]:
    """Write the sum of the counts in some folders, block of rows by block of rows, for `PairCounts.load`.

    The sum is of whole numbers, so it does not depend on how the corpus was cut. Memory: `pairs_at_once` pairs, or one
    row of all shards, and (V + 1) int64 of each shard.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    parts = [PairCounts.load(shard) for shard in shards]
    occurrences = np.sum([part.occurrences for part in parts], axis=0)
    blocks = row_blocks(np.sum([part.row_starts for part in parts], axis=0), pairs_at_once)
    sums = (
        add_up((part.rows(first, last) for part in parts), (last - first, len(occurrences)))
        for first, last in track(blocks, "adding up shards", unit="block")
    )
    return _write(folder, sums, occurrences, parts[0].special_ids, parts[0].window)


def frequent_pairs(
    counts: PairCounts, kept: np.ndarray, max_pairs: int, *, pairs_at_once: int = PAIRS_AT_ONCE
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Return the counts of the most frequent pairs of kept tokens, and what the kept tokens count with all of them.

    At most `max_pairs` unordered pairs are returned: all whose count reaches the smallest threshold that leaves no
    more (thresholds are one part in 256 apart, so it may be a few per cent fewer). Two passes over the file; memory
    is that of a block and of the pairs returned.

    Args:
        counts: of the corpus.
        kept: (K,) int64 ids, ascending.
        max_pairs: unordered pairs at most.
        pairs_at_once: pairs of a block.

    Returns:
        (K, K) int64 symmetric, canonical CSR; (K,) float64 sums over every pair of kept tokens, the dropped included.
    """
    totals_K = np.zeros(len(kept))
    histogram = np.zeros(_fine(np.array([np.iinfo(np.int64).max]))[0] + 2, dtype=np.int64)  # the last stays empty
    for block in kept_blocks(counts, kept, pairs_at_once):
        histogram += np.bincount(_fine(block.data), minlength=len(histogram))
        totals_K += np.bincount(block.row, weights=block.data, minlength=len(kept))
        totals_K += np.bincount(block.col, weights=block.data, minlength=len(kept))
    at_least = np.cumsum(histogram[::-1])[::-1]  # pairs whose count is that fine or larger
    threshold = int(np.searchsorted(-at_least, -max_pairs))
    number = int(at_least[threshold])
    pairs_KK = _collect(_above(kept_blocks(counts, kept, pairs_at_once), threshold), number, len(kept))
    both_KK = sparse.csr_matrix(pairs_KK + pairs_KK.T.tocsr())  # a token beside itself counts from both ends
    both_KK.sort_indices()
    return both_KK, totals_K


def row_blocks(row_starts: np.ndarray, pairs_at_once: int) -> list[tuple[int, int]]:
    """Return borders (first, last) of blocks of rows of at most `pairs_at_once` pairs, or of one larger row."""
    blocks, first, size = [], 0, len(row_starts) - 1
    while first < size:
        last = int(np.searchsorted(row_starts, row_starts[first] + pairs_at_once, side="right")) - 1
        last = min(max(last, first + 1), size)
        blocks.append((first, last))
        first = last
    return blocks


def _write(
    folder: Path,
    blocks: Iterable[sparse.csr_matrix],
    occurrences: np.ndarray,
    special_ids: Sequence[int],
    window: int,
) -> dict[str, int]:
    row_starts = [np.zeros(1, dtype=np.int64)]
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "columns.bin").open("wb") as columns, (folder / "counts.bin").open("wb") as counts:
            for block in blocks:
                columns.write(block.indices.astype(np.int32, copy=False).data)
                counts.write(block.data.astype(np.int64, copy=False).data)
                row_starts.append(row_starts[-1][-1] + block.indptr[1:].astype(np.int64))
        np.save(folder / "row_starts.npy", np.concatenate(row_starts))
        np.save(folder / "occurrences.npy", occurrences)
        write_json(folder / "pairs.json", {"special_ids": list(special_ids), "window": window})
    return {"pairs": int(row_starts[-1][-1]), "tokens": int(occurrences.sum())}


def kept_blocks(
    counts: PairCounts, kept: np.ndarray, pairs_at_once: int = PAIRS_AT_ONCE
) -> Iterator[sparse.coo_matrix]:
    """Rows of kept tokens, a block at a time, as entries of a (K, K) matrix."""
    place_V = np.full(counts.vocabulary_size, -1, dtype=np.int32)
    place_V[kept] = np.arange(len(kept), dtype=np.int32)
    for first, last in row_blocks(counts.row_starts, pairs_at_once):
        block = counts.rows(first, last)
        rows = np.repeat(place_V[first:last], np.diff(block.indptr))
        columns = place_V[block.indices]
        inside = (rows >= 0) & (columns >= 0)
        yield sparse.coo_matrix(
            (block.data[inside], (rows[inside], columns[inside])), shape=(len(kept), len(kept)), copy=False
        )


def _above(blocks: Iterable[sparse.coo_matrix], threshold: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    for block in blocks:
        chosen = _fine(block.data) >= threshold
        yield block.row[chosen], block.col[chosen], block.data[chosen]


def _collect(entries: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], number: int, size: int) -> sparse.csr_matrix:
    """Entries that come in the order of rows and columns, `number` of them, as a (size, size) matrix."""
    columns, data = np.empty(number, dtype=np.int32), np.empty(number, dtype=np.int64)
    lengths, filled = np.zeros(size, dtype=np.int64), 0
    for row, column, count in entries:
        some = slice(filled, filled + len(count))
        columns[some], data[some] = column, count
        lengths += np.bincount(row, minlength=size)
        filled += len(count)
    row_starts = np.concatenate([[0], np.cumsum(lengths)])
    return sparse.csr_matrix((data, columns, row_starts), shape=(size, size))


def _fine(counts: np.ndarray) -> np.ndarray:
    """Return whole numbers that grow with the counts, one part in 256 apart: the high bits of a float32."""
    return counts.astype(np.float32).view(np.int32) >> (23 - FINENESS_BITS)
