"""Window counts of a tokenized corpus: how often each pair of tokens stands close together, nearer pairs weighing more.

A pair at distance d counts 1/d (the weighting of GloVe, Pennington et al. 2014, section 4.2). The counts are kept in
whole units of 1/lcm(1..window), so they are exact: their sum does not depend on the order, the chunks or the shards
it was made from, and memory holds the distinct pairs alone, however long the corpus is.

V tokens of the vocabulary, N tokens of a chunk, K pairs of a chunk.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import lcm

import numpy as np
from scipy import sparse

from revocab.artifacts import TokenizedCorpus
from revocab.errors import ConfigError
from revocab.runtime.progress import bar
from revocab.vectors.cores import available_cores

PAIRS_AT_ONCE = 5_000_000  # pairs sorted at a time by each thread, about 40 bytes each
MAX_WINDOW = 20  # lcm(1..20) = 232,792,560 leaves room for 4e10 neighbouring pairs of one kind in 64 bits


def units_per_count(window: int) -> int:
    """Return the whole number that one pair at distance 1 adds; a pair at distance d adds this divided by d.

    Raises:
        ConfigError: the window is not in 1..20.
    """
    if not 1 <= window <= MAX_WINDOW:
        raise ConfigError("embedding.cooccurrence.window", window, f"in 1..{MAX_WINDOW}")
    return lcm(*range(1, window + 1))


def count_neighbours(
    tokens: TokenizedCorpus, window: int, *, pairs_at_once: int = PAIRS_AT_ONCE, threads: int | None = None
) -> sparse.csr_matrix:
    """Return the symmetric window counts of a corpus: (V, V) int64 in units of 1/`units_per_count(window)`.

    Windows do not cross the borders of documents, and special ids are nobody's neighbours (they do take up a
    position). The corpus is read in chunks from its memory map; every result is the same whatever the chunk size
    and the number of threads.

    Args:
        tokens: the corpus.
        window: tokens to either side that count, in 1..20.
        pairs_at_once: pairs held by each thread at a time; bounds the memory beside the counts themselves.
        threads: chunks counted side by side; null uses every core.
    """
    units_per_count(window)  # refuses a window that cannot work before anything is read
    chunk = max(pairs_at_once // window, window + 1)
    starts = list(range(0, len(tokens.tokens), chunk))
    threads = threads or available_cores()
    sums: list[sparse.csr_matrix] = []
    with ThreadPoolExecutor(threads) as pool, bar("counting neighbours", total=len(tokens.tokens), unit="tok") as seen:
        for group in _groups(starts, threads):
            for part in pool.map(lambda start: _count_chunk(tokens, start, start + chunk, window), group):
                _push(sums, part)
            seen.update(min(chunk * len(group), len(tokens.tokens) - group[0]))
    return _both_directions(_add_up(sums, tokens.vocabulary_size))


def _groups(items: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _push(sums: list[sparse.csr_matrix], part: sparse.csr_matrix) -> None:
    """Add a chunk to a stack of partial sums that shrink towards the top: each count is moved log(chunks) times."""
    while sums and sums[-1].nnz <= 2 * part.nnz:
        part = sums.pop() + part
    sums.append(part)


def _add_up(sums: list[sparse.csr_matrix], vocabulary_size: int) -> sparse.csr_matrix:
    total = sparse.csr_matrix((vocabulary_size, vocabulary_size), dtype=np.int64)
    while sums:
        total = total + sums.pop()
    return total


def _both_directions(ahead_VV: sparse.csr_matrix) -> sparse.csr_matrix:
    """Each pair was counted once, from its earlier token; count it from the later one too."""
    both_VV = sparse.csr_matrix(ahead_VV + ahead_VV.T.tocsr())
    both_VV.sort_indices()
    return both_VV


def _count_chunk(tokens: TokenizedCorpus, start: int, stop: int, window: int) -> sparse.csr_matrix:
    """Count the pairs whose earlier token stands in [start, stop): (V, V) int64, canonical CSR.

    A pair and its distance are packed into one 64-bit key, so one sort brings equal pairs together.
    """
    size = tokens.vocabulary_size
    id_bits, distance_bits = int(size - 1).bit_length(), window.bit_length()
    keys_K = _pair_keys(tokens, start, stop, window, id_bits, distance_bits)
    keys_K.sort()
    distances_K = keys_K & ((1 << distance_bits) - 1)
    keys_K >>= distance_bits
    first_K = np.ones(len(keys_K), dtype=bool)
    np.not_equal(keys_K[1:], keys_K[:-1], out=first_K[1:])
    first = np.flatnonzero(first_K)
    pairs = keys_K[first]
    units = units_per_count(window)
    weights = np.array([0, *(units // distance for distance in range(1, window + 1))], dtype=np.int64)
    counts = np.add.reduceat(weights[distances_K], first) if len(first) else np.empty(0, dtype=np.int64)
    row_starts = np.searchsorted(pairs, np.arange(size + 1, dtype=np.int64) << id_bits)
    columns = (pairs & ((1 << id_bits) - 1)).astype(np.int32)
    return sparse.csr_matrix((counts, columns, row_starts), shape=(size, size))


def _pair_keys(
    tokens: TokenizedCorpus, start: int, stop: int, window: int, id_bits: int, distance_bits: int
) -> np.ndarray:
    """Return earlier id, later id and distance of every counted pair, packed into (K,) int64."""
    stop = min(stop, len(tokens.tokens))
    ids_N = np.asarray(tokens.tokens[start : stop + window], dtype=np.int64)
    documents_N = _document_numbers(tokens, start, ids_N)
    keys = []
    for distance in range(1, window + 1):
        earlier = min(stop - start, len(ids_N) - distance)
        if earlier <= 0:
            break
        same = documents_N[:earlier] == documents_N[distance : distance + earlier]
        first, second = ids_N[:earlier][same], ids_N[distance : distance + earlier][same]
        keys.append((((first << id_bits) | second) << distance_bits) | distance)
    return np.concatenate(keys) if keys else np.empty(0, dtype=np.int64)


def _document_numbers(tokens: TokenizedCorpus, start: int, ids_N: np.ndarray) -> np.ndarray:
    """Number the document of each position; special ids get a negative number of their own, equal to no other."""
    first = np.searchsorted(tokens.offsets, start, side="right")
    last = np.searchsorted(tokens.offsets, start + len(ids_N), side="left")
    borders = tokens.offsets[first:last] - start
    documents_N = np.cumsum(np.bincount(borders, minlength=len(ids_N))[: len(ids_N)])
    special = np.flatnonzero(np.isin(ids_N, tokens.special_ids))
    documents_N[special] = -1 - np.arange(len(special))
    return documents_N
