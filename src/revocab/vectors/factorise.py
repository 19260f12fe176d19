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

    R is `rank`, or K where the matrix is smaller. The same seed on the same machine gives the same result; the
    random numbers are drawn on the CPU's generator or the GPU's, so devices agree in the subspace, not in each digit.
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
    """CSR on the CPU, where its products use every core and scipy's use one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # CSR is called beta; products and transposes are tested
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data),
            matrix.shape,
            check_invariants=False,
        ).to(device)
