"""From a method's proposal to W: shared tokens for themselves, evidence where there is some, the fallback for the rest.

T target tokens, S source tokens.
"""

from dataclasses import replace
from time import perf_counter

import numpy as np
from scipy import sparse

from revocab.alignment import registry
from revocab.alignment.boundaries import agreement, blend_boundaries
from revocab.alignment.fallbacks import Filling, fill
from revocab.alignment.frequency import frequency_shift
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
        ValueError: `boundary_share` or `frequency_shift` above 0, and the problem has no boundaries or counts.
    """
    started = perf_counter()
    proposal = registry.load(settings.method).propose(problem, settings)
    origin_T = _origins(problem, proposal)
    fallback = proposal.fallback or settings.fallback
    filling = fill(problem, fallback, settings.seed, np.isin(origin_T, FALLBACK_ORIGINS))
    origin_T[filling.by_pieces] = Origin.SUBTOKENS
    output = proposal.output_weights
    alignment = Alignment(
        weights=_weights(problem, proposal, proposal.weights, origin_T, filling),
        output_weights=None if output is None else _weights(problem, proposal, output, origin_T, filling),
        background=filling.background,
        background_share=filling.background_share,
        origin=origin_T,
        similarity=proposal.similarity,
    )
    if settings.boundary_share:
        if problem.boundaries is None:
            raise ValueError(f"boundary_share={settings.boundary_share} needs the boundaries of both tokenizers")
        kept_T = np.isin(origin_T, (*FALLBACK_ORIGINS, Origin.ROLE))
        alignment = blend_boundaries(alignment, problem.boundaries, settings.boundary_share, kept_T)
    if settings.frequency_shift:
        alignment = replace(alignment, frequency=frequency_shift(problem, settings.frequency_shift, settings.min_count))
    counts = {
        "method": settings.method,
        "similarity_kind": settings.similarity,
        "similarity_threshold": settings.similarity_threshold,
        "fallback_kind": fallback,
        "fallback_by_pieces": int(filling.by_pieces.sum()),
        **proposal.counts,
        **agreement(problem),
    }
    return replace(alignment, report={**counts, "alignment_seconds": round(perf_counter() - started, 3)})


def _origins(problem: Problem, proposal: Proposal) -> np.ndarray:
    origin_T = proposal.origin.copy()
    origin_T[proposal.exact.target_ids] = Origin.EXACT
    origin_T[problem.roles.target_ids] = Origin.ROLE
    return origin_T


def _weights(
    problem: Problem, proposal: Proposal, weights: sparse.csr_matrix, origin_T: np.ndarray, filling: Filling
) -> sparse.csr_matrix:
    """Lay exact tokens and roles over the proposal, and add what the fallback gives."""
    own_T = np.isin(origin_T, (Origin.EXACT, Origin.ROLE))
    twin_T = np.full(len(problem.target), -1, dtype=np.int64)
    twin_T[proposal.exact.target_ids] = proposal.exact.source_ids
    twin_T[problem.roles.target_ids] = problem.roles.source_ids
    rows = np.flatnonzero(own_T)
    own = weights_from_entries(rows, twin_T[rows], np.ones(len(rows)), problem.shape)
    proposed = sparse.diags_array((~own_T & (filling.kept)).astype(np.float64)) @ weights
    whole = sparse.csr_matrix(own + proposed + filling.weights, dtype=np.float32)
    whole.eliminate_zeros()
    whole.sort_indices()
    return whole
