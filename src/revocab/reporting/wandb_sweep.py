"""What a sweep adds to the runs of its jobs in Weights & Biases: a run with its tables, and a workspace."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revocab.errors import MissingDependencyError
from revocab.reporting.jobs import Job, one_line
from revocab.reporting.table import records
from revocab.reporting.wandb_files import remove_runs, remove_unreadable_runs, upload_command
from revocab.reporting.wandb_run import open_run

if TYPE_CHECKING:
    import wandb

TABLE, CHECKLIST = "comparison", "checklist"  # keys of the tables
FOLDER = "table"  # in the sweep's folder, beside those of the jobs, so that one pattern finds all runs
CHECK_COLUMNS = ("job", "check", "value", "limit", "passed")


def finish_sweep(*, online: bool, project: str, group: str, folder: Path, jobs: Sequence[Job]) -> list[str]:
    """Log the tables, make the workspace where one is online, and say what to open or to run next."""
    for job in jobs:
        if job.state == "interrupted":  # others end their run themselves; it is on disk a moment later
            remove_unreadable_runs(job.folder)
    try:
        entity = log_tables(online=online, project=project, group=group, folder=folder, jobs=jobs)
    except Exception as error:  # over the network anything can fail, and the table is in the sweep's folder
        return [f"The table is not in W&B ({type(error).__name__}): {one_line(error, 300)}"]
    if online:
        return [save_workspace(entity, project, group, jobs)]
    return [f"Upload all runs: {upload_command(folder, sweep=True)}"]


def log_tables(*, online: bool, project: str, group: str, folder: Path, jobs: Sequence[Job]) -> str:
    """Log the comparison table and all checklists as the run `<sweep> table`; returns the entity it belongs to.

    The run's id follows from the sweep's name: a sweep that is run again has its table replaced.
    """
    folder = folder / FOLDER
    run_id = hashlib.sha256(f"table of {group}".encode()).hexdigest()[:12]
    if not online:
        remove_runs(folder, run_id)
        shutil.rmtree(folder / "wandb" / "artifacts", ignore_errors=True)
    run = open_run(
        online=online,
        machine_facts=False,
        project=project,
        name=f"{group} table",
        id=run_id,
        folder=folder,
        group=group,
        job_type="table",
        tags=["table"],
    )
    exit_code = 1
    try:
        with staging_in(folder / "wandb"):
            run.log({TABLE: comparison_table(jobs), CHECKLIST: checklist_table(jobs)})
        run.summary.update({"jobs": len(jobs), "completed": sum(job.state == "completed" for job in jobs)})
        exit_code = 0
    finally:
        run.finish(exit_code=exit_code)
    return run.entity


@contextmanager
def staging_in(folder: Path) -> Generator[None]:
    """Tables wait for their upload in this folder, so that a sweep's folder is all that an upload needs."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]
        else:
            os.environ["WANDB_DATA_DIR"] = before


def comparison_table(jobs: Sequence[Job]) -> wandb.Table:
    """A row per job, columns as in table.csv; numbers are numbers."""
    import wandb

    rows = records(jobs, Job.setting)
    values = [_column([row[column] for row in rows]) for column in rows[0]]
    return wandb.Table(columns=[*rows[0]], data=[list(row) for row in zip(*values, strict=True)])


def checklist_table(jobs: Sequence[Job]) -> wandb.Table:
    """A row per job and check."""
    import wandb

    checks = [(job.name, check) for job in jobs for check in job.summary.get("checks", [])]
    data: list[Iterable[Any]] = [
        [name, check["name"], _float(check["value"]), _float(check["limit"]), bool(check["passed"])]
        for name, check in checks
    ]
    return wandb.Table(columns=list(CHECK_COLUMNS), data=data)


def _column(values: list[Any]) -> list[Any]:
    """A column of one type, which W&B asks for: numbers, truths, or text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool}:
        return values
    if kinds <= {int, float}:
        return [_float(value) for value in values]
    return [None if value is None else str(value) for value in values]


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def save_workspace(entity: str, project: str, group: str, jobs: Sequence[Job]) -> str:
    """Make or renew the sweep's workspace; returns the line to print, also where that failed."""
    try:
        from revocab.reporting.workspace import build, save

        return f"Workspace: {save(build(entity, project, group, jobs))}"
    except MissingDependencyError as error:
        return str(error)
    except Exception as error:  # an extra over the network: whatever ails it, the runs are there
        return f"No workspace was made ({type(error).__name__}: {one_line(error, 200)}); the runs are in W&B."
