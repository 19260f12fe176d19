"""The leading singular vectors of a sparse matrix, by the randomised method of Halko, Martinsson & Tropp (2011).

Not `torch.svd_lowrank`, which finds the same: it draws other numbers on a GPU than on the CPU, and takes the transposed
product of a CSR matrix slowly.

K rows and columns, R the rank asked for, Q directions tried.
"""

import warnings

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from revocab.runtime.threads import few_threads

OVERSAMPLING = 20  # directions tried beyond the rank (Halko et al., section 4.2: 5 to 20)
POWER_ITERATIONS = 2  # enough for a spectrum that falls as slowly as that of text (the same paper, section 4.5)
ROWS_AT_ONCE = 8192  # rows worked in float64 at a time


def leading_singular_vectors(
    matrix_KK: sparse.csr_matrix, rank: int, *, seed: int, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the left singular vectors (K, R) and the singular values (R,) of a sparse matrix, largest first.

    R is `rank`, or K where the matrix is smaller. The largest entry of each vector is positive. The same seed on the
    same machine gives the same result; every device starts from the same numbers, so that another one differs by
    rounding alone: values by less than 1e-5 of the largest, vectors by more only where two values nearly agree.
    Memory: the matrix and its transpose, with 64-bit indices on a GPU, and about four dense (K, Q) blocks in float32.
    """
    size = min(rank + OVERSAMPLING, *matrix_KK.shape)
    rank = min(rank, *matrix_KK.shape)
    matrix, transposed = _with_transpose(matrix_KK, device)
    start_KQ = torch.randn(matrix_KK.shape[1], size, generator=torch.Generator().manual_seed(seed))
    basis_KQ = _orthonormal(matrix @ start_KQ.to(device))
    for _ in range(POWER_ITERATIONS):
        basis_KQ = _orthonormal(matrix @ _orthonormal(transposed @ basis_KQ))
    gram_QQ = _gram(transposed @ basis_KQ)
    with few_threads():
        squares_Q, turn_QQ = torch.linalg.eigh(gram_QQ)  # ascending
    values_R = squares_Q.flip(0)[:rank].clamp_min(0).sqrt()
    left_KR = (basis_KQ @ turn_QQ.flip(1)[:, :rank].to(basis_KQ)).cpu().numpy()
    largest_R = np.take_along_axis(left_KR, np.abs(left_KR).argmax(axis=0)[None], axis=0)[0]
    return left_KR * np.where(largest_R < 0, -1, 1).astype(np.float32), values_R.numpy().astype(np.float32)


def _orthonormal(columns_KQ: Tensor) -> Tensor:
    return torch.linalg.qr(columns_KQ).Q


def _gram(rows_KQ: Tensor) -> Tensor:
    """Return rows.T @ rows, (Q, Q) float64 on the CPU: squares of singular values need the digits."""
    blocks = (block.double().T @ block.double() for block in rows_KQ.split(ROWS_AT_ONCE))
    return sum(blocks, rows_KQ.new_zeros(1, dtype=torch.float64)).cpu()


def _with_transpose(matrix: sparse.csr_matrix, device: str) -> tuple[Tensor, Tensor]:
    """CSR on the CPU, where its products use every core and scipy's use one; COO on a GPU, which can transpose it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # CSR is called beta, checks are off: what we want
        if device == "cpu":
            return _csr_tensor(matrix), _csr_tensor(matrix.T.tocsr())
        on_device = _csr_tensor(matrix, device).to_sparse_coo()
        return on_device, on_device.mT.coalesce()


def _csr_tensor(matrix: sparse.csr_matrix, device: str = "cpu") -> torch.Tensor:
    row_starts, columns, values = (
        torch.from_numpy(part).to(device) for part in (matrix.indptr, matrix.indices, matrix.data)
    )
    return torch.sparse_csr_tensor(row_starts, columns, values, matrix.shape, check_invariants=False)
