"""A job's folder and its state, so that whoever reads it can tell an interrupted from a failed or finished job."""

import json
import logging
import os
import socket
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from revocab.runtime.files import disk_errors, write_json

log = logging.getLogger(__name__)
LOCK = ".lock"
INTERRUPTED = "interrupted"  # what `error` begins with where the job did not fail but was stopped from outside


@dataclass(frozen=True, kw_only=True)
class JobFolder:
    """Where a job leaves its files.

    `status.json` is {state, error, started, seconds, pid, host}; state is running, completed or failed. A job that was
    stopped from outside is failed with an error that begins with `interrupted`; so is, for whoever reads it, one that
    says running though no such process lives.
    """

    path: Path
    run_id: str
    started: float = field(default_factory=time.time)

    @property
    def completed(self) -> bool:
        """Whether the very same job (by run id) has finished here before, and its summary can be read."""
        status, summary = read_json(self.path / "status.json"), read_json(self.path / "summary.json")
        return bool(status and status.get("state") == "completed" and summary and summary.get("run_id") == self.run_id)

    @contextmanager
    def lock(self) -> Generator[None]:
        """While the body runs, no other process writes this job: it waits here. A killed process holds no lock.

        Raises:
            ResourceError: the disk is full or the folder cannot be written.
        """
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                status = read_json(self.path / "status.json") or {}
                who = f"process {status.get('pid', '?')} on {status.get('host', '?')}"
                log.warning("%s: %s runs this job, waiting until it ends", self.path, who)
                lock.acquire()
        try:
            for left in (
                *self.path.glob(".*.tmp"),
                *self.path.glob("checkpoints/.*.tmp"),
            ):  # by a process that was killed while it wrote
                left.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def write_status(self, state: str, error: str | None = None) -> None:
        with disk_errors(self.path):
            write_json(
                self.path / "status.json",
                {
                    "state": state,
                    "error": error,
                    "run_id": self.run_id,
                    "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.started)),
                    "seconds": round(time.time() - self.started, 3),
                    "pid": os.getpid(),
                    "host": socket.gethostname(),
                },
            )


def read_json(path: Path) -> Mapping[str, Any] | None:
    """The file's content, or None where it is missing or half written by something else."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
