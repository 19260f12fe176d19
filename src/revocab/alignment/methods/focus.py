"""FOCUS: each token is a mixture of the shared tokens that it resembles among the target's own vectors.

Dobler & de Melo 2023 (arXiv 2305.14481), section 3: cosines to all shared tokens, turned into weights by sparsemax.
Here with the token vectors that the other methods use. One space suffices, so nothing is fitted and no pair can be
held out.
"""

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from revocab.alignment.problem import Problem, Settings
from revocab.alignment.proposal import Proposal
from revocab.alignment.shared import propose_from_shared
from revocab.alignment.space import scaled

NEEDS_VECTORS = True


def propose(problem: Problem, settings: Settings) -> Proposal:
    return propose_from_shared(mixtures, problem, settings)


def mixtures(query_QD: Tensor, shared_KD: Tensor, settings: Settings) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Weights (Q, K) over shared tokens, rows sum to 1, and the best cosine (Q,)."""
    shared_KD = scaled(shared_KD, "cosine")
    blocks, best = [], []
    for block_RD in scaled(query_QD, "cosine").split(settings.rows_at_once):
        cosines_RK = block_RD @ shared_KD.T
        best.append(cosines_RK.max(dim=1).values.cpu().numpy())
        blocks.append(sparse.csr_matrix(sparsemax(cosines_RK).cpu().numpy()))
    if not blocks:
        return sparse.csr_matrix((0, len(shared_KD))), np.empty(0, dtype=np.float32)
    return sparse.csr_matrix(sparse.vstack(blocks)), np.concatenate(best)


def sparsemax(scores_RK: Tensor) -> Tensor:
    """The point of the simplex that is nearest to each row of scores (Martins & Astudillo 2016, algorithm 1)."""
    ordered_RK = scores_RK.double().sort(dim=1, descending=True).values
    sums_RK = ordered_RK.cumsum(dim=1)
    places_K = torch.arange(1, scores_RK.shape[1] + 1, device=scores_RK.device)
    size_R1 = (1 + places_K * ordered_RK > sums_RK).sum(dim=1, keepdim=True)
    limit_R1 = (sums_RK.gather(1, size_R1 - 1) - 1) / size_R1
    return (scores_RK.double() - limit_R1).clamp_min(0)
