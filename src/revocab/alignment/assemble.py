"""From a method's proposal to W: shared tokens for themselves, evidence where there is some, the fallback for the rest.

T target tokens, S source tokens.
"""

from time import perf_counter

import numpy as np
from scipy import sparse

from revocab.alignment import registry
from revocab.alignment.fallbacks import Filling, fill
from revocab.alignment.problem import Problem, Settings
from revocab.alignment.proposal import Proposal, weights_from_entries
from revocab.artifacts import FALLBACK_ORIGINS, Alignment, Origin


def align(problem: Problem, settings: Settings) -> Alignment:
    """Return W for a problem.

    Args:
        problem: vocabularies, shared tokens, pieces and, for methods that compare them, token vectors.
        settings: the method and its options.

    Raises:
        ConfigError: an unknown method.
        ModelError: the vocabularies share no token and the method needs some.
        DataError: the corpus is too small to compare vectors.
    """
    started = perf_counter()
    proposal = registry.load(settings.method).propose(problem, settings)
    origin_T = _origins(problem, proposal)
    fallback = proposal.fallback or settings.fallback
    filling = fill(problem, fallback, settings.seed, np.isin(origin_T, FALLBACK_ORIGINS))
    origin_T[filling.by_pieces] = Origin.SUBTOKENS
    return Alignment(
        weights=_weights(problem, proposal, origin_T, filling),
        background=filling.background,
        background_share=filling.background_share,
        origin=origin_T,
        similarity=proposal.similarity,
        report={
            "method": settings.method,
            "similarity_kind": settings.similarity,
            "similarity_threshold": settings.similarity_threshold,
            "fallback_kind": fallback,
            "fallback_by_pieces": int(filling.by_pieces.sum()),
            **proposal.counts,
            "alignment_seconds": round(perf_counter() - started, 3),
        },
    )


def _origins(problem: Problem, proposal: Proposal) -> np.ndarray:
    origin_T = proposal.origin.copy()
    origin_T[proposal.exact.target_ids] = Origin.EXACT
    origin_T[problem.roles.target_ids] = Origin.ROLE
    return origin_T


def _weights(problem: Problem, proposal: Proposal, origin_T: np.ndarray, filling: Filling) -> sparse.csr_matrix:
    """Lay exact tokens and roles over the proposal, and add what the fallback gives."""
    own_T = np.isin(origin_T, (Origin.EXACT, Origin.ROLE))
    twin_T = np.full(len(problem.target), -1, dtype=np.int64)
    twin_T[proposal.exact.target_ids] = proposal.exact.source_ids
    twin_T[problem.roles.target_ids] = problem.roles.source_ids
    rows = np.flatnonzero(own_T)
    own = weights_from_entries(rows, twin_T[rows], np.ones(len(rows)), problem.shape)
    proposed = sparse.diags_array((~own_T & (filling.kept)).astype(np.float64)) @ proposal.weights
    weights = sparse.csr_matrix(own + proposed + filling.weights, dtype=np.float32)
    weights.eliminate_zeros()
    weights.sort_indices()
    return weights
