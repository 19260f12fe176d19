"""A job's run in Weights & Biases, offline or online.

An offline run stays on disk as it was written: it holds no key, no entity, no user name and nothing of git. Who it
belongs to is decided by the login of whoever uploads it.
"""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from revocab.errors import ConfigError, MissingDependencyError
from revocab.reporting.tracker import STAGES, Tracker
from revocab.reporting.wandb_files import remove_runs, upload_command

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)

TAG_LENGTH, NAME_LENGTH = 64, 128  # more than the service takes
SECONDS_TO_CONNECT = 30  # the service's own 100 make a sweep without network look hung


class WandbTracker(Tracker):
    """One run; of a loss its summary keeps least and last."""

    def __init__(self, run: wandb.Run, name: str, *, history: Path | None = None, hint: str = "") -> None:
        super().__init__(name, history=history, hint=hint)
        self.run = run
        for stage in STAGES:
            run.define_metric(f"{stage}/step", hidden=True)
            run.define_metric(f"{stage}/loss", step_metric=f"{stage}/step", summary="min,last")
            run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    def _log(self, stage: str | None, step: int | None, metrics: Mapping[str, float]) -> None:
        axis = {} if stage is None or step is None else {f"{stage}/step": step}
        self.run.log({**metrics, **axis})

    def _log_summary(self, flat: Mapping[str, Any]) -> None:
        self.run.summary.update(dict(flat))

    def _alert(self, title: str, text: str) -> None:
        self.run.alert(title=title, text=text, level="WARN")

    def _finish(self, exit_code: int) -> None:
        self.run.finish(exit_code=exit_code)


def start_wandb(
    *,
    online: bool,
    project: str,
    group: str | None,
    name: str,
    tags: Sequence[str],
    config: Mapping[str, Any],
    run_id: str,
    folder: Path,
    note: str = "",
) -> WandbTracker:
    """Start the run of a job.

    Offline, it takes the place of a run that an earlier attempt of the job left here, and repeats what that one had
    logged: several pieces of one run would have to be uploaded in the right order, and a piece that a kill cut short
    keeps all others from being uploaded. Online, the service itself goes on with the run.

    Raises:
        ConfigError, MissingDependencyError: as `tracking.make_logger`.
    """
    if not online:
        remove_runs(folder, run_id)
    run = open_run(
        online=online,
        project=project,
        name=name[:NAME_LENGTH],
        id=run_id,
        folder=folder,
        group=group or "single",
        job_type="train",
        tags=[tag[:TAG_LENGTH] for tag in dict.fromkeys(map(str, tags)) if tag],
        config=dict(config),
        notes=note,
    )
    hint = "" if group else f"Run: {run.url}" if online else f"Upload this run: {upload_command(folder, sweep=False)}"
    return WandbTracker(run, name, history=None if online else folder / "metrics.jsonl", hint=hint)


def open_run(*, online: bool, folder: Path, machine_facts: bool = True, **facts: Any) -> wandb.Run:
    """`wandb.init`, quiet and without anything personal; one line if the service does not answer.

    Args:
        folder: gets a folder wandb/ with the run in it.
        machine_facts: use of processor, memory and GPU over time.
        facts: arguments of `wandb.init`.
    """
    try:
        import wandb
    except ImportError as error:
        raise MissingDependencyError("wandb", "logger=wandb_offline", "pip install wandb") from error
    if online:
        check_login()
    if wandb.run is not None:
        log.warning("The run %s was left open: it ends as failed, so that no two jobs share a run.", wandb.run.id)
        wandb.finish(exit_code=1)
    # Empty, so that what the environment says (WANDB_ENTITY and the like) is not written into an offline run.
    nobody: dict[str, Any] = {"email": "", "username": ""} | ({} if online else {"entity": ""})
    settings = wandb.Settings(
        **nobody,
        silent=True,
        console="off",
        save_code=False,
        disable_code=True,
        disable_git=True,  # a remote's address may hold a token, a diff may hold anything
        init_timeout=SECONDS_TO_CONNECT,
        x_disable_stats=not machine_facts,
        x_disable_machine_info=not machine_facts,
    )
    try:
        return wandb.init(
            mode="online" if online else "offline",
            resume="allow" if online else None,
            dir=str(Path(folder).absolute()),  # wandb's own process may have been started in another folder
            settings=settings,
            **facts,
        )
    except wandb.Error as error:
        if wandb.run is not None:
            wandb.finish(exit_code=1)
        hint = f"The service answered: {' '.join(str(error).split())[:200]}"
        raise ConfigError("logger", "wandb", "wandb_offline where the service cannot be reached", hint) from error


def check_login() -> None:
    """Refuse `wandb` where nobody is logged in; wandb itself would ask on a terminal.

    Raises:
        ConfigError: no key is at hand.
    """
    if not _can_log_in():
        raise ConfigError("logger", "wandb", "wandb_offline where nobody is logged in", "Or log in first: wandb login")


def _can_log_in() -> bool:
    """Whether a key is at hand, where wandb itself looks: environment, identity token, .netrc."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb

    host = urlsplit(os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url).hostname or ""
    places = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    return any(_has_entry(Path(place).expanduser(), host) for place in places if place)


def _has_entry(path: Path, host: str) -> bool:
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
