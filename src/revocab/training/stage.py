"""One stage of training, from a model to a model."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.profilers import Profiler
from pytorch_lightning.strategies import DDPStrategy, Strategy

from revocab.artifacts import StageRecord, TokenizedCorpus
from revocab.errors import ConfigError, ModelError, TrainingError
from revocab.runtime.files import disk_errors
from revocab.training.checkpoints import CheckpointFiles, Checkpointing, StageFolder, smoothed_loss
from revocab.training.data import StageData
from revocab.training.group import train_in_group
from revocab.training.heldout import HeldOut, HeldOutScores
from revocab.training.kernels import Kernels
from revocab.training.metrics import StageMetrics, StepLogger
from revocab.training.module import StageModule
from revocab.training.optimisation import optimiser_factory
from revocab.training.precision import computing_in
from revocab.training.quiet import quiet_lightning
from revocab.training.settings import Hardware, StageSettings
from revocab.training.sharding import ShardedStrategy
from revocab.training.trainables import Prepared, lora_targets, prepare, table_rows, training_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAMPLES_PER_TENSOR = 64


def train_stage(
    model: PreTrainedModel,
    tokens: TokenizedCorpus,
    settings: StageSettings,
    hardware: Hardware,
    *,
    folder: Path | None,
    metrics_path: Path | None,
    loggers: Sequence[Logger] = (),
    heldout: HeldOut | None = None,
) -> tuple[PreTrainedModel, StageRecord]:
    """Train `model` in place and give it back as a plain transformers model, on the CPU, in evaluation mode.

    Args:
        tokens: the corpus in the model's vocabulary; its `vocabulary_size` says how many logits are tokens.
        folder: where checkpoints and the result go. A stage that was stopped continues from there exactly, one that
            was done is read back without training. None: nothing is kept.
        metrics_path: metrics.jsonl, appended to. None: no file.
        loggers: Lightning loggers that get the logged steps too.
        heldout: what is scored on the way; it has no influence on the result.

    Raises:
        ConfigError, DataError, ModelError: settings, corpus and model that do not fit together, before training.
        TrainingError: a loss or gradient norm that is not finite.
        ResourceError: the disk is full, or the folder cannot be written.
    """
    hardware.check(settings)
    check_stage(model, tokens, settings)
    data = StageData(tokens, settings, num_workers=hardware.num_workers)
    digest = _digest(model, tokens, settings)
    place = StageFolder(folder, digest, keep_last=settings.keep_last, keep_best=settings.keep_best)
    place.open()
    if (done := place.read_result(model)) is not None:
        return model.eval(), done
    arguments = {"data": data, "metrics_path": metrics_path, "heldout": heldout}
    if hardware.devices > 1:
        return train_in_group(fit, model, arguments, hardware, place, loggers)
    return fit(lambda: model, **arguments, hardware=hardware, place=place, loggers=loggers)


def check_stage(model: PreTrainedModel, tokens: TokenizedCorpus, settings: StageSettings) -> None:
    """Whether the stage could be trained, in milliseconds: stage 2 is asked before stage 1 has cost its hours.

    Raises:
        ConfigError, DataError, ModelError: settings, corpus and model that do not fit together.
    """
    settings.check()
    _check_fit(model, tokens, settings)
    StageData(tokens, settings, num_workers=0)
    if settings.lora is not None:
        lora_targets(model, settings.lora.target_modules)


def fit(
    load: Callable[[], PreTrainedModel],
    *,
    data: StageData,
    metrics_path: Path | None,
    heldout: HeldOut | None,
    hardware: Hardware,
    place: StageFolder,
    loggers: Sequence[StepLogger],
) -> tuple[PreTrainedModel, StageRecord]:
    """Train the model that `load` gives, alone or as one of several processes; the first one writes to `place`."""
    settings = data.settings
    metrics = StageMetrics(settings, path=metrics_path, loggers=loggers)
    checkpointing = Checkpointing(place, metrics, every=settings.checkpoint_every, steps=settings.steps)
    scores = [HeldOutScores(heldout, metrics, bytes_per_token=data.bytes_per_token)] if heldout else []
    with quiet_lightning():
        model = load()
        prepared = prepare(model, settings)
        trainer = _trainer(settings, hardware, [*scores, metrics, checkpointing], metrics.data_clock)
        sharded = isinstance(trainer.strategy, ShardedStrategy)
        module = _module(model, prepared, data, hardware, sharded=sharded)
        mode = training_mode(model, gradient_checkpointing=settings.gradient_checkpointing)
        precision = computing_in(prepared.module, _embedding(model), settings, sharded=sharded)
        with mode, precision, _own_randomness(), _disk_errors(place.path, metrics_path):
            try:
                _fit(trainer, module, data, place.checkpoint)
            finally:
                module.kernels.take_out()
    if isinstance(trainer.strategy, ShardedStrategy) and trainer.is_global_zero:
        prepared = prepare(load(), settings)  # the one that was trained is in parts
        module.model = prepared.module
        trainer.strategy.copy_trained(module)
    record = metrics.record(prepared.trainable_parameters, checkpointing.most_bytes)
    record = replace(record, kernels=module.kernels.name)
    if trainer.is_global_zero:
        with _disk_errors(place.path, metrics_path):
            model = _finish(prepared, settings, place, record, smoothed_loss(metrics.lines))
    return model, record


def _module(
    model: PreTrainedModel, prepared: Prepared, data: StageData, hardware: Hardware, *, sharded: bool
) -> StageModule:
    settings = data.settings
    kernels = Kernels(
        model,
        prepared.module,
        wanted=hardware.kernels,
        shape=(settings.batch_size, settings.max_seq_length),
        bf16=settings.bf16,
        graphs=hardware.devices == 1 and not settings.gradient_checkpointing,
        sharded=sharded,
    )
    return StageModule(
        prepared.module,
        kernels,
        optimiser_factory(settings, prepared.tables),
        vocabulary_size=data.vocabulary_size,
        gradient_clip=settings.gradient_clip,
        skip_nonfinite=settings.skip_nonfinite,
        seed=settings.seed,
    )


def _finish(
    prepared: Prepared, settings: StageSettings, place: StageFolder, record: StageRecord, loss: float
) -> PreTrainedModel:
    """Write what the stage leaves; returns the plain model."""
    if prepared.save_adapter and place.path:
        with quiet_lightning():
            prepared.save_adapter(place.path / "adapter")
    model = prepared.finish()
    _check_weights(model, prepared.changed, settings)
    place.write_result(model, prepared.changed, record)
    place.judge_best(loss)
    return model


def _trainer(
    settings: StageSettings, hardware: Hardware, callbacks: list[pl.Callback], profiler: Profiler
) -> pl.Trainer:
    """A Trainer that neither writes nor prints anything of its own, and starts no processes."""
    return pl.Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        strategy=_strategy(hardware),
        plugins=_plugins(hardware),
        precision="bf16-mixed" if settings.bf16 else "32-true",
        max_epochs=-1,
        max_steps=settings.steps,
        accumulate_grad_batches=settings.gradient_accumulation // hardware.devices,
        callbacks=callbacks,
        profiler=profiler,
        use_distributed_sampler=False,  # ReadingOrder divides the micro-batches among processes
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _plugins(hardware: Hardware) -> list[Any]:
    environment = [TorchElasticEnvironment()] if hardware.devices > 1 else []  # reads what processes.py has set
    return [CheckpointFiles(), *environment]


def _strategy(hardware: Hardware) -> str | Strategy:
    if hardware.devices == 1:
        return "auto"
    return ShardedStrategy() if hardware.strategy == "fsdp" else DDPStrategy(gradient_as_bucket_view=True)


def _fit(trainer: pl.Trainer, module: StageModule, data: StageData, checkpoint: Path | None) -> None:
    """Run Lightning's loop, and undo what it does to Ctrl-C: it would ignore the signal from then on, and exit."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        module.zero_grad(set_to_none=True)  # gradients of tables are as large as the tables
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def _disk_errors(folder: Path | None, metrics_path: Path | None) -> AbstractContextManager[None]:
    place = folder or (metrics_path.parent if metrics_path else None)
    return disk_errors(place) if place else nullcontext()


def _embedding(model: PreTrainedModel) -> torch.nn.Module:
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, torch.nn.Module)
    return embedding


@contextmanager
def _own_randomness() -> Generator[None]:
    """Dropout draws from the global generators, seeded per micro-batch; the caller finds them as they were."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=devices):
        yield


def _check_fit(model: PreTrainedModel, tokens: TokenizedCorpus, settings: StageSettings) -> None:
    """Raise if the model has too few rows for the tokens, or too few positions for the sequences."""
    rows = table_rows(model)
    if tokens.vocabulary_size > rows:
        raise ModelError(
            f"The corpus has {tokens.vocabulary_size} kinds of tokens, the model's table {rows} rows: "
            "it was tokenized for another vocabulary."
        )
    positions = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if positions and settings.max_seq_length > positions:
        raise ConfigError(
            "vocab.max_seq_length", settings.max_seq_length, f"at most {positions}, the positions that the model has"
        )


def _check_weights(model: PreTrainedModel, changed: Sequence[str], settings: StageSettings) -> None:
    """Raise TrainingError if a weight is not finite: the last line against a broken model that looks like a result."""
    broken = [name for name in changed if not bool(model.get_parameter(name).isfinite().all())]
    if broken:
        raise TrainingError(
            f"{settings.name}: weights that are not finite after the last step, in {broken[0]} and {len(broken) - 1} "
            f"others. Lower {settings.key('lr')} (now {settings.learning_rate:g})."
        )


def _digest(model: PreTrainedModel, tokens: TokenizedCorpus, settings: StageSettings) -> str:
    """Hash of settings, corpus and starting point. Of each tensor and of the corpus a few values spread over it count,
    so that it costs milliseconds also for a model of billions of parameters."""
    sampled = hashlib.sha256(_spread(torch.from_numpy(tokens.offsets)).tobytes())
    sampled.update(np.asarray(tokens.tokens[:: max(1, len(tokens.tokens) // 4096)]).tobytes())
    for name, parameter in model.named_parameters():
        sampled.update(name.encode() + _spread(parameter.detach()).tobytes())
    sizes = {"tokens": len(tokens.tokens), "vocabulary": tokens.vocabulary_size}
    return settings.digest(start=sampled.hexdigest(), **sizes)


def _spread(tensor: torch.Tensor) -> np.ndarray:
    flat = tensor.reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLES_PER_TENSOR)].cpu().double().numpy()
