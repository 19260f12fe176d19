"""TokAlign as its published scripts compute it (github.com/ZNLP/TokAlign), which is not what its paper describes.

Where it departs from `tokalign_paper`, and why one would not want it to:
- shared tokens are those with the same raw string, so `▁the` and `Ġthe` have nothing in common;
- pivots are drawn with seed 0, whatever the seed of the run;
- descriptions are compared by their dot product, called a cosine there: unbounded, and it favours tokens that are near
  to everything. `similarity_threshold` is a limit for that product; the scripts have none;
- tokens without a vector take a random source token, whatever `fallback` says.
"""

from dataclasses import replace

from revocab.alignment.matching import propose_matches
from revocab.alignment.problem import Problem, Settings
from revocab.alignment.proposal import Proposal
from revocab.alignment.relative import count_pivots, relative_space

NEEDS_VECTORS = True
PIVOT_SEED = 0


def propose(problem: Problem, settings: Settings) -> Proposal:
    as_published = replace(settings, similarity="dot", seed=PIVOT_SEED)
    exact = problem.exact_by_string
    proposal = propose_matches(relative_space, problem, as_published, exact=exact, top_k=1)
    counts = {**proposal.counts, **count_pivots(proposal.counts["fitted_pairs"], settings), "similarity_kind": "dot"}
    return replace(proposal, fallback="random", counts=counts)
