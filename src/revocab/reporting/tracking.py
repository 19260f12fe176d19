"""Where curves and scores go besides a job's own files: one run per job, one group per sweep, never a prompt.

Weights & Biases offline is the default: no account and no network; one command uploads a whole sweep later.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revocab.errors import ConfigError
from revocab.reporting.flat import comparable

if TYPE_CHECKING:
    from revocab.reporting.jobs import Job
    from revocab.reporting.tracker import Tracker

log = logging.getLogger(__name__)

KINDS = ("wandb_offline", "wandb", "trackio", "none")


def check_tracker(kind: str) -> None:
    """Refuse a tracker that no job could start: once, before the first job of a sweep.

    Raises:
        ConfigError: an unknown kind, or `wandb` where nobody is logged in.
        MissingDependencyError: the tracker's package is not installed.
    """
    if kind not in KINDS:
        raise ConfigError("logger.kind", kind, f"one of {', '.join(KINDS)}")
    if kind == "trackio":
        importlib.import_module("revocab.reporting.trackio_run")
    if kind == "wandb":
        from revocab.reporting.wandb_run import check_login

        check_login()


def make_logger(
    kind: str,
    *,
    project: str,
    group: str | None,
    name: str,
    tags: Sequence[str],
    config: Mapping[str, Any],
    run_id: str,
    folder: Path,
) -> Tracker | None:
    """Start the run of one job; the caller ends it by `finish`, whatever happens in between.

    Args:
        kind: wandb_offline writes under folder/wandb, wandb sends it too, trackio writes to its local database,
            none makes no logger.
        group: the sweep; its runs stand together. None: a job of its own.
        config: the resolved configuration, plain values; only what can be compared between jobs is sent.
        run_id: a job that goes on under the same id goes on in the same run.

    Raises:
        ConfigError: an unknown kind; `wandb` without a key to log in with, or without a network.
        MissingDependencyError: the tracker's package is not installed.
    """
    check_tracker(kind)
    if kind == "none":
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"project": project, "group": group, "name": name, "tags": tags, "run_id": run_id}
    facts |= {"config": comparable(config), "folder": Path(folder)}
    if kind == "trackio":
        from revocab.reporting.trackio_run import start_trackio

        return start_trackio(**facts)
    from revocab.reporting.wandb_run import start_wandb

    return start_wandb(online=kind == "wandb", note=str(config.get("command") or ""), **facts)


def log_summary(logger: Tracker | None, summary: Mapping[str, Any]) -> None:
    """Write summary.json into the run, nesting as slashes: bpb/heldout/final; alert on checks that failed."""
    if logger is not None:
        logger.log_summary(summary)


def finish(logger: Tracker | None, exit_code: int = 0) -> None:
    """End the run of a job as finished (0) or failed; without it the next job would write into the same run."""
    if logger is None:
        return
    logger.finish(exit_code)
    if logger.hint:
        log.info("%s", logger.hint)


def track_sweep(kind: str, *, project: str, group: str, folder: Path, jobs: Sequence[Job]) -> list[str]:
    """Log the table and the checklists of a sweep that has ended; for the process that started it, after all jobs.

    Nothing that goes wrong here fails the sweep: what could not be done is one of the lines.

    Returns:
        Lines that say where the runs are to be seen, or how to upload them.
    """
    if kind == "none":
        return []
    if kind == "trackio":
        from revocab.reporting.trackio_run import show_command

        return [f"Dashboard: {show_command(group)}"]
    from revocab.reporting.wandb_sweep import finish_sweep

    return finish_sweep(online=kind == "wandb", project=project, group=group, folder=Path(folder), jobs=jobs)
