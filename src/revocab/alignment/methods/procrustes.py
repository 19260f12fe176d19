"""The two vector spaces laid over each other by a rotation; each token is a mixture of its nearest `top_k` by CSLS.

`top_k` 1 gives the one-to-one map. Tokens rarer than `min_count` have no evidence.
"""

from revocab.alignment.matching import propose_matches
from revocab.alignment.problem import Problem, Settings
from revocab.alignment.procrustes import rotated_space
from revocab.alignment.proposal import Proposal

NEEDS_VECTORS = True


def propose(problem: Problem, settings: Settings) -> Proposal:
    return propose_matches(rotated_space, problem, settings, exact=problem.exact, top_k=settings.top_k)
