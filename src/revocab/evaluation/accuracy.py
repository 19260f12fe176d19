"""Accuracy of a task's answers, with Wilson's interval."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from revocab.artifacts import AnswerScore
from revocab.evaluation.questions import Question


def accuracies(score: AnswerScore) -> dict[str, Any]:
    """Share of questions whose likeliest answer is right, plain (with interval) and by likelihood per byte and token.

    `chance` is what guessing gives.
    """
    plain = score.predictions() == score.gold
    return {
        **_with_interval(plain),
        "accuracy_per_byte": float(np.mean(score.predictions("bytes") == score.gold)),
        "accuracy_per_token": float(np.mean(score.predictions("tokens") == score.gold)),
        "chance": float(np.mean(1 / np.diff(score.offsets))),
    }


def by_gold(score: AnswerScore, questions: Sequence[Question]) -> dict[str, Any]:
    """Accuracy of the questions with one right answer each: by its text where all have the same, else by its letter."""
    same = len({question.choices for question in questions}) == 1
    right = score.predictions() == score.gold
    labels = questions[0].choices if same else [chr(ord("A") + place) for place in range(int(score.gold.max()) + 1)]
    return {
        label: _with_interval(right[score.gold == place])
        for place, label in enumerate(labels)
        if np.any(score.gold == place)
    }


def _with_interval(right: np.ndarray) -> dict[str, Any]:
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(confidence_level=0.95, method="wilson")
    return {
        "accuracy": float(right.mean()), "low": float(interval.low), "high": float(interval.high), "n": len(right),
    }  # fmt: skip
