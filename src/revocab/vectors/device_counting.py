"""The same window counts made with torch, for a GPU: sort, then add up whole numbers, so that no bit differs.

N tokens of a chunk, K pairs of a chunk, U distinct pairs.
"""

from collections.abc import Iterable

import numpy as np
import torch
from scipy import sparse
from torch import Tensor


def count_chunks(
    chunks: Iterable[tuple[np.ndarray, np.ndarray]], chunk: int, weights: np.ndarray, size: int, device: str
) -> sparse.csr_matrix:
    """Return each unordered pair once, at the row of its smaller id: (size, size) int64, canonical CSR.

    Args:
        chunks: ids (N,) and document numbers (N,) of each chunk, with `window` tokens of the next one behind.
        chunk: tokens of a chunk that pairs begin at.
        weights: (window + 1,) int64, what a pair at each distance adds.
        size: tokens of the vocabulary.
        device: torch's name of it.
    """
    id_bits = int(size - 1).bit_length()
    weights_W = torch.from_numpy(weights).to(device)
    keys_U = torch.empty(0, dtype=torch.int64, device=device)
    counts_U = torch.empty(0, dtype=torch.int64, device=device)
    for ids_N, documents_N in chunks:
        ids, documents = torch.from_numpy(ids_N).to(device), torch.from_numpy(documents_N).to(device)
        part = _sum_by_key(*_weighted_pairs(ids, documents, chunk, weights_W, id_bits))
        keys_U, counts_U = _sum_by_key(torch.cat([keys_U, part[0]]), torch.cat([counts_U, part[1]]))
    return _as_csr(keys_U, counts_U, size, id_bits)


def _weighted_pairs(
    ids_N: Tensor, documents_N: Tensor, chunk: int, weights_W: Tensor, id_bits: int
) -> tuple[Tensor, Tensor]:
    """Return both ids of every counted pair as one key, (K,) int64, and what it adds, (K,) int64."""
    keys, counts = [weights_W[:0]], [weights_W[:0]]
    for distance in range(1, len(weights_W)):
        earlier = min(chunk, len(ids_N) - distance)
        if earlier <= 0:
            break
        same = documents_N[:earlier] == documents_N[distance : distance + earlier]
        first, second = ids_N[:earlier][same], ids_N[distance : distance + earlier][same]
        keys.append((torch.minimum(first, second) << id_bits) | torch.maximum(first, second))
        counts.append(weights_W[distance].expand(len(first)))
    return torch.cat(keys), torch.cat(counts)


def _sum_by_key(keys_K: Tensor, counts_K: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct keys, ascending, and the sum of the counts of each."""
    keys_U, place_K = torch.unique(keys_K, return_inverse=True)
    return keys_U, torch.zeros_like(keys_U).index_add_(0, place_K, counts_K)


def _as_csr(keys_U: Tensor, counts_U: Tensor, size: int, id_bits: int) -> sparse.csr_matrix:
    borders = torch.arange(size + 1, device=keys_U.device) << id_bits
    row_starts = torch.searchsorted(keys_U, borders).cpu().numpy()
    columns = (keys_U & ((1 << id_bits) - 1)).to(torch.int32).cpu().numpy()
    return sparse.csr_matrix((counts_U.cpu().numpy(), columns, row_starts), shape=(size, size))
