import numpy as np

from revocab.reporting.curves import curves_of, thinned


def test_thinning_keeps_peaks_ends_and_order():
    values = np.random.default_rng(0).normal(size=5000)
    values[1234] = 99.0
    kept = thinned(values, 400)
    assert kept == sorted(set(kept))
    assert {0, 1234, 4999, int(values.argmin())} <= set(kept)
    assert len(kept) <= 402


def test_short_curves_stay_whole_and_gaps_stay_gaps():
    assert thinned(np.arange(10.0), 400) == list(range(10))
    values = np.full(1000, np.nan)
    assert 2 <= len(thinned(values, 100)) <= 102


def test_columns_have_one_length_and_leave_the_probe_out():
    metrics = [
        {"stage": s, "step": n, "loss": float("nan") if n == 2 else 1.23456789}
        for s in ("probe", "stage1")
        for n in (1, 2)
    ]
    assert curves_of(metrics) == {
        "stage1": {"step": [1, 2], "loss": [1.2346, None], "grad_norm": [None, None], "lr": [None, None]}
    }
