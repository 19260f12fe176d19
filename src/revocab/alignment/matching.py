"""Rows from vectors: target tokens without a twin take the source tokens that are nearest in a common space.

T target tokens, Q of them to match, K matches of each.
"""

import numpy as np
import torch

from revocab.alignment.evidence import Evidence, gather_evidence
from revocab.alignment.heldout import score_heldout
from revocab.alignment.neighbours import Nearest
from revocab.alignment.problem import Problem, Settings
from revocab.alignment.proposal import Proposal, needs_match, weights_from_entries
from revocab.alignment.space import Fit, search
from revocab.artifacts import Origin, Pairs


def propose_matches(fit: Fit, problem: Problem, settings: Settings, *, exact: Pairs, top_k: int) -> Proposal:
    """Match every frequent token that needs it, and score the fit on held-out pairs.

    The weights of the `top_k` matches are softmax(score / temperature). A row whose best match scores below
    `similarity_threshold` is left empty, with origin BELOW_THRESHOLD.
    """
    evidence = gather_evidence(problem, settings, exact)
    heldout = score_heldout(fit, evidence, settings)
    target_ids = _frequent_ones(needs_match(problem, exact), evidence)
    sources_QK, nearest = search(fit(evidence, evidence.pairs, settings), target_ids, top_k, settings)
    best_Q = _similarity_of_best(nearest, settings)
    passes_Q = _passes(best_Q, settings.similarity_threshold)
    proposal = Proposal(
        weights=weights_from_entries(
            np.repeat(target_ids[passes_Q], sources_QK.shape[1]),
            sources_QK[passes_Q].ravel(),
            _softmax_weights(nearest, settings.temperature)[passes_Q].ravel(),
            problem.shape,
        ),
        origin=np.full(len(problem.target), Origin.UNSEEN, dtype=np.int8),
        similarity=np.full(len(problem.target), np.nan, dtype=np.float32),
        exact=exact,
        counts={
            "fitted_pairs": len(evidence.pairs),
            "frequent_source_tokens": len(evidence.source_ids),
            "frequent_target_tokens": len(evidence.target_ids),
            "matched": len(target_ids),
            "below_threshold": int((~passes_Q).sum()),
            "heldout": heldout,
        },
    )
    proposal.origin[target_ids] = np.where(passes_Q, Origin.VECTORS, Origin.BELOW_THRESHOLD)
    proposal.similarity[target_ids] = best_Q
    return proposal


def _frequent_ones(needs_T: np.ndarray, evidence: Evidence) -> np.ndarray:
    return evidence.target_ids[needs_T[evidence.target_ids]]


def _similarity_of_best(nearest: Nearest, settings: Settings) -> np.ndarray:
    best_Q = nearest.products[:, 0].cpu().numpy()
    return np.clip(best_Q, -1.0, 1.0) if settings.similarity == "cosine" else best_Q


def _passes(best_Q: np.ndarray, threshold: float | None) -> np.ndarray:
    return np.ones(len(best_Q), dtype=bool) if threshold is None else best_Q >= threshold


def _softmax_weights(nearest: Nearest, temperature: float) -> np.ndarray:
    return torch.softmax(nearest.scores.double() / temperature, dim=1).cpu().numpy()
