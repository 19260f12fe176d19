"""Window counts of a tokenized corpus: how often each pair of tokens stands close together, nearer pairs weighing more.

A pair at distance d counts 1/d (the weighting of GloVe, Pennington et al. 2014, section 4.2). The counts are kept in
whole units of 1/lcm(1..window), so they are exact: their sum does not depend on the order, the chunks, the shards or
the device it was made with, and memory holds the distinct pairs alone.

V tokens of the vocabulary, N tokens of a chunk, K pairs of a chunk.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import lcm

import numpy as np
from scipy import sparse

from revocab.artifacts import TokenizedCorpus
from revocab.errors import ConfigError
from revocab.runtime.cores import available_cores
from revocab.runtime.progress import bar
from revocab.vectors import device_counting

PAIRS_AT_ONCE = 1_000_000  # pairs sorted at a time by each thread, about 40 bytes each
DEVICE_PAIRS_AT_ONCE = 40_000_000  # on a GPU, about 60 bytes each
MAX_WINDOW = 20  # lcm(1..20) = 232,792,560 leaves room for 4e10 neighbouring pairs of one kind in 64 bits


def units_per_count(window: int) -> int:
    """Return the whole number that one pair at distance 1 adds; a pair at distance d adds this divided by d.

    Raises:
        ConfigError: the window is not in 1..20.
    """
    if not 1 <= window <= MAX_WINDOW:
        raise ConfigError("embedding.cooccurrence.window", window, f"in 1..{MAX_WINDOW}")
    return lcm(*range(1, window + 1))


def count_pairs(
    tokens: TokenizedCorpus,
    window: int,
    *,
    pairs_at_once: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
) -> sparse.csr_matrix:
    """Return each unordered pair once, at the row of its smaller id: (V, V) int64, upper triangle, canonical CSR.

    Windows do not cross the borders of documents, and special ids are nobody's neighbours (they do take up a
    position). The corpus is read in chunks; every result is the same whatever the chunk size, the number of threads
    and the device.

    Args:
        tokens: the corpus.
        window: tokens to either side that count, in 1..20.
        pairs_at_once: pairs held at a time by each thread, or by the device; bounds the memory beside the counts.
        threads: chunks counted side by side on the CPU; null uses every core.
        device: `cpu` sorts with numpy; any other is torch's name of the device that sorts.
    """
    units = units_per_count(window)  # refuses a window that cannot work before anything is read
    weights = np.array([0, *(units // distance for distance in range(1, window + 1))], dtype=np.int64)
    if device == "cpu":
        chunk = max((pairs_at_once or PAIRS_AT_ONCE) // window, window + 1)
        return _count_in_threads(tokens, weights, chunk, threads or available_cores())
    chunk = max((pairs_at_once or DEVICE_PAIRS_AT_ONCE) // window, window + 1)
    chunks = (_with_documents(tokens, start, start + chunk, window) for start in range(0, len(tokens.tokens), chunk))
    return device_counting.count_chunks(chunks, chunk, weights, tokens.vocabulary_size, device)


def add_up(parts: Iterable[sparse.csr_matrix], shape: tuple[int, int]) -> sparse.csr_matrix:
    """Return the sum of sparse int64 matrices, of which few are held at a time: each count is moved log(parts) times.

    The sum of whole numbers is the same in any order.
    """
    sums: list[sparse.csr_matrix] = []
    for part in parts:
        while sums and sums[-1].nnz <= 2 * part.nnz:
            part = sums.pop() + part
        sums.append(part)
    total = sparse.csr_matrix(shape, dtype=np.int64)
    while sums:
        total = total + sums.pop()
    return sparse.csr_matrix(total)


def _count_in_threads(tokens: TokenizedCorpus, weights: np.ndarray, chunk: int, threads: int) -> sparse.csr_matrix:
    window, size = len(weights) - 1, tokens.vocabulary_size

    def count(start: int) -> sparse.csr_matrix:
        return _count_chunk(*_with_documents(tokens, start, start + chunk, window), chunk, weights, size)

    def parts() -> Iterator[sparse.csr_matrix]:
        starts = range(0, len(tokens.tokens), chunk)
        with (
            ThreadPoolExecutor(threads) as pool,
            bar("counting neighbours", total=len(tokens.tokens), unit="tok") as seen,
        ):
            for begin in range(0, len(starts), threads):  # no more chunks under way than threads
                group = starts[begin : begin + threads]
                yield from pool.map(count, group)
                seen.update(min(chunk * len(group), len(tokens.tokens) - group[0]))

    return add_up(parts(), (size, size))


def _count_chunk(
    ids_N: np.ndarray, documents_N: np.ndarray, chunk: int, weights: np.ndarray, size: int
) -> sparse.csr_matrix:
    """Count the pairs whose earlier token is one of the first `chunk`: (V, V) int64, canonical CSR.

    A pair and its distance are packed into one 64-bit key, so one sort brings equal pairs together.
    """
    id_bits, distance_bits = int(size - 1).bit_length(), int(len(weights) - 1).bit_length()
    keys_K = _pair_keys(ids_N, documents_N, chunk, len(weights) - 1, id_bits, distance_bits)
    keys_K.sort()
    distances_K = keys_K & ((1 << distance_bits) - 1)
    keys_K >>= distance_bits
    first_K = np.ones(len(keys_K), dtype=bool)
    np.not_equal(keys_K[1:], keys_K[:-1], out=first_K[1:])
    first = np.flatnonzero(first_K)
    pairs = keys_K[first]
    counts = np.add.reduceat(weights[distances_K], first) if len(first) else np.empty(0, dtype=np.int64)
    row_starts = np.searchsorted(pairs, np.arange(size + 1, dtype=np.int64) << id_bits)
    columns = (pairs & ((1 << id_bits) - 1)).astype(np.int32)
    return sparse.csr_matrix((counts, columns, row_starts), shape=(size, size))


def _pair_keys(
    ids_N: np.ndarray, documents_N: np.ndarray, chunk: int, window: int, id_bits: int, distance_bits: int
) -> np.ndarray:
    """Return smaller id, larger id and distance of every counted pair, packed into (K,) int64."""
    keys = []
    for distance in range(1, window + 1):
        earlier = min(chunk, len(ids_N) - distance)
        if earlier <= 0:
            break
        same = documents_N[:earlier] == documents_N[distance : distance + earlier]
        first, second = ids_N[:earlier][same], ids_N[distance : distance + earlier][same]
        pairs = (np.minimum(first, second) << id_bits) | np.maximum(first, second)
        keys.append((pairs << distance_bits) | distance)
    return np.concatenate(keys) if keys else np.empty(0, dtype=np.int64)


def _with_documents(tokens: TokenizedCorpus, start: int, stop: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids from `start` to `window` behind `stop`, (N,) int64, and a number for the document of each.

    Special ids get a negative number of their own, equal to no other.
    """
    ids_N = tokens.read(start, stop + window).astype(np.int64)
    first = np.searchsorted(tokens.offsets, start, side="right")
    last = np.searchsorted(tokens.offsets, start + len(ids_N), side="left")
    borders = tokens.offsets[first:last] - start
    documents_N = np.cumsum(np.bincount(borders, minlength=len(ids_N))[: len(ids_N)])
    special = np.flatnonzero(np.isin(ids_N, tokens.special_ids))
    documents_N[special] = -1 - np.arange(len(special))
    return ids_N, documents_N
