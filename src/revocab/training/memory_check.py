"""Whether a stage fits into the free memory, before it is trained, and the smallest change with which it does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from revocab.errors import ResourceError
from revocab.runtime.hardware import free_memory_bytes
from revocab.training.memory import GIGABYTE, MemoryEstimate, Ways, estimate_memory, ways_of
from revocab.training.settings import Hardware, LoraSettings, StageSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
WARN_ABOVE = 0.9  # share of the free memory
R64 = LoraSettings(r=64, alpha=16, dropout=0.1, target_modules=("all-linear",))  # what lora=r64 is about


def check_memory(
    model: PreTrainedModel,
    settings: StageSettings,
    hardware: Hardware,
    *,
    vocabulary_size: int,
    ways: Ways | None = None,
    free: int | None = None,
    warn: bool = True,
) -> MemoryEstimate:
    """Compare what a stage needs with what is free, before anything is trained.

    Only what cannot fit is refused: the estimate's `least` is above what is free. An estimate above 90 % is a warning.

    Args:
        ways: how it is computed; None: as `hardware` does.
        free: bytes for the model and its training on one device; None: as the device says.
        warn: whether an estimate above 90 % is said.

    Raises:
        ResourceError: it cannot fit; with the parts, what is free, and a change that would fit.
    """
    ways = ways or ways_of(hardware, model)
    free = _for_training(model, ways.device) if free is None else free

    def estimate(changed: StageSettings) -> MemoryEstimate:
        return estimate_memory(model, changed, vocabulary_size=vocabulary_size, ways=ways)

    found = estimate(settings)
    if found.total <= WARN_ABOVE * free:
        return found
    said = f"{settings.name} needs {found} of {'GPU' if ways.device == 'cuda' else 'main'} memory, "
    said += f"{free / GIGABYTE:.2f} GB are free. {suggestion(settings, estimate, free)}"
    if found.least > free:
        raise ResourceError(said)
    if warn:
        log.warning("%s", said)
    return found


def copy_fits(model: PreTrainedModel, settings: StageSettings, hardware: Hardware, *, vocabulary_size: int) -> bool:
    """Whether a copy of the model can be trained beside it: its estimate is at most 90 % of what is free."""
    ways = ways_of(hardware, model)
    found = estimate_memory(model, settings, vocabulary_size=vocabulary_size, ways=ways)
    return found.total <= WARN_ABOVE * free_memory_bytes(ways.device)


def suggestion(settings: StageSettings, estimate: Callable[[StageSettings], MemoryEstimate], free: int) -> str:
    """The smallest change that would fit, as keys of the command line."""
    for changed, said in _changes(settings):
        if (total := estimate(changed).total) <= WARN_ABOVE * free:
            return f"Would fit, with about {total / GIGABYTE:.2f} GB: {said}"
    return (
        "Nor would micro-batches of 1 with gradient checkpointing and adapters: "
        "take a larger device, trainer=fsdp, or a smaller model."
    )


def _changes(settings: StageSettings) -> Iterator[tuple[StageSettings, str]]:
    """Another AdamW; smaller micro-batches for as large steps; these with checkpointed gradients; with adapters."""
    body: list[tuple[StageSettings, list[str]]] = [(settings, [])]
    if settings.name == "stage2" and settings.optimizer == "adamw_torch":  # needs square roots of all moments at once
        fused, key = replace(settings, optimizer="adamw_torch_fused"), "vocab.stage2_optimizer=adamw_torch_fused"
        yield fused, key
        body.append((fused, [key]))
    if not settings.gradient_checkpointing:
        key = "vocab.gradient_checkpointing=true"
        body += [(replace(each, gradient_checkpointing=True), [*keys, key]) for each, keys in list(body)]
    if settings.kind in ("full", "first_last"):
        body += [(replace(each, kind="lora", lora=R64), [*keys, "lora=r64"]) for each, keys in list(body)]
    product = settings.sequences_per_step
    for changed, keys in body:
        sizes = [size for size in range(settings.batch_size, 0, -1) if product % size == 0]
        for size in sizes:
            smaller = replace(changed, batch_size=size, gradient_accumulation=product // size)
            batch = [f"vocab.batch_size={size}", f"vocab.gradient_accumulation={product // size}"]
            if smaller != settings:
                yield smaller, " ".join(keys + (batch if size != settings.batch_size else []))


def _for_training(model: PreTrainedModel, device: str) -> int:
    """Bytes that the model and its training may take."""
    return free_memory_bytes(device) + _already_there(model, device)


def _already_there(model: PreTrainedModel, device: str) -> int:
    """Bytes of the model that are on the device now: part of the estimate and of what is not free."""
    if device == "cuda":
        return torch.cuda.memory_reserved()
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.device.type == "cpu")
