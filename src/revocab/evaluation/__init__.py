"""Scores of language models that compare across vocabularies: bits per byte of held-out text, with intervals.

Every arm of a comparison is scored on identical documents, and a score keeps one number per document, so that sets can
be resampled and two models compared document by document.
"""

from revocab.evaluation.resampling import Difference, bootstrap_interval, paired_difference
from revocab.evaluation.text import score_text

__all__ = ["Difference", "bootstrap_interval", "paired_difference", "score_text"]
