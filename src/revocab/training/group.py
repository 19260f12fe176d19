"""A stage in several processes, one per device: the model goes there by a file, the result comes back by another."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pytorch_lightning.loggers import Logger
from torch.utils.serialization import config as serialization

from revocab.artifacts import StageRecord, memory_map
from revocab.runtime.files import disk_errors
from revocab.training.checkpoints import StageFolder
from revocab.training.processes import Send, run_group
from revocab.training.settings import Hardware

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODEL, OTHERS = "model.pt", "arguments.pkl"
Fit = Callable[..., object]


def train_in_group(
    fit: Fit,
    model: PreTrainedModel,
    arguments: dict[str, Any],
    hardware: Hardware,
    place: StageFolder,
    loggers: Sequence[Logger],
) -> tuple[PreTrainedModel, StageRecord]:
    """Run `fit(load, **arguments, hardware=..., place=..., loggers=...)` on every device; returns what it wrote.

    Args:
        fit: a function of a module. `load()` gives it a model of its own to train; what it leaves in `place` is read
            back into `model`.
        loggers: get here, in this process, what the first of the others logs.
    """

    def log(message: tuple[dict[str, float], int]) -> None:
        for logger in loggers:
            logger.log_metrics(message[0], step=message[1])

    torch.cuda.empty_cache()  # what this process has no use for meanwhile; nothing where there is no GPU
    with _folder_between(hardware.scratch) as folder:
        result = place if place.path else StageFolder(folder / "result", place.digest)
        result.open()
        with disk_errors(folder):
            # The checksum would take more than half of the time, for a file that lives as long as the stage. The config
            # modules of torch get their methods when they are read.
            with serialization.patch("save.compute_crc32", False):  # ty: ignore[missing-attribute]
                torch.save(model, folder / MODEL)
            with (folder / OTHERS).open("wb") as file:
                _Pickler(file).dump(arguments | {"hardware": hardware, "place": result})
        backend = "nccl" if hardware.accelerator == "gpu" else "gloo"
        run_group(_fit, (fit, folder), size=hardware.devices, backend=backend, receive=log)
        record = result.read_result(model)
    assert record is not None  # the first process wrote it, or run_group has raised
    return model.eval(), record


@contextmanager
def _folder_between(scratch: Path | None) -> Generator[Path]:
    """A folder that is gone afterwards; one that a killed process left is made anew."""
    folder = scratch / "handover" if scratch else Path(tempfile.mkdtemp(prefix="revocab-"))
    shutil.rmtree(folder, ignore_errors=True)
    with disk_errors(folder):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Pickler(pickle.Pickler):
    """Writes a memory map as the name of its file: a corpus may be larger than memory."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.memmap) and not isinstance(obj.base, np.ndarray):  # the whole file, not a part of it
            return memory_map, (Path(str(obj.filename)), obj.dtype)
        return NotImplemented


# --- in the new processes --------------------------------------------------------------------------------------------


class Forwarder:
    """Stands for the loggers of the process that started this one."""

    def __init__(self, send: Send) -> None:
        self.send = send

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.send((metrics, step))


def _fit(fit: Fit, folder: Path, send: Send) -> None:
    def load() -> PreTrainedModel:
        """Weights are mapped from the file: processes share them in main memory until they change them."""
        return torch.load(
            folder / MODEL, map_location="cpu", mmap=True, weights_only=False
        )  # our own file, just written

    with (folder / OTHERS).open("rb") as file:
        arguments = pickle.load(file)
    fit(load, **arguments, loggers=[Forwarder(send)])
