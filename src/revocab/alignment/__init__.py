"""From two vocabularies to W: for every target token the weights over source tokens that make its embedding.

A method proposes weights where it has evidence (`methods/`, one file each); `align` lets shared tokens stand for
themselves, gives the rest to the fallback, and counts every branch; `report` says what came of it.
"""

from revocab.alignment.assemble import align
from revocab.alignment.problem import Problem, Settings
from revocab.alignment.registry import methods, needs_vectors
from revocab.alignment.report import report

__all__ = ["Problem", "Settings", "align", "methods", "needs_vectors", "report"]
