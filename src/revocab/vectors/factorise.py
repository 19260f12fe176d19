"""The leading singular vectors of a sparse matrix, by the randomised method that torch brings.

K rows and columns, R the rank asked for.
"""

import warnings

import numpy as np
import torch
from scipy import sparse

OVERSAMPLING = 20  # directions tried beyond the rank (Halko, Martinsson & Tropp 2011, section 4.2: 5 to 20)
POWER_ITERATIONS = 2  # enough for a spectrum that falls as slowly as that of text (the same paper, section 4.5)


def leading_singular_vectors(
    matrix_KK: sparse.csr_matrix, rank: int, *, seed: int, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the left singular vectors (K, R) and the singular values (R,) of a sparse matrix, largest first.

    R is `rank`, or K where the matrix is smaller. The same seed on the same machine gives the same result.
    CPU and GPU draw different random numbers from it: they find the same leading directions, and differ in the last
    ones, where singular values lie close together.
    Memory: the matrix once more with 64-bit indices, and about four dense (K, rank) blocks in float32.
    """
    size = min(rank + OVERSAMPLING, *matrix_KK.shape)
    rank = min(rank, *matrix_KK.shape)
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        matrix = _as_torch(matrix_KK, device)
        left_KR, values_R, _ = torch.svd_lowrank(matrix, q=size, niter=POWER_ITERATIONS)
    return left_KR[:, :rank].cpu().numpy(), values_R[:rank].cpu().numpy()


def _as_torch(matrix: sparse.csr_matrix, device: str) -> torch.Tensor:
    """CSR on the CPU, where its products use every core and scipy's use one; COO on a GPU, which can transpose it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # CSR is called beta, checks are off: what we want
        return _csr_tensor(matrix) if device == "cpu" else _coo_tensor(matrix, device)


def _csr_tensor(matrix: sparse.csr_matrix) -> torch.Tensor:
    row_starts = torch.from_numpy(matrix.indptr.astype(np.int64))
    columns = torch.from_numpy(matrix.indices.astype(np.int64))
    return torch.sparse_csr_tensor(
        row_starts, columns, torch.from_numpy(matrix.data), matrix.shape, check_invariants=False
    )


def _coo_tensor(matrix: sparse.csr_matrix, device: str) -> torch.Tensor:
    entries = matrix.tocoo()
    places = torch.from_numpy(np.vstack([entries.row, entries.col]).astype(np.int64))
    values = torch.from_numpy(entries.data)
    return torch.sparse_coo_tensor(places, values, matrix.shape, device=device, check_invariants=False).coalesce()
