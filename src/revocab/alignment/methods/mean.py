"""Baseline: every token but the special roles is the mean of the source tokens that stand for text.

The setting `fallback` has no say here: the mean is what this method is.
"""

from revocab.alignment.problem import Problem, Settings
from revocab.alignment.proposal import NO_PAIRS, Proposal, no_evidence
from revocab.artifacts import Origin

NEEDS_VECTORS = False


def propose(problem: Problem, settings: Settings) -> Proposal:
    return no_evidence(problem, exact=NO_PAIRS, origin=Origin.BASELINE, fallback="mean")
