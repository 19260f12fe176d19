"""A stage's folder: the checkpoint it can continue from while it runs, its result once it is done.

stage.json           digest of what decides the result; the steps that the stage was resumed from
last.ckpt            while it runs: what is trained, optimiser, schedule, data position, logged lines
previous.ckpt        the one before, in case that one is damaged
trained.safetensors  once it is done: the parameters that it changed, adapters merged
adapter/             once it is done, with LoRA: the adapters alone, in peft's form
record.json          the StageRecord; written last, so its presence says that the stage is done
"""

from __future__ import annotations

import json
import logging
import tempfile
import zipfile
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
HALF = ".last.ckpt.tmp"  # a checkpoint on its way
KEPT = ("last.ckpt", "previous.ckpt")


class StageFolder:
    """The files of one stage.

    Args:
        path: the folder; None keeps nothing.
        digest: of all that decides how the stage ends. Files of another digest are removed, with a warning.
    """

    def __init__(self, path: Path | None, digest: str) -> None:
        self.path, self.digest = path, digest

    def open(self) -> None:
        """Make the folder this stage's own; a damaged checkpoint is removed, with a warning."""
        if self.path is None:
            return
        for left in (self.path / HALF, *self.path.glob(f"{tempfile.gettempprefix()}*")):
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
        for name in ("record.json", "trained.safetensors", *KEPT):
            (path / name).unlink(missing_ok=True)
        write_json(path / "stage.json", {"digest": self.digest, "resumed_from": []})

    @property
    def checkpoint(self) -> Path | None:
        """What to continue from, if anything."""
        return next(iter(self._checkpoints()), None)

    @property
    def checkpoint_bytes(self) -> int:
        """What the checkpoints take on the disk now."""
        return sum(path.stat().st_size for path in self._checkpoints())

    def _checkpoints(self) -> list[Path]:
        """Those that are there, the latest first."""
        return [path for name in KEPT if self.path and (path := self.path / name).exists()]

    def take(self, written: Path) -> None:
        """Make a file that is complete the last checkpoint; a kill at any moment leaves at least one of both."""
        assert self.path is not None
        last, previous = (self.path / name for name in KEPT)
        if last.exists():
            last.replace(previous)
        written.replace(last)

    def note_resume(self, step: int) -> None:
        if self.path is not None:
            stored = _read(self.path / "stage.json")
            write_json(self.path / "stage.json", stored | {"resumed_from": [*stored["resumed_from"], step]})

    def read_result(self, model: PreTrainedModel) -> StageRecord | None:
        """Put the trained parameters into the model, if the stage is done; else None, and the model is untouched.

        A result that cannot be read is removed, with a warning.
        """
        if self.path is None or not (self.path / "record.json").exists():
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
        for name in KEPT:
            (self.path / name).unlink(missing_ok=True)


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
        with _temporary_files_in(path) if trainer.is_global_zero else nullcontext():
            trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            self.folder.take(temporary)
            self.most_bytes = max(self.most_bytes, self.folder.checkpoint_bytes)


class MappedCheckpoints(TorchCheckpointIO):
    """Reads a checkpoint through a memory map: processes side by side share one copy in main memory."""

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return torch.load(path, map_location="cpu", mmap=True, weights_only=weights_only)


def resumed_from(folder: Path) -> list[int]:
    """The optimiser steps that the stage in `folder` was continued from after it had been stopped, in order."""
    return list(_read(folder / "stage.json").get("resumed_from", []))


@contextmanager
def _temporary_files_in(folder: Path) -> Generator[None]:
    """Lightning writes a checkpoint to a temporary file first and moves it: on another disk that would be a copy, and
    its lack of space would be told of the wrong folder."""
    usual, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = usual
        for left in folder.glob(f"{tempfile.gettempprefix()}*"):  # the disk was full
            left.unlink()


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
