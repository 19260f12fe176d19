"""What a stage computes in: frozen weights in bfloat16 or in 8 bits, trained ones in float32 under autocast.

Autocast alone would cast every frozen weight anew in every micro-batch, and would carry the residual stream in float32,
since the embedding is no matrix product: twice the bytes through every norm and addition.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from revocab.training.float8 import in_float8
from revocab.training.settings import StageSettings

LOW = torch.bfloat16


@contextmanager
def computing_in(module: nn.Module, embedding: nn.Module, settings: StageSettings, *, sharded: bool) -> Generator[None]:
    """Bring a prepared module into the precision it is trained in; afterwards its frozen weights are what they were.

    Args:
        module: with `requires_grad` set; the tensors of its parameters are exchanged in place.
        embedding: the input table's module; what it gives is cast, so that the residual stream is bfloat16.
        settings: without `bf16` nothing is done.
        sharded: whether the parameters are shared out among devices: they must then be of one type, and stay float32.
    """
    with ExitStack() as stack:
        if settings.bf16:
            stack.enter_context(_low_residual(embedding))
            if not sharded:
                stack.enter_context(_low_weights(module, trained=not settings.master_weights))
            if settings.fp8:
                stack.enter_context(in_float8(module))
        yield


@contextmanager
def _low_residual(embedding: nn.Module) -> Generator[None]:
    handle = embedding.register_forward_hook(lambda _module, _inputs, output: output.to(LOW))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _low_weights(module: nn.Module, *, trained: bool) -> Generator[None]:
    """Frozen weights in bfloat16, trained ones where asked for: these come back rounded, the others as they were."""
    wide = [p for p in module.parameters() if p.dtype == torch.float32 and (trained or not p.requires_grad)]
    originals = [p.data.cpu() for p in wide]  # from where scoring left them: beside the copies they would not fit
    for parameter in wide:
        parameter.data = parameter.data.to(LOW)
    try:
        yield
    finally:
        for parameter, original in zip(wide, originals, strict=True):
            parameter.data = parameter.data.float() if parameter.requires_grad else original
