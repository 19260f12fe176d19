"""Accuracy of a task's answers with Wilson's interval, and the difference of two models with Newcombe's."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from revocab.artifacts import AnswerScore
from revocab.errors import DataError
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


def accuracy_difference(score: AnswerScore, first: AnswerScore) -> dict[str, Any]:
    """Share of right answers of one model less that of another to the same questions; above 0: the one is better.

    Returns:
        `value` with the 95 % interval `low` to `high`; `gained`, questions that only the one has right, and `lost`,
        those that only the other has; `per_byte`, the same five of likelihoods per byte.

    Raises:
        DataError: the two were not asked the same questions.
    """
    if not (np.array_equal(score.gold, first.gold) and np.array_equal(score.offsets, first.offsets)):
        raise DataError("Two scores can be paired only if they are of the same questions in the same order.")
    plain = paired_difference_of(score.predictions() == score.gold, first.predictions() == first.gold)
    per_byte = paired_difference_of(score.predictions("bytes") == score.gold, first.predictions("bytes") == first.gold)
    return {**plain, "per_byte": per_byte}


def paired_difference_of(right: np.ndarray, first: np.ndarray) -> dict[str, Any]:
    """Of two (Q,) columns of truths about the same questions: see `accuracy_difference`.

    The interval is Newcombe's for paired shares (Statistics in Medicine 17, 1998, 2635-2650, method 10), made of the
    two Wilson intervals and the correlation of the columns. Unlike a bootstrap it has a width also where all answers
    agree.
    """
    right, first = right.astype(bool), first.astype(bool)
    questions = len(right)
    both, gained, lost, neither = (
        int(np.sum(column)) for column in (right & first, right & ~first, ~right & first, ~right & ~first)
    )
    (share, low, high), (first_share, first_low, first_high) = share_with_interval(right), share_with_interval(first)
    product = both * neither - gained * lost
    product = product - min(product, questions / 2) if product > 0 else product  # the correction for continuity
    spread = math.sqrt((both + gained) * (lost + neither) * (both + lost) * (gained + neither))
    correlation = product / spread if spread else 0.0

    def width(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))

    value = share - first_share
    return {
        "value": value,
        "low": value - width(share - low, first_high - first_share),
        "high": value + width(high - share, first_share - first_low),
        "gained": gained,
        "lost": lost,
    }


def _with_interval(right: np.ndarray) -> dict[str, Any]:
    accuracy, low, high = share_with_interval(right)
    return {"accuracy": accuracy, "low": low, "high": high, "n": len(right)}


def share_with_interval(right: np.ndarray) -> tuple[float, float, float]:
    """Of a (Q,) column of truths their share, and the ends of Wilson's 95 % interval."""
    from scipy.stats import binomtest  # half a second of every start, whoever asks no questions included

    interval = binomtest(int(right.sum()), len(right)).proportion_ci(confidence_level=0.95, method="wilson")
    return float(right.mean()), float(interval.low), float(interval.high)
