import numpy as np
import pytest

from revocab.runtime.spikes import spikes


def falling(steps=200, noise=0.03, seed=0):
    generator = np.random.default_rng(seed)
    return 2.0 + 6.0 * np.exp(-np.arange(steps) / 15) + generator.normal(0, noise, steps)


@pytest.mark.parametrize("seed", range(5))
def test_a_falling_curve_has_none(seed):
    assert spikes(falling(seed=seed)) == []


@pytest.mark.parametrize("steepness", [0.5, 2, 5, 30])
def test_a_steep_start_is_none(steepness):
    assert spikes(2.0 + 8.0 * np.exp(-np.arange(100) / steepness)) == []


@pytest.mark.parametrize("where", [[50], [199], [50, 51], [60, 90, 150]])
def test_values_that_stand_out_are_found(where):
    curve = falling()
    curve[where] += 3.0
    assert spikes(curve) == where


def test_dips_are_none():
    curve = falling()
    curve[100] -= 1.5
    assert spikes(curve) == []


def test_noise_is_measured_by_the_curve_itself():
    quiet, loud = falling(noise=0.01), falling(noise=0.3)
    quiet[100] += 0.6
    loud[100] += 0.6
    assert spikes(quiet) == [100]
    assert spikes(loud) == []


def test_a_constant_curve_needs_the_relative_size():
    curve = [1.0] * 50
    curve[25] = 1.09
    assert spikes(curve) == []
    curve[25] = 1.11
    assert spikes(curve) == [25]


def test_what_is_not_finite_is_a_spike():
    curve = [*falling(40).tolist()]
    curve[10], curve[20], curve[30] = float("nan"), float("inf"), None
    assert spikes(curve) == [10, 20, 30]


def test_a_lasting_jump_is_none():
    assert spikes([2.0] * 50 + [4.0] * 50) == []


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 9.0, 1.0]])
def test_too_few_values_have_none(values):
    assert spikes(values) == []


def test_scale_does_not_matter():
    curve = falling()
    curve[70] += 2
    assert spikes(curve * 1e-3) == spikes(curve) == [70]
