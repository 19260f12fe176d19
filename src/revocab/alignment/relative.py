"""Relative representation: a token described by its cosines to pivots, tokens that both vocabularies share.

Moschella et al. 2023 (arXiv 2209.15430), as TokAlign (Li et al. 2025, arXiv 2506.03523, section 3.2) uses it. The two
sets of vectors need no common coordinates: their cosines to the same tokens are comparable as they are.

P pivots, R tokens asked for, D width.
"""

import logging

import numpy as np
from torch import Tensor

from revocab.alignment.evidence import Evidence, take
from revocab.alignment.problem import Settings
from revocab.alignment.space import Space, rows_of, scaled
from revocab.artifacts import Pairs

log = logging.getLogger(__name__)


def relative_space(evidence: Evidence, pairs: Pairs, settings: Settings) -> Space:
    """Describe tokens by `pivot_count` of the pairs, drawn with the seed.

    With similarity `cosine` the descriptions are normalised; with `dot` they are not, as in the published code, whose
    products grow with the number of pivots and favour tokens that are near to everything.
    Memory: N x P floats for the source tokens.
    """
    pivots = draw_pivots(pairs, settings.pivot_count, settings.seed)
    source_PD = scaled(rows_of(evidence.source_vectors, pivots.source_ids), "cosine")
    target_PD = scaled(rows_of(evidence.target_vectors, pivots.target_ids), "cosine")
    return Space(
        source_ids=evidence.source_ids,
        source_rows=_describe(rows_of(evidence.source_vectors, evidence.source_ids), source_PD, settings),
        target_rows=lambda ids: _describe(rows_of(evidence.target_vectors, ids), target_PD, settings),
    )


def draw_pivots(pairs: Pairs, count: int, seed: int) -> Pairs:
    """Draw `count` of the pairs without replacement, or all where there are no more."""
    places = np.random.default_rng(seed).permutation(len(pairs))[:count]
    return take(pairs, np.sort(places))


def _describe(vectors_RD: Tensor, pivots_PD: Tensor, settings: Settings) -> Tensor:
    cosines_RP = scaled(vectors_RD, "cosine") @ pivots_PD.T
    return scaled(cosines_RP, "cosine") if settings.similarity == "cosine" else cosines_RP


def count_pivots(available: int, settings: Settings) -> dict[str, int]:
    """Return how many pivots there are and were asked for, and warn if they are fewer."""
    pivots = min(settings.pivot_count, available)
    if pivots < settings.pivot_count:
        log.warning(
            "only %d shared tokens occur often enough to be pivots, alignment.pivot_count asks for %d",
            pivots,
            settings.pivot_count,
        )
    return {"pivots": pivots, "pivots_asked": settings.pivot_count}
