import pytest

from revocab.reporting import Limits, checklist

STAGE1 = {"loss_first": 5.0, "loss_last": 3.0, "loss_max": 5.0, "spikes": 0}
STAGE2 = {"loss_first": 3.1, "loss_last": 2.5, "spikes": 0}
ALIGNMENT = {"target_tokens": 1000, "coverage": 0.97, "zero_initialised": 10}


def metrics(norms=0.5, steps=100, stages=("stage1", "stage2"), changes=None):
    records = [{"stage": s, "step": n, "grad_norm": norms} for s in stages for n in range(1, steps + 1)]
    for index, norm in (changes or {}).items():
        records[index]["grad_norm"] = norm
    return records


def judge(**changes):
    given = {"stage1": STAGE1, "stage2": STAGE2, "metrics": metrics(), "alignment": ALIGNMENT} | changes
    return {check["name"]: check for check in checklist(**given)}


def failed(**changes):
    return [name for name, check in judge(**changes).items() if not check["passed"]]


def test_a_healthy_job_passes_every_check():
    checks = judge()
    assert len(checks) == 9
    assert all(check["passed"] is True for check in checks.values())
    assert all(set(check) == {"name", "value", "limit", "passed"} for check in checks.values())


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"stage1": STAGE1 | {"loss_last": 5.0}, "stage2": STAGE2}, "stage 1 loss, last / first"),
        ({"stage1": STAGE1 | {"spikes": 1}}, "stage 1 loss spikes"),
        ({"stage2": STAGE2 | {"skipped_steps": 2}}, "steps skipped, not finite"),
        ({"stage2": STAGE2 | {"loss_first": 3.31}}, "stage 2 first loss / stage 1 last"),
        ({"stage2": STAGE2 | {"loss_last": 3.0}}, "stage 2 last loss / stage 1 last"),
        ({"metrics": metrics(changes={50: 40.0})}, "gradient norm spikes"),
        ({"alignment": ALIGNMENT | {"coverage": 0.95}}, "alignment coverage"),
        ({"alignment": ALIGNMENT | {"zero_initialised": 50}}, "zero-initialised tokens, share"),
    ],
)
def test_each_check_fails_alone(changes, name):
    assert failed(**changes) == [name]


def test_the_share_of_calm_gradients_counts_steps_after_warmup_of_both_stages():
    name = "gradient norms below 1, share"
    warm = dict.fromkeys([0, 1, 2, 100, 101, 102], 9.0)  # the first 3 of 100 steps of each stage
    assert judge(metrics=metrics(changes=warm))[name]["value"] == 1.0
    loud = dict.fromkeys(range(3, 3 + 20 * 9, 20), 1.0)  # a norm of exactly 1 is not below 1
    assert judge(metrics=metrics(0.95, changes=loud))[name] == {
        "name": name,
        "value": pytest.approx((194 - 9) / 194),
        "limit": 0.95,
        "passed": True,
    }
    assert name in failed(metrics=metrics(0.95, changes=dict.fromkeys(range(3, 3 + 18 * 10, 18), 1.0)))


def test_the_probe_does_not_count():
    assert failed(metrics=metrics() + metrics(50.0, stages=("probe",))) == []


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_is_not_finite_does_not_pass(value):
    assert "stage 1 loss, last / first" in failed(stage1=STAGE1 | {"loss_last": value})
    assert "alignment coverage" in failed(alignment=ALIGNMENT | {"coverage": value})
    assert "gradient norm spikes" in failed(metrics=metrics(changes={50: value}))


def test_stages_that_did_not_run_have_no_checks():
    assert list(judge(stage1=None, stage2=None, metrics=[])) == [
        "alignment coverage",
        "zero-initialised tokens, share",
    ]
    assert not any(name.startswith("stage 2") for name in judge(stage2={}))


def test_a_stage_without_metrics_is_not_calm():
    assert failed(metrics=[]) == ["gradient norms below 1, share", "gradient norm spikes"]


def test_an_empty_alignment_fails_its_checks():
    assert failed(alignment={}) == ["alignment coverage", "zero-initialised tokens, share"]


def test_limits_move_the_line():
    limits = Limits(coverage=0.98, spikes=3, gradient_norm=0.4)
    names = failed(limits=limits, stage1=STAGE1 | {"spikes": 3})
    assert names == ["gradient norms below 0.4, share", "alignment coverage"]
