"""TokAlign by the text of its paper (Li et al. 2025, arXiv 2506.03523), with shared tokens found by surface.

Tokens are described by their cosines to `pivot_count` random shared tokens; each takes the one source token whose
description has the highest cosine. `similarity: dot` compares the descriptions as the published code does, without
normalising them; a threshold is then a limit for that product.
"""

import logging
from dataclasses import replace

from revocab.alignment.matching import propose_matches
from revocab.alignment.problem import Problem, Settings
from revocab.alignment.proposal import Proposal
from revocab.alignment.relative import relative_space

NEEDS_VECTORS = True
log = logging.getLogger(__name__)


def propose(problem: Problem, settings: Settings) -> Proposal:
    proposal = propose_matches(relative_space, problem, settings, exact=problem.exact, top_k=1)
    pivots = min(settings.pivot_count, proposal.counts["fitted_pairs"])
    if pivots < settings.pivot_count:
        log.warning(
            "only %d shared tokens occur often enough to be pivots, alignment.pivot_count asks for %d",
            pivots,
            settings.pivot_count,
        )
    return replace(proposal, counts={**proposal.counts, "pivots": pivots, "pivots_asked": settings.pivot_count})
