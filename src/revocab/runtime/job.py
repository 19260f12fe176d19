"""A job's folder and its state, so that whoever reads it can tell an interrupted from a failed or finished job."""

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from revocab.runtime.files import disk_errors, write_json


@dataclass(frozen=True, kw_only=True)
class JobFolder:
    """Where a job leaves its files.

    `status.json` is {state, error, started, seconds, pid, host}; state is running, completed or failed. A job that
    says running though no such process lives was interrupted.
    """

    path: Path
    run_id: str
    started: float = field(default_factory=time.time)

    @property
    def completed(self) -> bool:
        """Whether the very same job (by run id) has finished here before."""
        status, summary = read_json(self.path / "status.json"), read_json(self.path / "summary.json")
        return bool(status and status.get("state") == "completed" and (summary or status).get("run_id") == self.run_id)

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
