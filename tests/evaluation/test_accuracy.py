import numpy as np
import pytest

from revocab.artifacts import AnswerScore
from revocab.evaluation import Question, accuracies, by_gold

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
