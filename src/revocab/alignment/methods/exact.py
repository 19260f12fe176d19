"""Shared tokens stand for themselves; all others have no evidence and go to the fallback."""

from revocab.alignment.problem import Problem, Settings
from revocab.alignment.proposal import Proposal, no_evidence

NEEDS_VECTORS = False


def propose(problem: Problem, settings: Settings) -> Proposal:
    return no_evidence(problem, exact=problem.exact)
