"""What a stage did, step by step: `metrics.jsonl`, the loggers, the progress bar, and the record of the whole."""

from __future__ import annotations

import json
import logging
import math
import resource
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
import torch

from revocab.artifacts import StageRecord
from revocab.errors import TrainingError
from revocab.runtime import progress
from revocab.runtime.files import write_text
from revocab.runtime.spikes import spikes
from revocab.training.module import StageModule
from revocab.training.settings import StageSettings
from revocab.training.waiting import DataClock

log = logging.getLogger(__name__)
LAG = {"cuda": 1}  # steps by which reading values follows the device: it then has the next step to work at meanwhile
ON_THE_WAY = ("step", "bytes", "seconds", "bpb")  # of a line that held-out scores stand on
MOST_SKIPPED = 10  # steps in a row: what is skipped that often does not come back


class StepLogger(Protocol):
    """What a logger is asked for: one of Lightning's, or what forwards to one."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class FinishedStep:
    """What a step came to, maybe still on its way from the device."""

    step: int
    values: torch.Tensor  # loss and gradient norm, in main memory
    arrived: torch.cuda.Event | None  # None: they are there
    learning_rate: float
    seconds: float  # of training when the device had been given all of the step

    @property
    def is_under_way(self) -> bool:
        return self.arrived is not None and not self.arrived.query()

    def read(self) -> tuple[float, float]:
        """Wait for the values, if need be, but for nothing that the device was given later."""
        if self.arrived is not None:
            self.arrived.synchronize()
        loss, norm = self.values.tolist()
        return loss, norm


class StageMetrics(pl.Callback):
    """Collects loss, gradient norm and learning rate of every step; writes them at the logged ones.

    Logged are the first, the last, every `log_every`-th step and those that something was added to. No step waits for
    its values: those of a GPU are read when it has been given the next step, so the line of a step is written one step
    later. The logged lines are part of the checkpoint: a resumed stage has its whole history.

    Args:
        path: metrics.jsonl; lines of steps behind the checkpoint that a stage resumes from are dropped. None: no file.
        loggers: get the same values under keys such as `stage1/loss`.
    """

    def __init__(self, settings: StageSettings, *, path: Path | None, loggers: Sequence[StepLogger] = ()) -> None:
        self.settings, self.path, self.loggers = settings, path, loggers
        self.lines: list[dict[str, Any]] = []
        self._seconds_before, self._peak_before, self._started = 0.0, 0, 0.0
        self._on_cuda = False
        self.data_clock = DataClock()
        self.skipped, self._skipped_in_a_row = 0, 0  # steps that were left out, for they were not finite
        self._losses: list[torch.Tensor] = []  # of the micro-batches of the running step
        self._pending: list[FinishedStep] = []
        self._read_at = 0.0  # seconds of training when the device was seen to be done with the last step that was read
        self._lag = 0
        self._added: dict[int, Mapping[str, Any]] = {}  # by step: what its line holds besides

    def state_dict(self) -> dict[str, Any]:
        return {
            "lines": self.lines,
            "seconds": self.seconds,
            "data_seconds": self.data_clock.seconds,
            "peak": self.peak_memory_bytes,
            "skipped": [self.skipped, self._skipped_in_a_row],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.lines, self._seconds_before = list(state_dict["lines"]), state_dict["seconds"]
        self._peak_before, self.data_clock.seconds = state_dict["peak"], state_dict["data_seconds"]
        self.skipped, self._skipped_in_a_row = state_dict["skipped"]

    @property
    def seconds(self) -> float:
        """Of training alone, without set-up, over all parts of a stage that was resumed."""
        return self._seconds_before + (time.perf_counter() - self._started if self._started else 0.0)

    @contextmanager
    def paused(self) -> Generator[None]:
        """What the body does is not training: its time does not count, what the device still had to do before does."""
        if self._on_cuda:
            torch.cuda.synchronize()
        self._seconds_before, self._started = self.seconds, 0.0
        try:
            yield
        finally:
            self._started = time.perf_counter()

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Put more on the line of a step that has not been logged yet; mappings of numbers may be among the values."""
        self._added[step] = values

    @property
    def peak_memory_bytes(self) -> int:
        """Of the accelerator's tensors since the stage began; without one, of the process since it began."""
        if self._on_cuda:
            now = torch.cuda.max_memory_allocated()
        else:
            now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return max(now, self._peak_before)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before kernels are put in: what a CUDA graph uses is taken while it is recorded."""
        self._on_cuda = trainer.strategy.root_device.type == "cuda"
        if self._on_cuda:
            torch.cuda.reset_peak_memory_stats()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        settings, done = self.settings, trainer.global_step
        if self.path and trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            drop_lines(self.path, settings.name, after=done)
        self._bar = progress.bar(settings.name, total=settings.steps, unit="step")
        self._bar.disable |= not trainer.is_global_zero
        self._bar.update(done)
        self._lag = LAG.get(trainer.strategy.root_device.type, 0)
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, StageModule)
        assert pl_module.micro_batch_loss is not None
        self._losses.append(pl_module.micro_batch_loss)
        if len(self._losses) < trainer.accumulate_grad_batches:
            return
        assert pl_module.gradient_norm is not None
        values = torch.stack([torch.stack(self._losses).mean(), pl_module.gradient_norm.detach().to(self._losses[0])])
        self._losses = []
        self._pending.append(self._finished(values, trainer, pl_module.learning_rate))
        self._bar.update(1)
        if self._is_logged(trainer.global_step - self._lag):
            self.flush(trainer, but_last=self._lag)

    def _finished(self, values: torch.Tensor, trainer: pl.Trainer, learning_rate: float) -> FinishedStep:
        """Send loss and norm on their way to main memory, the mean of all processes."""
        if trainer.world_size > 1:
            values = trainer.strategy.reduce(values, reduce_op="mean")
        arrived = None
        if values.is_cuda:
            values = torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        return FinishedStep(
            step=trainer.global_step,
            values=values,
            arrived=arrived,
            learning_rate=learning_rate,
            seconds=self.seconds,
        )

    def flush(self, trainer: pl.Trainer, *, but_last: int = 0) -> None:
        """Read what is pending, check it, and write the logged steps.

        Args:
            but_last: steps that stay pending.

        Raises:
            TrainingError: a loss or gradient norm that is not finite; where such steps are skipped, too many in a row.
        """
        ready = self._pending[: len(self._pending) - but_last]
        self._pending = self._pending[len(ready) :]
        for finished in ready:
            waits = finished.is_under_way
            loss, norm = finished.read()
            self._read_at = self.seconds if waits else max(finished.seconds, self._read_at)
            finite = math.isfinite(loss) and math.isfinite(norm)
            self._skipped_in_a_row = 0 if finite else self._skipped_in_a_row + 1
            if not finite:
                self._stop_or_skip(finished.step, loss, norm, finished.learning_rate)
            if self._is_logged(finished.step) or not finite:
                self._write(self._line(finished, loss, norm), trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.flush(trainer)
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def record(self, trainable_parameters: int, checkpoint_bytes: int) -> StageRecord:
        """The stage in the terms of summary.json, from the logged steps."""
        settings, lines = self.settings, self.lines
        losses = [line["loss"] for line in lines if line["loss"] is not None]
        norms = [line["grad_norm"] for line in lines if line["grad_norm"] is not None]
        if self.skipped == settings.steps:
            raise TrainingError(
                f"{settings.name}: all of its {settings.steps} steps were skipped, nothing was trained."
            )
        last = losses[-math.ceil(len(losses) / 10) :]
        tokens = lines[-1]["tokens"]
        return StageRecord(
            kind=settings.kind,
            steps=settings.steps,
            tokens=tokens,
            seconds=self._seconds_before,
            tokens_per_second=tokens / self._seconds_before,
            peak_memory_bytes=self._peak_before,
            trainable_parameters=trainable_parameters,
            loss_first=losses[0],
            loss_last=sum(last) / len(last),
            loss_max=max(losses),
            grad_norm_max=max(norms),
            spikes=len(spikes([line["loss"] for line in lines])),
            skipped_steps=self.skipped,
            checkpoint_bytes=checkpoint_bytes,
            data_share=self.data_clock.seconds / self._seconds_before,
            on_the_way=[{key: line[key] for key in ON_THE_WAY} for line in lines if "bpb" in line],
        )

    def _stop(self) -> None:
        """Keep time and memory as they are now, and close the bar."""
        self._seconds_before, self._peak_before, self._started = self.seconds, self.peak_memory_bytes, 0.0
        if hasattr(self, "_bar"):
            self._bar.close()

    def _is_logged(self, step: int) -> bool:
        return step in (1, self.settings.steps) or step % self.settings.log_every == 0 or step in self._added

    def _line(self, finished: FinishedStep, loss: float, norm: float) -> dict[str, Any]:
        settings = self.settings
        tokens = finished.step * settings.sequences_per_step * settings.max_seq_length
        skipped = {} if math.isfinite(loss) and math.isfinite(norm) else {"skipped": True}
        return {
            "stage": settings.name,
            "step": finished.step,
            "loss": loss if math.isfinite(loss) else None,
            "lr": finished.learning_rate,
            "grad_norm": norm if math.isfinite(norm) else None,
            "tokens": tokens,
            "seconds": round(self._read_at, 3),
            **skipped,
            **self._added.pop(finished.step, {}),
        }

    def _write(self, line: dict[str, Any], trainer: pl.Trainer) -> None:
        self.lines.append(line)
        if not trainer.is_global_zero:
            return
        if self.path:
            with self.path.open("a", encoding="utf-8") as file:  # closed at once: flushed to the system
                file.write(json.dumps(line) + "\n")
        for logger in self.loggers:
            logger.log_metrics(logged_values(line), step=line["step"])
        loss = "skipped" if line["loss"] is None else f"{line['loss']:.3f}"
        self._bar.set_postfix(loss=loss, refresh=False)

    def _stop_or_skip(self, step: int, loss: float, norm: float, rate: float) -> None:
        """Count a step that was left out, or raise."""
        settings = self.settings
        what = f"loss became {loss}" if not math.isfinite(loss) else f"norm of the gradients became {norm}"
        if settings.skip_nonfinite and self._skipped_in_a_row <= MOST_SKIPPED:
            self.skipped += 1
            log.warning("%s: the %s in step %d, which is skipped.", settings.name, what, step)
            return
        if settings.skip_nonfinite:
            what += f" (as in the {MOST_SKIPPED} steps before, which were skipped)"
        raise TrainingError(
            f"{settings.name}: the {what} in step {step} of {settings.steps}, at learning rate {rate:.3g}. "
            f"Lower {settings.key('lr')} (now {settings.learning_rate:g}) or vocab.gradient_clip "
            f"(now {settings.gradient_clip:g})" + (", or try precision=fp32." if settings.bf16 else ".")
        )


def numbers_of(values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The numbers among the values and in mappings among them, keys joined by slashes."""
    found: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= numbers_of(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{key}"] = value
    return found


def logged_values(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl, as loggers get them."""
    return numbers_of({key: value for key, value in line.items() if key not in ("stage", "step")}, f"{line['stage']}/")


def drop_lines(path: Path, stage: str, *, after: int) -> None:
    """Remove the lines of a stage's steps beyond `after`, and a line that a kill cut short."""
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8")
    kept = [line for line in text.splitlines() if _is_kept(line, stage, after)]
    new = "".join(line + "\n" for line in kept)
    if new != text:
        write_text(path, new)


def _is_kept(line: str, stage: str, after: int) -> bool:
    try:
        values = json.loads(line)
    except json.JSONDecodeError:
        return False
    return values.get("stage") != stage or values["step"] <= after
