"""A finished stage as an artifact: jobs that need the very same one train it once.

What is shared is what the stage leaves in its folder, and its lines of metrics.jsonl: a job that takes it over has the
files, and reads them back, as if it had trained the stage itself and been started again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revocab.runtime.cache import Cache
from revocab.runtime.files import write_json, write_text
from revocab.training.checkpoints import RESULT, is_done, link
from revocab.training.metrics import StepLogger, drop_lines, logged_values

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
LINES = "metrics.jsonl"


def shared_stage(
    cache: Cache,
    inputs: Mapping[str, Any],
    *,
    stage: str,
    folder: Path,
    metrics_path: Path,
    train: Callable[[], PreTrainedModel],
    loggers: Sequence[StepLogger] = (),
) -> PreTrainedModel | None:
    """See to it that `folder` holds the finished stage; returns the model if it was trained now.

    Args:
        inputs: JSON values that decide how the stage ends.
        folder: the stage's own, in this job.
        metrics_path: the job's metrics.jsonl; gets the lines of a stage that was taken over.
        train: trains the stage and leaves its result in `folder`; called where no job has done so before.
        loggers: get the steps of a stage that was taken over.
    """
    trained: PreTrainedModel | None = None

    def build(entry: Path) -> dict[str, Any]:
        nonlocal trained
        trained = train()
        for name in RESULT:
            link(folder / name, entry / name)
        lines = [line for line in metrics_path.read_text(encoding="utf-8").splitlines() if _is_of(line, stage)]
        write_text(entry / LINES, "".join(f"{line}\n" for line in lines))
        return {"lines": len(lines)}

    entry = cache.get(stage, inputs, build, quiet=True)
    if trained is None and not is_done(folder):
        log.info("%s: taken over from a job that has trained the same", stage)
        _take_over(entry, stage, folder, metrics_path, loggers)
    return trained


def _take_over(entry: Path, stage: str, folder: Path, metrics_path: Path, loggers: Sequence[StepLogger]) -> None:
    """The file that says that the stage is done comes last, so that a kill on the way leads here again."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.ckpt"):  # of this job's own attempt, which was stopped
        left.unlink()
    lines = (entry / LINES).read_text(encoding="utf-8")
    drop_lines(metrics_path, stage, after=0)
    before = metrics_path.read_text(encoding="utf-8") if metrics_path.exists() else ""
    write_text(metrics_path, before + lines)
    for line in map(json.loads, lines.splitlines()):
        for logger in loggers:
            logger.log_metrics(logged_values(line), step=line["step"])
    digest = json.loads((entry / RESULT[0]).read_text(encoding="utf-8"))["digest"]
    write_json(folder / RESULT[0], {"digest": digest, "resumed_from": []})
    for name in RESULT[1:]:
        link(entry / name, folder / name)


def _is_of(line: str, stage: str) -> bool:
    return json.loads(line).get("stage") == stage
