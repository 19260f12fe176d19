"""Orthogonal matching pursuit: each token's vector rebuilt from at most `top_k` shared tokens of the same space.

The idea of mergekit's tokensurgeon (Goddard & Fernandes 2025, arXiv 2506.06607), there over the embeddings of a donor
model, here over the target's token vectors, which need no donor. Coefficients are kept at 0 or above and scaled to sum
to 1, so that a row stays a mixture: the scale of a new embedding is that of its parts.
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
REFITS = 100  # projected gradient steps after each new part; few parts need few


def propose(problem: Problem, settings: Settings) -> Proposal:
    return propose_from_shared(mixtures, problem, settings)


def mixtures(query_QD: Tensor, shared_KD: Tensor, settings: Settings) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Weights (Q, K) over shared tokens, rows sum to 1, and the best cosine (Q,)."""
    shared_KD = scaled(shared_KD, "cosine")
    rows, columns, weights, best = [], [], [], []
    for start in range(0, len(query_QD), settings.rows_at_once):
        block_RD = scaled(query_QD[start : start + settings.rows_at_once], "cosine")
        chosen_RJ, coefficients_RJ, cosines_R = pursue(block_RD, shared_KD, settings.top_k)
        rows.append(start + np.repeat(np.arange(len(block_RD)), chosen_RJ.shape[1]))
        columns.append(chosen_RJ.cpu().numpy().ravel())
        weights.append((coefficients_RJ / coefficients_RJ.sum(dim=1, keepdim=True)).cpu().numpy().ravel())
        best.append(cosines_R.cpu().numpy())
    if not rows:
        return sparse.csr_matrix((0, len(shared_KD))), np.empty(0, dtype=np.float32)
    entries = np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_matrix(entries, shape=(len(query_QD), len(shared_KD))), np.concatenate(best)


def pursue(block_RD: Tensor, shared_KD: Tensor, parts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pick, one by one, the shared token that the rest of a vector points to most, and fit all picked ones anew.

    Returns:
        picked (R, J) rows of `shared_KD`, their coefficients (R, J) at least 0, the first of them above, and the cosine
        of the best match (R,). J is `parts`, or the number of shared tokens where there are fewer.
    """
    parts = min(parts, len(shared_KD))
    rest_RD, picked_RK = block_RD, torch.zeros(len(block_RD), len(shared_KD), dtype=torch.bool, device=block_RD.device)
    best_R = (block_RD @ shared_KD.T).max(dim=1).values
    chosen: list[Tensor] = []
    for _ in range(parts):
        place_R = (rest_RD @ shared_KD.T).masked_fill(picked_RK, -torch.inf).argmax(dim=1)
        picked_RK.scatter_(1, place_R[:, None], True)
        chosen.append(place_R)
        chosen_RJ = torch.stack(chosen, dim=1)
        coefficients_RJ = nonnegative_fit(shared_KD[chosen_RJ], block_RD)
        rest_RD = block_RD - (coefficients_RJ[:, None, :] @ shared_KD[chosen_RJ])[:, 0]
    nothing_R = coefficients_RJ.sum(dim=1) == 0  # no shared token points its way: the nearest one stands for it
    coefficients_RJ[nothing_R, 0] = 1.0
    return chosen_RJ, coefficients_RJ, best_R


def nonnegative_fit(parts_RJD: Tensor, wanted_RD: Tensor) -> Tensor:
    """Least-squares coefficients (R, J) at least 0, by accelerated projected gradient (Beck & Teboulle 2009)."""
    gram_RJJ = parts_RJD @ parts_RJD.transpose(1, 2)
    target_RJ = (parts_RJD @ wanted_RD[:, :, None])[:, :, 0]
    step_R1 = 1 / gram_RJJ.abs().sum(dim=2).max(dim=1, keepdim=True).values  # at most 1 / the largest eigenvalue
    now_RJ = ahead_RJ = target_RJ.clamp_min(0) * step_R1
    momentum = 1.0
    for _ in range(REFITS):
        slope_RJ = (gram_RJJ @ ahead_RJ[:, :, None])[:, :, 0] - target_RJ
        last_RJ, now_RJ = now_RJ, (ahead_RJ - step_R1 * slope_RJ).clamp_min(0)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead_RJ = now_RJ + (momentum - 1) / following * (now_RJ - last_RJ)
        momentum = following
    return now_RJ
