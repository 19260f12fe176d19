"""Scores of language models that compare across vocabularies: bits per byte of held-out text, and right answers.

Every arm of a comparison is scored on identical documents and questions, and a score keeps one number per document or
answer, so that sets can be resampled and two models compared document by document.
"""

from revocab.evaluation.accuracy import accuracies, accuracy_difference, by_gold
from revocab.evaluation.answering import score_answers
from revocab.evaluation.comparing import text_row
from revocab.evaluation.harness import harness_row, load_tasks, run_tasks
from revocab.evaluation.questions import Question, pose, read_items
from revocab.evaluation.resampling import Difference, bootstrap_interval, paired_difference, perplexity_interval
from revocab.evaluation.speed import generation_speed
from revocab.evaluation.table import scores_table
from revocab.evaluation.tasks import TASKS, Task
from revocab.evaluation.text import score_text, sentences, token_bits

__all__ = [
    "TASKS", "Difference", "Question", "Task", "accuracies", "accuracy_difference", "bootstrap_interval", "by_gold",
    "generation_speed", "harness_row", "load_tasks", "paired_difference", "perplexity_interval", "pose",
    "read_items", "run_tasks", "score_answers", "score_text", "scores_table", "sentences", "text_row",
    "token_bits",
]  # fmt: skip
