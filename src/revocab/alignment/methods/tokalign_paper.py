"""TokAlign by the text of its paper (Li et al. 2025, arXiv 2506.03523), with shared tokens found by surface.

Tokens are described by their cosines to `pivot_count` random shared tokens; each takes the one source token whose
description has the highest cosine. `similarity: dot` compares the descriptions as the published code does, without
normalising them; a threshold is then a limit for that product.
"""

from dataclasses import replace

from revocab.alignment.matching import propose_matches
from revocab.alignment.problem import Problem, Settings
from revocab.alignment.proposal import Proposal
from revocab.alignment.relative import count_pivots, relative_space

NEEDS_VECTORS = True


def propose(problem: Problem, settings: Settings) -> Proposal:
    proposal = propose_matches(relative_space, problem, settings, exact=problem.exact, top_k=1)
    counts = {**proposal.counts, **count_pivots(proposal.counts["fitted_pairs"], settings)}
    return replace(proposal, counts=counts)
