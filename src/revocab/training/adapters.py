"""A linear layer with a LoRA adapter as one function of autograd: y = x W^T + b + s drop(x) A^T B^T.

peft computes the same in separate steps: it casts x to the adapter's float32 and back, and reads and writes the
layer's whole output twice more to scale and to add. Here the adapter multiplies in the type of x, scale and addition
are part of a product, and the backward pass needs x (which q, k and v share), the dropout mask and (N, r) numbers.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import nn

from revocab.training.frozen import Frozen, as_frozen, kind_of_product


class AdaptedLinear(torch.autograd.Function):
    """x W^T + b + s drop(x) A^T B^T, of a frozen W and b. N rows, I inputs, O outputs, rank r.

    x: (N, I), A: (r, I), B: (O, r), the last two of any type; gradients come back in their own.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        frozen: Frozen,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
        dropout: float,
    ) -> torch.Tensor:
        kept, dropped, mask = 1.0, x, None
        if dropout > 0:
            dropped, mask = torch.native_dropout(x, dropout, True)
            kept = 1.0 / (1.0 - dropout)
        low = dropped @ a.to(x.dtype).t()
        ctx.save_for_backward(x, mask, low, a, b)
        ctx.frozen, ctx.scale, ctx.kept = frozen, scale, kept
        return frozen.product(frozen.read(x)).addmm_(low, b.to(x.dtype).t(), alpha=scale)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        x, mask, low, a, b = ctx.saved_tensors
        grad_low = (grad @ b.to(grad.dtype)).mul_(ctx.scale)
        grad_b = (grad.t() @ low).mul_(ctx.scale)
        grad_a = grad_low.t() @ _dropped(x, mask, ctx.kept)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = _dropped(grad_low @ a.to(grad.dtype), mask, ctx.kept)
            ctx.frozen.add_gradient(grad_x, grad)
        return grad_x, None, grad_a.to(a.dtype), grad_b.to(b.dtype), None, None


def _dropped(x: torch.Tensor, mask: torch.Tensor | None, scale: float) -> torch.Tensor:
    """x * mask * scale in one pass; a product with booleans would take three times as long."""
    return x if mask is None else torch.ops.aten.native_dropout_backward(x, mask, scale)


@contextmanager
def fused_adapters(module: nn.Module) -> Generator[int]:
    """Let adapted linear layers compute by `AdaptedLinear`; gives their number. Others stay as they are."""
    layers = [layer for layer in module.modules() if _can_be_fused(layer)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    try:
        yield len(layers)
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _can_be_fused(layer: Any) -> bool:
    """A plain adapter of a linear layer: one that is active, of the first form of LoRA, and not merged."""
    from peft.tuners.lora import Linear

    return (
        isinstance(layer, Linear)
        and isinstance(layer.base_layer, nn.Linear)
        and not layer.base_layer.weight.requires_grad
        and len(layer.active_adapters) == 1
        and not (layer.merged or layer.disable_adapters or layer.lora_variant)
        and layer.lora_A[layer.active_adapters[0]].bias is None
        and layer.lora_B[layer.active_adapters[0]].bias is None
    )


def _forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    x = x.to(kind_of_product(x))
    name = layer.active_adapters[0]
    dropout = layer.lora_dropout[name]
    share = dropout.p if isinstance(dropout, nn.Dropout) and layer.training else 0.0
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    with torch.autocast(x.device.type, enabled=False):
        frozen = as_frozen(layer.base_layer, x.dtype)
        out = AdaptedLinear.apply(x.flatten(0, -2), frozen, a, b, layer.scaling[name], share)
    return out.unflatten(0, x.shape[:-1])
