"""Sweeps whose jobs run in other processes: what a failing job, a killed one and a missing package do to the sweep."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import pytest

from revocab import cli, pipeline

ROOT = Path(__file__).parents[1]
SMALL = [  # two steps a stage, a few short documents
    "scale.step_factor=0.0008", "vocab.probe_steps=1", "vocab.max_seq_length=32", "vocab.gradient_accumulation=1",
    "evaluation.max_samples=3", "evaluation.max_characters=120", "corpus.byte_budget=400000",
    "corpus.heldout_fraction=0.1", "vocab.bf16=false", "logger=none",
]  # fmt: skip
TWO_RATES = "vocab.lr_stage1=2e-5,6.4e-4"
LAUNCHERS = {
    "joblib": ["launcher=joblib"],
    "slurm": ["launcher=slurm", "hydra.launcher.cluster=local", "hydra.launcher.parallel=2"],
    "ray": ["launcher=ray", "hydra.launcher.num_cpus=2"],
}


def needs(launcher):
    package = cli.LAUNCHER_PACKAGES[launcher]
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def train(tmp_path, monkeypatch, cache, capfd):
    """Run train.py in this process, in an empty folder; returns (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments, *SMALL, f"paths.cache_dir={cache}"])
        with pytest.raises(SystemExit) as ended:
            cli.run(pipeline.train)
        return ended.value.code, *capfd.readouterr()

    return run


def statuses(root):
    return {path.parent.name: read(path) for path in root.glob("multirun/*/*/status.json")}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def states(root):
    return sorted(status["state"] for status in statuses(root).values())


# --- without any engine: what all launchers share --------------------------------------------------------------------


@pytest.fixture
def engine(monkeypatch):
    """Take the place of joblib, so that no package is needed: give it `run(calls)`."""
    monkeypatch.setitem(cli.LAUNCHER_PACKAGES, "joblib", "json")

    def set_run(run):
        pool = SimpleNamespace(Parallel=lambda **_: lambda calls: run(list(calls)), delayed=lambda _: lambda call: call)
        monkeypatch.setitem(sys.modules, "joblib", pool)

    return set_run


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_missing_package_is_answered_by_one_line(train, monkeypatch, launcher):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, out, err = train("-m", f"launcher={launcher}", TWO_RATES)
    package = cli.LAUNCHER_PACKAGES[launcher]
    assert (code, out) == (1, "")
    assert err == (
        f"Error: launcher={launcher} needs the package {package}, which is not installed. "
        f"Install it: pip install {package}\n"
    )


def test_a_single_job_is_not_launched(train, engine):
    engine(lambda calls: pytest.fail("it was"))
    code, _, err = train("launcher=joblib")
    assert code == 1
    assert "Add -m" in err


def test_slurm_is_refused_where_there_is_none(train, monkeypatch, tmp_path):
    monkeypatch.setitem(cli.LAUNCHER_PACKAGES, "slurm", "json")
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = train("-m", "launcher=slurm", TWO_RATES)
    assert code == 1
    assert err.startswith("Error: hydra.launcher.cluster must be local")
    assert len(err.splitlines()) == 1


def test_equal_jobs_are_launched_once(train, engine, tmp_path):
    seen = []
    engine(lambda calls: [seen.append(call.run_id) or call() for call in calls])
    code, _, err = train("-m", "launcher=joblib", "vocab.lr_stage1=2e-5,0.00002")
    assert code == 0, err
    (status,) = statuses(tmp_path).values()
    assert seen == [status["run_id"]]


def test_jobs_whose_process_is_gone_are_in_the_table_and_the_same_command_runs_them(train, engine, tmp_path):
    def die_after_one(calls):
        calls[1]()
        raise BrokenProcessPool

    engine(die_after_one)
    code, out, err = train("-m", "launcher=joblib", TWO_RATES)
    assert code == 1
    assert states(tmp_path) == ["completed", "failed"]
    assert "interrupted" in out
    assert "was killed" in err
    engine(lambda calls: [call() for call in calls])
    code, out, err = train("-m", "launcher=joblib", TWO_RATES)
    assert code == 0, err
    assert states(tmp_path) == ["completed", "completed"]
    assert out.count("finished already") == 1


def test_the_launcher_is_no_part_of_a_sweeps_name():
    def name(*arguments):
        return cli.name_sweep(["-m", TWO_RATES, *arguments])[-1]

    assert name() == name("launcher=joblib", "hydra.launcher.n_jobs=4")
    assert name() != name("seed=1")


# --- with the engines ------------------------------------------------------------------------------------------------


SLOW = {
    "joblib": [pytest.mark.slow, pytest.mark.survival],
    "slurm": [pytest.mark.slow],
    "ray": [pytest.mark.slow],
}  # over 10 seconds


@pytest.mark.parametrize("launcher", [pytest.param(name, marks=[needs(name), *SLOW[name]]) for name in LAUNCHERS])
def test_a_failing_job_is_told_by_the_process_that_started_the_sweep(train, tmp_path, launcher):
    words = ["lora=r64", "vocab.lora_target_modules=[q_proj],[nowhere]"]
    code, out, err = train("-m", *LAUNCHERS[launcher], *words)
    assert code == 1
    assert states(tmp_path) == ["completed", "failed"]
    assert "failed: vocab.lora_target_modules must be" in err
    assert "1 of 2 jobs did not finish" in err
    assert "Traceback" not in err
    assert "Report:" in out
    pids = {status["pid"] for status in statuses(tmp_path).values()}
    assert os.getpid() not in pids
    commands = [path.read_text().partition("\ncommand:")[2] for path in tmp_path.glob("multirun/*/*/config.yaml")]
    assert all(command.startswith(" python train.py ") and "launcher" not in command for command in commands)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [pytest.param(name, marks=needs(name)) for name in LAUNCHERS])
def test_a_killed_job_leaves_the_finished_ones_and_the_same_command_ends_the_sweep(tmp_path, cache, launcher):
    longer = ["scale.step_factor=0.01", "trainer.checkpoint_every_steps=5"]
    rates = "vocab.lr_stage1=1e-4,2e-4,3e-4"
    words = ["-m", *LAUNCHERS[launcher], *SMALL, *longer, rates, f"paths.cache_dir={cache}"]
    command = [sys.executable, str(ROOT / "train.py"), *words]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    killed = kill_one(process, tmp_path)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert "of 3 jobs did not finish; the same command" in err
    after = statuses(tmp_path)
    assert len(after) == 3, "a job that never started stands in the table too"
    assert after[killed]["state"] == "failed"
    assert after[killed]["error"].startswith("interrupted: ")
    if launcher != "joblib":
        assert states(tmp_path) == ["completed"] * 2 + ["failed"]
    finished = {name: status for name, status in after.items() if status["state"] == "completed"}

    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert states(tmp_path) == ["completed"] * 3
    for name, status in finished.items():
        assert statuses(tmp_path)[name] == status, "it was run twice"
    (summary,) = tmp_path.glob(f"multirun/*/{killed}/summary.json")
    assert read(summary)["resumes"], "it began anew"


def kill_one(process, root):
    """kill -9 the process of the first job that is well under way; returns the name of its folder."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        for path in root.glob("multirun/*/*/metrics.jsonl"):
            status = read(path.parent / "status.json")
            if status["state"] == "running" and len(path.read_text().splitlines()) > 12:
                os.kill(status["pid"], signal.SIGKILL)
                return path.parent.name
        time.sleep(0.02)
    raise AssertionError("no job came so far")
