import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from revocab.artifacts import AnswerScore
from revocab.errors import DataError
from revocab.evaluation import Question, accuracies, accuracy_difference, by_gold
from revocab.evaluation.accuracy import paired_difference_of

SCORE = AnswerScore(
    nats=np.array([-1.0, -2.0, -3.0, -2.0, -4.0, -4.0, -1.0]),
    bytes=np.array([1, 4, 3, 1, 8, 2, 1]),
    tokens=np.array([1, 1, 2, 1, 1, 4, 1]),
    offsets=np.array([0, 2, 4, 7]),
    gold=np.array([0, 0, 2]),
)


def test_predictions_by_hand():
    assert SCORE.predictions().tolist() == [0, 1, 2]  # -1 > -2, -2 > -3, -1 is the largest
    assert SCORE.predictions("bytes").tolist() == [1, 0, 0]  # -1 < -.5; -1 > -2; -.5, -2, -1
    assert SCORE.predictions("tokens").tolist() == [0, 0, 1]  # -1 > -2; -1.5 > -2; -4, -1, -1: the first


def test_accuracies_by_hand():
    found = accuracies(SCORE)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["accuracy_per_byte"] == pytest.approx(1 / 3)
    assert found["accuracy_per_token"] == pytest.approx(2 / 3)
    assert found["n"] == 3
    assert found["chance"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3)
    # Wilson: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n), with p = 2/3, n = 3, z = 1.959964
    assert found["low"] == pytest.approx(0.20765, abs=1e-5)
    assert found["high"] == pytest.approx(0.93851, abs=1e-5)


def test_by_gold_goes_by_letters_where_answers_differ():
    questions = [Question(prompt="?", choices=choices, gold=0) for choices in (("a", "b"), ("a", "b"), ("a", "b", "c"))]
    found = by_gold(SCORE, questions)
    assert {label: (row["accuracy"], row["n"]) for label, row in found.items()} == {"A": (0.5, 2), "C": (1.0, 1)}


def test_by_gold_goes_by_the_answers_where_they_are_the_same():
    score = AnswerScore(
        nats=np.array([-1.0, -2.0, -1.0, -2.0]),
        bytes=np.ones(4),
        tokens=np.ones(4),
        offsets=np.array([0, 2, 4]),
        gold=np.array([0, 1]),
    )
    questions = [Question(prompt="?", choices=("yes", "no"), gold=gold) for gold in (0, 1)]
    assert {label: row["accuracy"] for label, row in by_gold(score, questions).items()} == {"yes": 1.0, "no": 0.0}


def test_saved_and_loaded(tmp_path):
    SCORE.save(tmp_path / "score.npz")
    loaded = AnswerScore.load(tmp_path / "score.npz")
    assert all(np.array_equal(value, vars(loaded)[name]) for name, value in vars(SCORE).items())


def columns(both, gained, lost, neither):
    counts = (both, gained, lost, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def test_a_difference_as_published():
    """Newcombe 1998, the example of 36 + 12 + 2 + 0 pairs: 0.20, method 10 gives 0.0569 to 0.3404."""
    found = paired_difference_of(*columns(36, 12, 2, 0))
    assert found["value"] == pytest.approx(0.2)
    assert (found["low"], found["high"]) == (pytest.approx(0.0569, abs=5e-5), pytest.approx(0.3404, abs=5e-5))
    assert (found["gained"], found["lost"]) == (12, 2)
    turned = paired_difference_of(*reversed(columns(36, 12, 2, 0)))
    assert (turned["low"], turned["high"]) == (pytest.approx(-found["high"]), pytest.approx(-found["low"]))


def test_a_difference_agrees_with_the_bootstrap_where_there_are_many_questions():
    right, first = columns(900, 260, 140, 700)
    found = paired_difference_of(right, first)
    differences = right.astype(float) - first
    drawn = np.random.default_rng(0).choice(differences, (4000, len(differences))).mean(axis=1)
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.003)


@pytest.mark.parametrize("shares", [(0.5, 0.1, 0.1, 0.3), (0.2, 0.3, 0.05, 0.45), (0.8, 0.05, 0.05, 0.1)])
def test_the_interval_holds_the_true_difference_as_often_as_it_says(shares):
    """Over every outcome of 12 questions, each with its probability."""
    questions, covered = 12, 0.0
    for counts in itertools.product(range(questions + 1), repeat=3):
        if sum(counts) > questions:
            continue
        full = (*counts, questions - sum(counts))
        ways = math.factorial(questions) / math.prod(map(math.factorial, full))
        found = interval_of(full)
        covered += ways * math.prod(map(pow, shares, full)) * (found[0] <= shares[1] - shares[2] <= found[1])
    assert covered > 0.93


def interval_of(counts):
    found = paired_difference_of(*columns(*counts))
    return found["low"] - 1e-12, found["high"] + 1e-12


def test_equal_answers_to_few_questions_leave_room_for_a_difference():
    found = paired_difference_of(*columns(0, 0, 0, 10))
    assert found["value"] == 0
    assert found["low"] == pytest.approx(-0.278, abs=1e-3)  # Wilson's interval of 0 of 10
    assert found["high"] == pytest.approx(0.278, abs=1e-3)


def test_differences_are_of_the_same_questions():
    better = replace(SCORE, nats=np.array([-1.0, -2.0, -1.0, -2.0, -4.0, -4.0, -1.0]))  # has question 1 right too
    found = accuracy_difference(better, SCORE)
    assert (found["value"], found["gained"], found["lost"]) == (pytest.approx(1 / 3), 1, 0)
    assert found["per_byte"]["value"] == pytest.approx(0.0)
    with pytest.raises(DataError, match="same questions"):
        accuracy_difference(SCORE, replace(SCORE, gold=np.array([1, 0, 2])))
