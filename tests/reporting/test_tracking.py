import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from revocab.errors import ConfigError
from revocab.reporting import finish, log_summary, make_logger
from revocab.reporting.tracking import flatten

SUMMARY = {
    "bpb": {"bio.heldout": {"source": 0.9, "final": 0.8, "probe": None}},
    "labels": {"preset": "paper"},
    "stage1": {"steps": 3},
    "checks": [{"name": "coverage", "value": 0.9, "limit": 0.95, "passed": False}],
    "resumes": [{"stage": "stage1", "step": 2}],
}


@pytest.fixture(autouse=True)
def _nobody_logged_in(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))


def start(folder, run_id, kind="wandb_offline", **changes):
    settings = {"project": "revocab", "group": "sweep-of-tests", "name": f"job {run_id}", "tags": ["paper", "paper"]}
    settings |= {"config": {"vocab": {"lr_stage1": 2e-5}, "seed": 0}, "run_id": run_id, "folder": folder}
    return make_logger(kind, **settings | changes)


def read_back(folder):
    """State of the run and its history rows, as wandb's own reader gives them."""
    (run,) = (folder / "wandb").glob("offline-run-*")
    wandb = Path(sys.executable).with_name("wandb")

    def inspect(*options):
        command = [str(wandb), "leet", "inspect", *options, "--json", str(run)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    records = [json.loads(line) for line in inspect().splitlines()]
    return json.loads(inspect("--summary")), [record for record in records if record.get("type") == "history"]


@pytest.mark.skipif(not shutil.which("wandb", path=Path(sys.executable).parent), reason="wandb's command is missing")
def test_two_jobs_in_one_process_leave_two_whole_runs(tmp_path, capfd):
    first = start(tmp_path / "a", "aaaa1111")
    first.log_metrics({"stage1/loss": 3.0, "stage1/lr": 0.1}, step=1)
    first.log_metrics({"stage1/loss": 2.0, "stage1/lr": 0.1}, step=2)
    first.log_metrics({"stage2/loss": 1.5}, step=1)
    log_summary(first, SUMMARY)
    finish(first, exit_code=0)
    second = start(tmp_path / "b", "bbbb2222", config={"seed": 1}, tags=[])
    second.log_metrics({"stage1/loss": 9.0}, step=1)
    finish(second, exit_code=1)

    state, history = read_back(tmp_path / "a")
    assert state["config"]["vocab"]["lr_stage1"] == 2e-5
    assert state["exit_code"] == 0
    assert state["tags"] == ["paper"]
    assert state["name"] == "job aaaa1111"
    assert state["summary"]["bpb/bio.heldout/final"] == 0.8
    assert state["summary"]["checks/coverage"] is False
    assert state["summary"]["stage1/loss"] == {"min": 2.0, "last": 2.0}
    text = json.dumps(history)
    assert len(history) == 3
    assert text.count("stage1/step") == 2
    assert text.count("stage2/step") == 1

    state, history = read_back(tmp_path / "b")
    assert (state["exit_code"], state["config"]["seed"], len(history)) == (1, 1, 1)
    assert b"sweep-of-tests" in next((tmp_path / "b").rglob("*.wandb")).read_bytes()  # the group
    assert capfd.readouterr() == ("", "")


def test_a_run_left_open_is_not_continued_by_the_next_job(tmp_path):
    start(tmp_path / "a", "aaaa3333")
    second = start(tmp_path / "b", "bbbb4444")
    assert second.experiment.id == "bbbb4444"
    finish(second, exit_code=0)


def test_none_makes_no_logger_and_needs_no_end(tmp_path):
    logger = start(tmp_path, "x", kind="none")
    assert logger is None
    log_summary(logger, SUMMARY)
    finish(logger, exit_code=1)
    assert list(tmp_path.iterdir()) == []


def test_unknown_kind_names_the_kinds(tmp_path):
    with pytest.raises(ConfigError, match="wandb_offline"):
        start(tmp_path, "x", kind="tensorboard")


def test_online_without_a_key_is_one_line_at_once(tmp_path):
    began = time.monotonic()
    with pytest.raises(ConfigError, match="wandb login") as error:
        start(tmp_path, "x", kind="wandb")
    assert "\n" not in str(error.value)
    assert time.monotonic() - began < 10


def test_flatten_keeps_names_with_dots_and_leaves_lists_out():
    assert flatten(SUMMARY) == {
        "bpb/bio.heldout/source": 0.9,
        "bpb/bio.heldout/final": 0.8,
        "labels/preset": "paper",
        "stage1/steps": 3,
        "checks/coverage": False,
    }
