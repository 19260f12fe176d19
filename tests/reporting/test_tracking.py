import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from revocab.errors import ConfigError, MissingDependencyError
from revocab.reporting import finish, log_summary, make_logger, track_sweep
from revocab.reporting.flat import comparable, flatten
from revocab.reporting.wandb_files import count_records, remove_unreadable_runs, upload_command

SUMMARY = {
    "bpb": {"bio.heldout": {"source": 0.9, "final": 0.8, "probe": None}},
    "labels": {"preset": "paper"},
    "stage1": {"steps": 3},
    "checks": [
        {"name": "coverage", "value": 0.9, "limit": 0.95, "passed": False},
        {"name": "loss, last / first", "value": None, "limit": 1.0, "passed": False},
        {"name": "spikes", "value": 0, "limit": 0, "passed": True},
    ],
    "resumes": [{"stage": "stage1", "step": 2}],
}
BIN = Path(sys.executable).parent
needs_command = pytest.mark.skipif(not shutil.which("wandb", path=BIN), reason="wandb's command is missing")
needs_trackio = pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="trackio is not installed")


@pytest.fixture(autouse=True)
def _nobody_logged_in(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))


def start(folder, run_id, kind="wandb_offline", **changes):
    settings = {"project": "revocab", "group": "sweep-of-tests", "name": f"job {run_id}", "tags": ["paper", "paper"]}
    settings |= {"config": {"vocab": {"lr_stage1": 2e-5}, "seed": 0}, "run_id": run_id, "folder": folder}
    return make_logger(kind, **settings | changes)


def inspect(folder, *options):
    """What wandb's own reader says of the one run of a folder."""
    (run,) = (folder / "wandb").glob("offline-run-*")
    command = [str(BIN / "wandb"), "leet", "inspect", *options, "--json", str(run)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def records(folder):
    """The records of a folder's one run, by their type."""
    found = {}
    for record in map(json.loads, inspect(folder).splitlines()):
        found.setdefault(record["type"], []).append(record[record["type"]])
    return found


# --- Weights & Biases ------------------------------------------------------------------------------------------------


@needs_command
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

    state = json.loads(inspect(tmp_path / "a", "--summary"))
    assert state["config"]["vocab"]["lr_stage1"] == 2e-5
    assert (state["exit_code"], state["tags"], state["name"]) == (0, ["paper"], "job aaaa1111")
    assert state["summary"]["bpb/bio.heldout/final"] == 0.8
    assert state["summary"]["checks/coverage"] is False
    assert state["summary"]["checks/spikes"] is True
    assert state["summary"]["stage1/loss"] == {"min": 2.0, "last": 2.0}
    found = records(tmp_path / "a")
    history = [row["item"] for row in found["history"]]
    steps = [(item.get("stage1/step"), item.get("stage2/step")) for item in history]
    assert steps == [(1, None), (2, None), (None, 1)]
    (run,) = found["run"]
    assert (run["run_group"], run["job_type"]) == ("sweep-of-tests", "train")

    found = records(tmp_path / "b")
    assert found["run"][0]["config"]["update"]["seed"] == 1
    assert found["exit"][0]["exit_code"] == 1
    assert len(found["history"]) == 1
    assert capfd.readouterr() == ("", "")


@needs_command
def test_a_failed_check_is_an_alert_and_stands_in_the_summary(tmp_path):
    logger = start(tmp_path / "a", "aaaa1111")
    log_summary(logger, SUMMARY)
    finish(logger)
    found = records(tmp_path / "a")
    assert [(alert["level"], alert["title"], alert["text"]) for alert in found["alert"]] == [
        ("WARN", "Check failed: coverage", "job aaaa1111: coverage is 0.9, limit 0.95."),
        (
            "WARN",
            "Check failed: loss, last / first",
            "job aaaa1111: loss, last / first is nothing that could be measured, limit 1.",
        ),
    ]
    summary = {key: value for update in found["summary"] for key, value in update["update"].items()}
    assert summary["checks_failed"] == 2
    assert summary["failed_checks"].startswith("coverage is 0.9, limit 0.95; loss")


def test_a_run_left_open_is_not_continued_by_the_next_job(tmp_path):
    start(tmp_path / "a", "aaaa3333")
    second = start(tmp_path / "b", "bbbb4444")
    assert second.run.id == "bbbb4444"
    finish(second, exit_code=0)


def test_online_without_a_key_is_one_line_at_once(tmp_path):
    began = time.monotonic()
    with pytest.raises(ConfigError, match="wandb login") as error:
        start(tmp_path, "x", kind="wandb")
    assert "wandb_offline" in str(error.value)
    assert "\n" not in str(error.value)
    assert time.monotonic() - began < 10


def test_a_run_that_was_killed_before_it_wrote_anything_is_known(tmp_path):
    finish(start(tmp_path / "a", "aaaa1111"))
    (whole,) = (tmp_path / "a" / "wandb").glob("offline-run-*/*.wandb")
    deadline = time.monotonic() + 5
    while count_records(whole) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)  # the file is flushed just after the end
    data = whole.read_bytes()
    cuts = {0: 0, 7: 0, 20: 0, 100: 1, len(data): 2}  # bytes left by a kill: whole records in them
    for length, expected in cuts.items():
        cut = tmp_path / "b" / "wandb" / f"offline-run-{length}" / "run.wandb"
        cut.parent.mkdir(parents=True)
        cut.write_bytes(data[:length])
        assert count_records(cut) == expected, length
    remove_unreadable_runs(tmp_path / "b")
    assert [run.name for run in (tmp_path / "b" / "wandb").iterdir()] == [f"offline-run-{len(data)}"]


def test_a_record_over_the_end_of_a_block_is_one_record(tmp_path):
    """Blocks are of 32 KiB: the first record fills the first one up to its last 3 bytes, the second needs two."""
    block = 32 * 1024
    first = block - 7 - 7 - 3
    chunks = [(first, 1), (block - 7, 2), (100, 4)]
    data = b":W&B\0\0\0"
    for length, kind in chunks:
        data += b"\0\0\0\0" + length.to_bytes(2, "little") + bytes([kind]) + b"x" * length
        data += b"\0" * 3 if kind == 1 else b""
    file = tmp_path / "run.wandb"
    file.write_bytes(data)
    assert count_records(file) == 2
    file.write_bytes(data[:-1])
    assert count_records(file) == 1


def test_the_upload_command_is_quoted_and_keeps_the_star(monkeypatch):
    assert upload_command(Path("multirun/lr=2e-5 & more"), sweep=True) == (
        "wandb sync --yes 'multirun/lr=2e-5 & more'/*/wandb"
    )
    monkeypatch.setenv("WANDB_ENTITY", "some-team")
    assert upload_command(Path("outputs/job"), sweep=False) == (
        'wandb sync --yes --entity "$WANDB_ENTITY" outputs/job/wandb'
    )


# --- Trackio ---------------------------------------------------------------------------------------------------------

TRACKIO_SCRIPT = """
import json, socket, sys
from pathlib import Path

def refuse(*arguments, **_):
    raise AssertionError(f"the network was asked for {arguments}")

socket.getaddrinfo = socket.socket.connect = refuse
from revocab.reporting import finish, log_summary, make_logger, track_sweep

def job(run_id, steps, exit_code):
    folder = Path(run_id)
    config = {"vocab": {"lr_stage1": 2e-5}, "paths": {"cache_dir": "here"}}
    run = make_logger("trackio", project="revocab", group="my.sweep", name=f"job {run_id}", tags=["paper"],
                      config=config, run_id=run_id, folder=folder)
    for step in steps:
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"stage": "stage1", "step": step, "loss": 1 / step}) + "\\n")
        run.log_metrics({"stage1/loss": 1 / step}, step=step)
    log_summary(run, json.loads(sys.argv[1]))
    finish(run, exit_code)

job("aaaa1111", [1, 2], 1)
job("aaaa1111", [3], 0)  # resumed
job("bbbb2222", [1], 1)
print(*track_sweep("trackio", project="revocab", group="my.sweep", folder=Path(), jobs=[]))
import trackio
runs = {run.id: run for run in trackio.Api().runs("my-sweep")}
read = lambda run: trackio.SQLiteStorage.get_logs("my-sweep", run.name, run_id=run.id)
print(json.dumps({id: {"name": run.name, "config": run.config, "alerts": run.alerts(), "logs": read(run)}
                  for id, run in runs.items()}))
"""


@needs_trackio
def test_trackio_has_a_run_per_job_and_asks_no_network(tmp_path):
    source = Path(__file__).parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source), "TRACKIO_DIR": str(tmp_path / "t"), "HF_TOKEN": "hf_secret"}
    environment |= {"TRACKIO_SPACE_ID": "somebody/space"}
    done = subprocess.run(
        [sys.executable, "-c", TRACKIO_SCRIPT, json.dumps(SUMMARY)],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    line, found = done.stdout.splitlines()
    assert line == "Dashboard: trackio show --project my-sweep"
    runs = json.loads(found)
    assert set(runs) == {"aaaa1111", "bbbb2222"}
    first = runs["aaaa1111"]
    assert first["name"] == "job aaaa1111"
    assert first["config"]["vocab"] == {"lr_stage1": 2e-5}
    assert first["config"]["tags"] == ["paper"]
    assert first["config"]["_Username"] is None
    assert "paths" not in first["config"]
    curve = [(row["step"], row["stage1/loss"]) for row in first["logs"] if "stage1/loss" in row]
    assert curve == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    (summary,) = [row for row in first["logs"] if "summary/checks_failed" in row]
    assert summary["summary/bpb/bio.heldout/final"] == 0.8
    assert sorted(alert["title"] for alert in first["alerts"]) == [
        "Check failed: coverage",
        "Check failed: loss, last / first",
    ]
    assert "Job failed" in [alert["title"] for alert in runs["bbbb2222"]["alerts"]]
    written = [path for path in (tmp_path / "t").rglob("*") if path.is_file()]
    assert written
    assert not any(b"hf_secret" in path.read_bytes() for path in written)


def test_a_missing_tracker_is_one_line(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "revocab.reporting.trackio_run", raising=False)
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(MissingDependencyError, match=r"logger=trackio .* pip install 'revocab\[tracking\]'"):
        start(tmp_path, "x", kind="trackio")


# --- none, and what all share ----------------------------------------------------------------------------------------


def test_none_makes_no_logger_and_needs_no_end(tmp_path):
    logger = start(tmp_path, "x", kind="none")
    assert logger is None
    log_summary(logger, SUMMARY)
    finish(logger, exit_code=1)
    assert track_sweep("none", project="revocab", group="g", folder=tmp_path, jobs=[]) == []
    assert list(tmp_path.iterdir()) == []


def test_unknown_kind_names_the_kinds(tmp_path):
    with pytest.raises(ConfigError, match="wandb_offline"):
        start(tmp_path, "x", kind="tensorboard")


def test_flatten_keeps_names_with_dots_and_leaves_lists_out():
    assert flatten(SUMMARY) == {
        "bpb/bio.heldout/source": 0.9,
        "bpb/bio.heldout/final": 0.8,
        "labels/preset": "paper",
        "stage1/steps": 3,
        "checks/coverage": False,
        "checks/loss, last over first": False,
        "checks/spikes": True,
    }


def test_what_no_two_jobs_share_is_not_compared():
    config = {"vocab": {"lr_stage1": 2e-5}, "seed": 0, "paths": {"output_dir": "x"}, "command": "python train.py"}
    assert comparable(config) == {"vocab": {"lr_stage1": 2e-5}, "seed": 0}
