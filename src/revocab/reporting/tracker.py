"""What every tracker of a job's run has in common: metrics per stage, a summary, alerts, an end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from revocab.reporting.flat import explain, failed_checks, flatten
from revocab.reporting.jobs import read_metrics

STAGES = ("probe", "stage1", "stage2")
NOT_LOGGED = ("stage", "step")  # of a line of metrics.jsonl: they are the axis


class Tracker(ABC):
    """The run of one job. Metrics are named `<stage>/<what>` and drawn over the steps of their own stage.

    Args:
        name: of the job; it tells whose alert one reads.
        history: metrics.jsonl, if an interrupted attempt may have left lines there that this run has to show too.
            They are logged before anything else, so that a resumed job is one whole curve without repeated steps.
        hint: what to do to see the run, told at the end of a job that belongs to no sweep.
    """

    def __init__(self, name: str, *, history: Path | None = None, hint: str = "") -> None:
        self.name, self.hint = name, hint
        self._history = history
        self._last: dict[str, int] = {}  # step of each stage that was logged last

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the values of one step; all of them belong to one stage.

        A step that was logged before is left out: a stage that is tried again goes on from its checkpoint.
        """
        stage = next((name.split("/")[0] for name in metrics if name.split("/")[0] in STAGES), None)
        self._catch_up(stage, step)
        self._log_once(stage, step, metrics)

    def _log_once(self, stage: str | None, step: int | None, metrics: Mapping[str, float]) -> None:
        if stage is not None and step is not None:
            if step <= self._last.get(stage, 0):
                return
            self._last[stage] = step
        self._log(stage, step, metrics)

    def log_summary(self, summary: Mapping[str, Any]) -> None:
        """Log summary.json, nesting as slashes, and raise an alert for each check that failed."""
        self._catch_up(None, None)
        failed = failed_checks(summary)
        flat = flatten(summary)
        if "checks" in summary:
            flat |= {"checks_failed": len(failed), "failed_checks": "; ".join(map(explain, failed)) or "none"}
        self._log_summary(flat)
        for check in failed:
            self._alert(f"Check failed: {check['name']}", f"{self.name}: {explain(check)}.")

    def finish(self, exit_code: int = 0) -> None:
        """End the run as finished (0) or failed."""
        self._catch_up(None, None)
        self._finish(exit_code)

    def _catch_up(self, stage: str | None, step: int | None) -> None:
        """Log what an interrupted attempt did before this stage and step."""
        if self._history is None:
            return
        path, self._history = self._history, None
        for line in read_metrics(path):
            if (line["stage"], line["step"]) == (stage, step):
                return  # training writes its file first: this line is the one to be logged now
            logged = {key: value for key, value in line.items() if key not in NOT_LOGGED}
            values = flatten(logged, f"{line['stage']}/")
            self._log_once(line["stage"], line["step"], values)

    @abstractmethod
    def _log(self, stage: str | None, step: int | None, metrics: Mapping[str, float]) -> None: ...

    @abstractmethod
    def _log_summary(self, flat: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def _alert(self, title: str, text: str) -> None: ...

    @abstractmethod
    def _finish(self, exit_code: int) -> None: ...
