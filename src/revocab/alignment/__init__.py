"""From two vocabularies to W: for every target token the weights over source tokens that make its embedding.

A method proposes weights where it has evidence (`methods/`, one file each); `align` lets shared tokens stand for
themselves, gives the rest to the fallback, and counts every branch; `report` says what came of it, `bleu1` and
`semantic_score` what it does to text.
"""

from revocab.alignment.assemble import align
from revocab.alignment.bleu import bleu1, map_documents
from revocab.alignment.problem import Problem, Settings
from revocab.alignment.registry import methods, needs_vectors
from revocab.alignment.report import report
from revocab.alignment.semantics import locate_sentence_model, semantic_score

__all__ = [
    "Problem",
    "Settings",
    "align",
    "bleu1",
    "locate_sentence_model",
    "map_documents",
    "methods",
    "needs_vectors",
    "report",
    "semantic_score",
]
