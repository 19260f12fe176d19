"""Weights & Biases: one run per job, offline by default, never a prompt.

Every stage of training has its own step axis, so curves of stage 1 and stage 2 do not run into each other.
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

if TYPE_CHECKING:
    from pytorch_lightning.loggers import WandbLogger

    from revocab.reporting.wandb_logger import StageLogger

log = logging.getLogger(__name__)

KINDS = ("wandb_offline", "wandb", "none")
TAG_LENGTH, NAME_LENGTH = 64, 128  # more than the service takes
SECONDS_TO_CONNECT = 30  # the service's own 100 make a sweep without network look hung


def make_logger(
    kind: str,
    *,
    project: str,
    group: str,
    name: str,
    tags: Sequence[str],
    config: Mapping[str, Any],
    run_id: str,
    folder: Path,
    job_type: str = "train",
) -> WandbLogger | None:
    """Start the run of one job; the caller ends it by `finish`, whatever happens in between.

    Args:
        kind: wandb_offline writes under folder/wandb, wandb sends it too, none makes no logger.
        group: the sweep; its runs stand together.
        config: the resolved configuration, plain values.
        run_id: a job that goes on under the same id goes on in the same run.

    Raises:
        ConfigError: an unknown kind; `wandb` without a key to log in with, or without a network.
        MissingDependencyError: wandb is not installed.
    """
    if kind not in KINDS:
        raise ConfigError("logger.kind", kind, f"one of {', '.join(KINDS)}")
    if kind == "none":
        return None
    try:
        import wandb
    except ImportError as error:
        raise MissingDependencyError("wandb", f"logger={kind}", "pip install wandb") from error
    if kind == "wandb" and not _can_log_in():
        raise ConfigError("logger", kind, "wandb_offline where nobody is logged in", "Or log in first: wandb login")
    if wandb.run is not None:
        log.warning("The run %s was left open: it ends as failed, so that no two jobs share a run.", wandb.run.id)
        wandb.finish(exit_code=1)
    from revocab.reporting.wandb_logger import StageLogger

    Path(folder).mkdir(parents=True, exist_ok=True)
    logger = StageLogger(
        project=project,
        name=name[:NAME_LENGTH],
        save_dir=str(folder),
        id=run_id,
        # `mode` and not the logger's `offline`: that one sets an environment variable which outlives the job.
        mode="offline" if kind == "wandb_offline" else "online",
        resume="allow",
        group=group,
        job_type=job_type,
        tags=[tag[:TAG_LENGTH] for tag in dict.fromkeys(map(str, tags)) if tag],
        config=dict(config),
        settings=wandb.Settings(silent=True, console="off", save_code=False, init_timeout=SECONDS_TO_CONNECT),
    )
    return _open(logger, kind)


def _open(logger: StageLogger, kind: str) -> WandbLogger:
    """The logger with its run started; one line if the service does not answer."""
    import wandb

    try:
        logger.start()
    except wandb.Error as error:
        finish(logger, exit_code=1)
        hint = f"The service answered: {' '.join(str(error).split())[:200]}"
        raise ConfigError("logger", kind, "wandb_offline where the service cannot be reached", hint) from error
    return logger


def log_summary(logger: WandbLogger | None, summary: Mapping[str, Any]) -> None:
    """Write the numbers of summary.json into the run's summary, nesting as slashes: bpb/bio.heldout/final."""
    if logger is not None:
        logger.experiment.summary.update(flatten(summary))


def finish(logger: WandbLogger | None, exit_code: int = 0) -> None:
    """End the run of a job as finished (0) or failed; without it the next job would write into the same run."""
    if logger is None:
        return
    import wandb

    if wandb.run is not None:
        wandb.finish(exit_code=exit_code)


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by slashes; checks become one true or false each, other lists are left out.

    Names with dots stay whole. None is left out: the service would take it for a string.
    """
    flat: dict[str, Any] = {}
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{path}/")
        elif key == "checks" and isinstance(value, Sequence):
            flat |= {f"{path}/{check['name'].replace('/', 'over')}": bool(check["passed"]) for check in value}
        elif isinstance(value, str | int | float | bool):
            flat[path] = value
    return flat


def upload_command(sweep_folder: Path) -> str:
    """The command that sends all offline runs of a sweep to the service."""
    return f"wandb sync --yes {sweep_folder}/*/wandb/offline-run-*"


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
