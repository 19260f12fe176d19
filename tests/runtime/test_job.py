"""A job's folder: who may write it, and when it counts as finished."""

import os
import signal
import subprocess
import sys
import time

import pytest

from revocab.runtime.files import write_json
from revocab.runtime.job import JobFolder

HOLDER = """
import sys, time
from pathlib import Path
from revocab.runtime.job import JobFolder

job = JobFolder(path=Path(sys.argv[1]), run_id="a")
with job.lock():
    job.write_status("running")
    Path(sys.argv[2]).touch()
    time.sleep(float(sys.argv[3]))
    job.write_status("completed")
"""


@pytest.fixture
def job(tmp_path):
    return JobFolder(path=tmp_path / "job", run_id="a")


@pytest.fixture
def hold(tmp_path, job):
    """Another process that holds the job's lock for some seconds."""

    def start(seconds):
        ready = tmp_path / "ready"
        process = subprocess.Popen([sys.executable, "-c", HOLDER, str(job.path), str(ready), str(seconds)])
        while not ready.exists():
            assert process.poll() is None
            time.sleep(0.01)
        return process

    return start


def test_a_job_that_another_process_runs_is_waited_for(job, hold, caplog):
    process = hold(0.5)
    with job.lock():
        assert process.wait() == 0, "it had ended by then"
        assert f"process {process.pid} on " in caplog.text
        assert "waiting" in caplog.text


def test_a_killed_process_holds_no_lock_and_its_half_files_go(job, hold, caplog):
    process = hold(60)
    (job.path / ".summary.json.1.tmp").write_text("{")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    start = time.monotonic()
    with job.lock():
        assert time.monotonic() - start < 1
        assert not list(job.path.glob(".*.tmp"))
    assert "waiting" not in caplog.text


def test_a_job_is_finished_if_it_says_so_and_its_summary_is_of_the_same_config(job):
    assert not job.completed
    job.path.mkdir()
    job.write_status("completed")
    assert not job.completed, "a summary that is gone must be made again"
    write_json(job.path / "summary.json", {"run_id": "a"})
    assert job.completed
    assert not JobFolder(path=job.path, run_id="b").completed
    (job.path / "summary.json").write_text('{"run_id": "a"')
    assert not job.completed
    write_json(job.path / "summary.json", {"run_id": "a"})
    job.write_status("running")
    assert not job.completed
