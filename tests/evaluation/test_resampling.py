import numpy as np
import pytest

from revocab.artifacts import TextScore
from revocab.errors import DataError
from revocab.evaluation import bootstrap_interval, paired_difference, resampling


def make_score(bits, sizes):
    return TextScore(bits=np.asarray(bits, float), bytes=np.asarray(sizes), tokens=np.asarray(sizes) // 2)


def random_score(documents=400, seed=0, noise=0.2):
    generator = np.random.default_rng(seed)
    sizes = generator.integers(50, 500, documents)
    return make_score(sizes * generator.normal(1.0, noise, documents), sizes)


def test_interval_agrees_with_a_plain_loop():
    score = random_score(60)
    generator = np.random.default_rng(5)
    values = []
    for _ in range(3000):
        chosen = generator.integers(60, size=60)
        values.append(sum(score.bits[chosen]) / sum(score.bytes[chosen]))
    expected = np.quantile(values, [0.025, 0.975])
    np.testing.assert_allclose(bootstrap_interval(score, samples=3000), expected, atol=0.004)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(200):
        low, high = bootstrap_interval(random_score(80, seed), samples=200)
        hits += low <= 1.0 <= high
    assert 175 <= hits <= 199


def test_interval_is_seeded_and_independent_of_chunks(monkeypatch):
    score = random_score(50)
    once = bootstrap_interval(score, seed=4)
    assert once == bootstrap_interval(score, seed=4)
    assert once != bootstrap_interval(score, seed=5)
    monkeypatch.setattr(resampling, "INDICES_AT_ONCE", 170)
    assert once == bootstrap_interval(score, seed=4)


def test_documents_that_agree_leave_no_doubt():
    assert bootstrap_interval(make_score([10, 20], [10, 20])) == (1.0, 1.0)


def test_paired_difference_is_narrower_than_unpaired_intervals():
    a = random_score()
    b = make_score(a.bits - 0.01 * a.bytes, a.bytes)
    difference = paired_difference(a, b)
    assert difference.value == pytest.approx(a.bits_per_byte - b.bits_per_byte)
    assert difference.low == pytest.approx(0.01)
    assert difference.high == pytest.approx(0.01)


def test_paired_difference_changes_sign_with_the_order():
    a = random_score(seed=1)
    b = make_score(random_score(seed=2).bits[: len(a.bits)], a.bytes)
    forward, backward = paired_difference(a, b), paired_difference(b, a)
    assert (forward.value, forward.low, forward.high) == pytest.approx(
        (-backward.value, -backward.high, -backward.low), abs=1e-12
    )


def test_other_documents_cannot_be_paired():
    with pytest.raises(DataError, match="same documents"):
        paired_difference(random_score(20), random_score(30))
