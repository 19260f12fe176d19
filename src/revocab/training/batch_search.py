"""The micro-batch that trains fastest on this machine, found by real steps; the sequences of a step stay the same.

Sizes 1, 2, 4 ... that divide the sequences of a step are tried from the smallest up, each by a few optimiser steps of
the stage itself (its kernels, precision, optimiser, devices) on a copy of the model. The search ends at the first size
that does not fit, or is clearly slower than the best. Of sizes that are as fast to within the noise the smallest is
taken: it needs the least memory.
"""

from __future__ import annotations

import copy
import gc
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from revocab.artifacts import TokenizedCorpus
from revocab.errors import ResourceError
from revocab.runtime.files import write_json
from revocab.runtime.retry import is_out_of_memory
from revocab.training.memory_check import check_memory, copy_fits
from revocab.training.settings import Hardware, StageSettings
from revocab.training.stage import train_stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
STEPS = 4  # the first is not timed: kernels and the optimiser's state are made in it
NOISE = 0.03  # of a speed
MUCH_SLOWER = 0.8  # of the best speed: larger micro-batches are not tried any more


def with_best_batch(
    model: PreTrainedModel,
    tokens: TokenizedCorpus,
    settings: StageSettings,
    hardware: Hardware,
    *,
    path: Path,
    done: bool = False,
) -> tuple[StageSettings, dict[str, Any] | None]:
    """The settings with the micro-batch and accumulation that were found, now or when the stage first began.

    Model and random states are left as they were, except that the model is on the CPU after a search.

    Args:
        path: a JSON file of one entry per stage. What is there holds, so that a stage that was stopped goes on with
            the same micro-batches; it is searched anew if it does not suit the sequences of a step or the devices.
        done: whether the stage has its result, such as one that another job has trained: then nothing is searched.

    Returns:
        Settings, and the entry, None where nothing was to be found: {batch_size, gradient_accumulation,
        tokens_per_second: {size: number or null where memory did not suffice}}.

    Raises:
        ResourceError: not even one sequence fits.
    """
    stored = _read(path)
    found = stored.get(settings.name)
    if found is None or not _suits(found, settings, hardware):
        if done:
            return settings, None
        found = search(model, tokens, settings, hardware)
        write_json(path, stored | {settings.name: found})
    size, accumulation = found["batch_size"], found["gradient_accumulation"]
    said = ", ".join(f"{each}: {_speed(speed)}" for each, speed in found["tokens_per_second"].items())
    log.info("%s: micro-batches of %d, %d a step (tokens/s by size: %s)", settings.name, size, accumulation, said)
    return replace(settings, batch_size=size, gradient_accumulation=accumulation), found


def search(
    model: PreTrainedModel, tokens: TokenizedCorpus, settings: StageSettings, hardware: Hardware
) -> dict[str, Any]:
    """The entry of a stage, see `with_best_batch`; raises ResourceError if not even one sequence fits."""
    speeds = measure_speeds(model, tokens, settings, hardware)
    size = choose(speeds)
    if size is None:
        raise ResourceError(
            f"{settings.name}: a micro-batch of 1 x {settings.max_seq_length} tokens does not fit into memory: "
            "lower vocab.max_seq_length, set vocab.gradient_checkpointing=true, or choose lora=r64."
        )
    return {
        "batch_size": size,
        "gradient_accumulation": settings.sequences_per_step // size,
        "tokens_per_second": {str(tried): speed for tried, speed in speeds.items()},
    }


def _speed(tokens_per_second: float | None) -> str:
    return "no memory" if tokens_per_second is None else f"{tokens_per_second:,.0f}"


def choose(speeds: dict[int, float | None]) -> int | None:
    """The smallest size whose speed is the best to within the noise; None if none was fast enough to be measured."""
    best = max((speed for speed in speeds.values() if speed), default=0.0)
    return next((size for size, speed in sorted(speeds.items()) if speed and speed >= (1 - NOISE) * best), None)


def measure_speeds(
    model: PreTrainedModel, tokens: TokenizedCorpus, settings: StageSettings, hardware: Hardware
) -> dict[int, float | None]:
    """Tokens a second by size of the micro-batch, of those that were tried; None where memory did not suffice."""
    model.to(torch.device("cpu"))  # from where scoring left it: copies are made in main memory
    speeds: dict[int, float | None] = {}
    for size in sizes(settings, hardware):
        trial = _trial(settings, hardware, size)
        speeds[size] = None
        if not _may_fit(model, tokens, trial, hardware):
            break
        _free_memory()
        try:
            speeds[size] = speed = measure(lambda: copy.deepcopy(model), tokens, trial, hardware)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            break
        if speed < MUCH_SLOWER * max(known for known in speeds.values() if known):
            break
    _free_memory()
    return speeds


def sizes(settings: StageSettings, hardware: Hardware) -> Iterator[int]:
    """Powers of two whose micro-batches make up a step and can be shared out over the devices."""
    size, product = 1, settings.sequences_per_step
    while product % (size * hardware.devices) == 0:
        yield size
        size *= 2


def measure(
    load: Callable[[], PreTrainedModel], tokens: TokenizedCorpus, settings: StageSettings, hardware: Hardware
) -> float:
    """Tokens a second of the steps behind the first; what `load` gives is trained and thrown away."""
    with tempfile.TemporaryDirectory(prefix="revocab-") as folder:
        path = Path(folder) / "metrics.jsonl"
        train_stage(load(), tokens, settings, hardware, folder=None, metrics_path=path)
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    first, last = lines[0], lines[-1]
    return (last["tokens"] - first["tokens"]) / max(last["seconds"] - first["seconds"], 1e-3)


def _trial(settings: StageSettings, hardware: Hardware, size: int) -> StageSettings:
    """A few steps of at most two micro-batches a device: with gradients of the first while the second is computed."""
    shares = settings.sequences_per_step // (size * hardware.devices)
    return replace(
        settings,
        steps=STEPS,
        batch_size=size,
        gradient_accumulation=hardware.devices * min(2, shares),
        start_document=0,
        checkpoint_every=0,
        log_every=1,
    )


def _may_fit(model: PreTrainedModel, tokens: TokenizedCorpus, trial: StageSettings, hardware: Hardware) -> bool:
    """On a GPU a try costs little, unless it is hopeless; in main memory it may cost the process."""
    if hardware.accelerator == "cpu":
        return copy_fits(model, trial, hardware, vocabulary_size=tokens.vocabulary_size)
    try:
        check_memory(model, trial, hardware, vocabulary_size=tokens.vocabulary_size, warn=False)
    except ResourceError:
        return False
    return True


def _suits(found: Any, settings: StageSettings, hardware: Hardware) -> bool:
    size, accumulation = found["batch_size"], found["gradient_accumulation"]
    return size * accumulation == settings.sequences_per_step and accumulation % hardware.devices == 0


def _read(path: Path) -> dict[str, Any]:
    """Nothing where the file is missing; it is renamed into place, so never half there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _free_memory() -> None:
    gc.collect()  # models are full of cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
