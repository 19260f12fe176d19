"""A stage's folder: the checkpoint it can continue from while it runs, its result once it is done.

stage.json           digest of what decides the result; the steps that the stage was resumed from
last.ckpt            while it runs: what is trained, optimiser, schedule, data position, logged lines
previous.ckpt        the one before, in case that one is damaged; then previous-2.ckpt and so on, as many as are kept
best.ckpt            the one with the lowest smoothed training loss, a second name of one of them while it is there;
                     it stays when the stage is done if that ended clearly worse
trained.safetensors  once it is done: the parameters that it changed, adapters merged
adapter/             once it is done, with LoRA: the adapters alone, in peft's form
record.json          the StageRecord; written last, so its presence says that the stage is done
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import pickle
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from revocab.artifacts import StageRecord
from revocab.errors import ResourceError
from revocab.runtime.files import atomic_path, write_json
from revocab.training.metrics import StageMetrics

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
RESULT = ("stage.json", "trained.safetensors", "record.json")  # of a finished stage, the last written last
HALF = ".last.ckpt.tmp"  # a checkpoint on its way
BEST = "best.ckpt"
SMOOTHED = 10  # logged losses whose mean says how good a checkpoint is
CLEARLY_WORSE = 1.05  # the loss at the end, as a multiple of the best one; means of ten small batches differ by 3 %


class StageFolder:
    """The files of one stage.

    Args:
        path: the folder; None keeps nothing.
        digest: of all that decides how the stage ends. Files of another digest are removed, with a warning.
        keep_last: checkpoints to keep, the latest ones.
        keep_best: whether to keep the best one too.
    """

    def __init__(self, path: Path | None, digest: str, *, keep_last: int = 2, keep_best: bool = False) -> None:
        self.path, self.digest, self.keep_best = path, digest, keep_best
        self.names = [*("last.ckpt", "previous.ckpt"), *(f"previous-{n}.ckpt" for n in range(2, keep_last))][:keep_last]

    def open(self) -> None:
        """Make the folder this stage's own; a damaged checkpoint is removed, with a warning."""
        if self.path is None:
            return
        for left in self.path.glob(".*.tmp"):
            left.unlink(missing_ok=True)  # of a process that was killed while it wrote
        stored = _read(self.path / "stage.json")
        if stored.get("digest") == self.digest:
            self._drop_damaged()
            return
        if not stored and (self.path / "stage.json").exists():
            log.warning("%s is damaged: the stage begins anew.", self.path / "stage.json")
        elif stored:
            log.warning("%s holds a stage with other settings or another start: it begins anew.", self.path)
        self._begin_anew(self.path)

    def _drop_damaged(self) -> None:
        while (checkpoint := self.checkpoint) and not _is_whole(checkpoint):
            checkpoint.unlink()
            instead = f"goes on from {self.checkpoint.name}" if self.checkpoint else "begins anew"
            log.warning("The checkpoint %s is damaged: the stage %s.", checkpoint, instead)

    def _begin_anew(self, path: Path) -> None:
        for name in ("record.json", "trained.safetensors"):
            (path / name).unlink(missing_ok=True)
        self._remove_checkpoints(path)
        write_json(path / "stage.json", {"digest": self.digest, "resumed_from": []})

    @property
    def checkpoint(self) -> Path | None:
        """What to continue from, if anything."""
        return next(iter(self._checkpoints()), None)

    @property
    def checkpoint_bytes(self) -> int:
        """What the checkpoints take on the disk now; the best one only where it is not also one of the last."""
        files = [path.stat() for path in (*self._checkpoints(), *self._best())]
        return sum({facts.st_ino: facts.st_size for facts in files}.values())

    def _checkpoints(self) -> list[Path]:
        """Those that a stage can continue from, the latest first."""
        return [path for name in self.names if self.path and (path := self.path / name).exists()]

    def _best(self) -> list[Path]:
        return [path] if self.path and (path := self.path / BEST).exists() else []

    def take(self, written: Path, loss: float | None = None) -> None:
        """Make a file that is complete the last checkpoint; a kill at any moment leaves at least one of all.

        Args:
            loss: smoothed; the file is the best checkpoint too, if it is the lowest so far.
        """
        assert self.path is not None
        if self.keep_best and loss is not None and loss < self.best_loss:
            link(written, self.path / BEST)
        for name, earlier in reversed(list(itertools.pairwise(self.names))):
            if (self.path / name).exists():
                (self.path / name).replace(self.path / earlier)
        written.replace(self.path / self.names[0])

    @property
    def best_loss(self) -> float:
        """Of the best checkpoint, out of the lines that it holds; infinite without one that can be read."""
        for path in self._best():
            try:
                lines = torch.load(path, mmap=True, weights_only=True)["callbacks"][StageMetrics.__name__]["lines"]
            except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError):
                log.warning("The checkpoint %s is damaged and left out.", path)
                continue
            return smoothed_loss(lines)
        return math.inf

    def _remove_checkpoints(self, path: Path) -> None:
        for left in path.glob("*.ckpt"):  # also those of a run that kept more of them
            left.unlink(missing_ok=True)

    def note_resume(self, step: int) -> None:
        if self.path is not None:
            stored = _read(self.path / "stage.json")
            write_json(self.path / "stage.json", stored | {"resumed_from": [*stored["resumed_from"], step]})

    def read_result(self, model: PreTrainedModel) -> StageRecord | None:
        """Put the trained parameters into the model, if the stage is done; else None, and the model is untouched.

        A result that cannot be read is removed, with a warning.
        """
        if self.path is None or not is_done(self.path):
            return None
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            record = StageRecord(**_read(self.path / "record.json"))
            tensors = load_file(self.path / "trained.safetensors")
        except (SafetensorError, FileNotFoundError, TypeError):  # TypeError: fields of the record are missing
            log.warning("The result of the stage in %s is damaged: the stage begins anew.", self.path)
            self._begin_anew(self.path)
            return None
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in tensors.items():
                parameters[name].copy_(value)
        return record

    def write_result(self, model: PreTrainedModel, changed: tuple[str, ...], record: StageRecord) -> None:
        """Keep what the stage changed and what it did; the checkpoint is no longer needed."""
        if self.path is None:
            return
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        parameters = dict(model.named_parameters())
        tensors = {name: parameters[name].detach().cpu().contiguous() for name in changed}
        try:
            with atomic_path(self.path / "trained.safetensors") as temporary:
                save_file(tensors, temporary)
        except SafetensorError as error:
            raise ResourceError(f"Cannot write the trained parameters to {self.path}: {error}. Free space.") from error
        write_json(self.path / "record.json", record.as_dict())
        for left in self.path.glob("*.ckpt"):
            if left.name != BEST:
                left.unlink()

    def judge_best(self, loss: float) -> None:
        """Remove the best checkpoint, unless the stage ended clearly worse: then say so.

        Args:
            loss: smoothed, at the end of the stage.
        """
        for path in self._best():
            best = self.best_loss
            if loss <= CLEARLY_WORSE * best or math.isinf(best):
                path.unlink()
            else:
                log.warning("The stage ended at a loss of %.4f, above the %.4f of %s, which is kept.", loss, best, path)


class Checkpointing(pl.Callback):
    """Writes a checkpoint every so many optimiser steps, and notes when a stage continues from it."""

    def __init__(self, folder: StageFolder, metrics: StageMetrics, *, every: int, steps: int) -> None:
        self.folder, self.metrics, self.every, self.steps = folder, metrics, every, steps
        self._saved = 0
        self.most_bytes = 0  # that checkpoints took on the disk, without one that is being written

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved, self.most_bytes = trainer.global_step, self.folder.checkpoint_bytes
        if self._saved and trainer.is_global_zero:
            self.folder.note_resume(self._saved)
            log.info("%s continues from step %d.", self.metrics.settings.name, self._saved)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step  # moves with the last micro-batch of a step
        path = self.folder.path
        if path is None or not self.every or step == self._saved or step % self.every or step == self.steps:
            return
        self._saved = step
        self.metrics.flush(trainer)  # a loss that is not finite stops here: no broken state is kept
        temporary = path / HALF
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            self.folder.take(temporary, smoothed_loss(self.metrics.lines))
            self.most_bytes = max(self.most_bytes, self.folder.checkpoint_bytes)


class CheckpointFiles(TorchCheckpointIO):
    """Writes a checkpoint straight to its file, and reads one through a memory map.

    Lightning would write it to memory, then to a temporary file elsewhere, and move that. Processes side by side share
    one copy of what is read in main memory.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Raises what the disk says, an OSError, and then leaves no file."""
        try:
            with Path(path).open("wb") as file:
                _save(checkpoint, file)
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return torch.load(path, map_location="cpu", mmap=True, weights_only=weights_only)


def _save(checkpoint: dict[str, Any], file: BinaryIO) -> None:
    """As torch.save, which closes its archive also where the file has just raised something, a lack of space or Ctrl-C,
    and then raises a RuntimeError about the archive."""
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:
        raise (error.__context__ or error) from None


def smoothed_loss(lines: Sequence[Mapping[str, Any]]) -> float:
    """Mean of the last logged losses that were finite; infinite without one."""
    losses = [line["loss"] for line in lines if line["loss"] is not None][-SMOOTHED:]
    return sum(losses) / len(losses) if losses else math.inf


def link(file: Path, name: Path) -> None:
    """Give a file a second name, replacing what had it; a copy where the disk knows no second names."""
    with atomic_path(name) as temporary:
        try:
            os.link(file, temporary)
        except OSError:
            shutil.copyfile(file, temporary)


def resumed_from(folder: Path) -> list[int]:
    """The optimiser steps that the stage in `folder` was continued from after it had been stopped, in order."""
    return list(_read(folder / "stage.json").get("resumed_from", []))


def is_done(folder: Path) -> bool:
    """Whether the stage in `folder` has its result."""
    return (folder / RESULT[-1]).exists()


def _is_whole(checkpoint: Path) -> bool:
    """Whether every byte of the checkpoint, which is a zip file, has the check sum that was written with it."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError, NotImplementedError):  # cut short, or a damaged header
        return False


def _read(path: Path) -> dict[str, Any]:
    """The file's content; nothing where it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
