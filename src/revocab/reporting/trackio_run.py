"""A job's run in Trackio: a database on this machine, shown by `trackio show`; no account, no network.

The folder is Trackio's own: TRACKIO_DIR, else Hugging Face's cache.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from revocab.errors import MissingDependencyError
from revocab.reporting.tracker import Tracker

try:
    import trackio
except ImportError as error:
    raise MissingDependencyError("trackio", "logger=trackio", "pip install 'revocab[tracking]'") from error


# Of a summary, what jobs are compared by; the rest stands in the config, or differs in no job.
RESULTS = ("bpb", "perplexity", "bytes_per_token", "alignment", "terms", "stage1", "stage2", "qa", "checks_failed")


class LocalRun(trackio.Run):
    """A run that is written here whatever the environment says, and that asks no service who its user is."""

    def _get_username(self) -> None:
        return None


class TrackioTracker(Tracker):
    """One run. Trackio knows no summary: the scores are logged as the values of one last step."""

    def __init__(self, run: LocalRun, name: str, *, history: Path | None = None, hint: str = "") -> None:
        super().__init__(name, history=history, hint=hint)
        self.run = run
        self.last_step = 0

    def _log(self, stage: str | None, step: int | None, metrics: Mapping[str, float]) -> None:
        self.last_step = max(self.last_step, step or 0)
        self.run.log(dict(metrics), step=step)

    def _log_summary(self, flat: Mapping[str, Any]) -> None:
        results = {key: value for key, value in flat.items() if key.split("/")[0] in RESULTS}
        numbers = {f"summary/{key}": float(value) for key, value in results.items() if isinstance(value, int | float)}
        self.run.log(numbers, step=self.last_step)

    def _alert(self, title: str, text: str, level: trackio.AlertLevel = trackio.AlertLevel.WARN) -> None:
        with redirect_stdout(io.StringIO()):
            self.run.alert(title=title, text=text, level=level)

    def _finish(self, exit_code: int) -> None:
        if exit_code:
            self._alert("Job failed", self.name, trackio.AlertLevel.ERROR)
        with redirect_stdout(io.StringIO()):
            self.run.finish()


def start_trackio(
    *,
    project: str,
    group: str | None,
    name: str,
    tags: Sequence[str],
    config: Mapping[str, Any],
    run_id: str,
    folder: Path,
) -> TrackioTracker:
    """Start the run of a job. It takes the place of an earlier attempt's, and repeats what that one had logged.

    Args:
        project, group: a sweep is a project of its own, named after it; a job of its own stands in `project`.
        tags: Trackio has none; they stand in the config.
    """
    project = project_name(group or project)
    trackio.SQLiteStorage.init_db(project)
    trackio.SQLiteStorage.delete_run(project, name, run_id=run_id)
    run = LocalRun(
        url=None, project=project, client=None, name=name, run_id=run_id, config={**config, "tags": list(tags)}
    )
    hint = "" if group else f"Dashboard: {show_command(project)}"
    return TrackioTracker(run, name, history=folder / "metrics.jsonl", hint=hint)


def project_name(sweep: str) -> str:
    """Trackio drops other characters from a project's name, so that two sweeps could become one."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", sweep)


def show_command(sweep: str) -> str:
    """The command that opens the dashboard of a sweep."""
    return f"trackio show --project {project_name(sweep)}"
