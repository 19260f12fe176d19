from dataclasses import replace

import numpy as np
import pytest

from revocab.alignment import Settings, align
from revocab.alignment.frequency import frequency_shift
from revocab.artifacts import Alignment

GENERATOR = np.random.default_rng(8)
SOURCE = [b"", b"aa", b"ab", b"b", b"cc", b"dd", b"ee"]
TARGET = [b"", b"aab", b"cc", b"dd", b"zz"]


@pytest.fixture
def problem(make_problem):
    counts = {"source_counts": np.array([9, 4, 40, 400, 100, 20, 0]), "target_counts": np.array([9, 15, 300, 20, 0])}
    return replace(make_problem(SOURCE, TARGET, source_roles={"eos": 0}, target_roles={"eos": 0}), **counts)


def test_the_slope_is_that_of_a_regression(problem):
    table = GENERATOR.normal(size=(7, 5))
    shift = frequency_shift(problem, 1.0, min_count=5)
    frequent = [2, 3, 4, 5]  # not the role, not the rare ones
    design = np.stack([np.ones(4), np.log(problem.source_counts[frequent] + 0.5)], axis=1)
    slope = np.linalg.lstsq(design, table[frequent], rcond=None)[0][1]
    np.testing.assert_allclose(shift.slope @ table, slope, rtol=1e-5, atol=1e-6)
    assert shift.slope.sum() == pytest.approx(0, abs=1e-6)


def test_rows_move_by_the_missing_log_frequency(problem):
    plain = align(problem, Settings(method="subtoken")).for_table("output").apply(np.eye(7, dtype=np.float32))
    moved = align(problem, Settings(method="subtoken", frequency_shift=0.5)).for_table("output")
    slope = frequency_shift(problem, 0.5, min_count=5).slope
    log = np.log(problem.source_counts + 0.5)
    wanted = {2: np.log(300.5) - log[4], 3: 0.0, 1: np.log(15.5) - (log[1] + log[3]) / 2}  # `aab`: `aa`, `b`
    for row, missing in wanted.items():
        expected = plain[row] + 0.5 * missing * slope
        np.testing.assert_allclose(moved.apply(np.eye(7, dtype=np.float32))[row], expected, atol=1e-5)
    np.testing.assert_allclose(moved.row_sums(), 1.0, atol=1e-6)
    np.testing.assert_array_equal(moved.apply(np.eye(7, dtype=np.float32))[0], plain[0])  # the role stays


def test_a_move_is_limited_and_an_input_table_of_its_own_is_not_moved(problem):
    far = replace(problem, target_counts=np.array([9, 15, 10**9, 20, 0]))
    alignment = align(far, Settings(method="subtoken", frequency_shift=1.0))
    share = alignment.for_table("output").dense[1][0]
    assert share[2] == pytest.approx(3.0)
    assert np.abs(share).max() == pytest.approx(3.0)
    assert len(alignment.for_table("input").dense) == 1
    np.testing.assert_array_equal(alignment.for_table("tied").dense[1][0], share)


def test_a_saved_alignment_moves_the_same(problem, tmp_path):
    alignment = align(problem, Settings(method="subtoken", frequency_shift=1.0))
    alignment.save(tmp_path)
    table = GENERATOR.normal(size=(7, 3)).astype(np.float32)
    loaded = Alignment.load(tmp_path)
    np.testing.assert_array_equal(loaded.for_table("tied").apply(table), alignment.for_table("tied").apply(table))


def test_without_counts_it_is_refused(make_problem):
    with pytest.raises(ValueError, match="counts"):
        align(make_problem(SOURCE, TARGET), Settings(method="exact", frequency_shift=1.0))
