"""Products with frozen matrices in 8 bits (e4m3), forward and backward; gradients of weights are never needed.

Every row of every operand has its own scale (largest magnitude -> 448), products accumulate in float32 and come out in
the type of the input. A frozen matrix is quantised once, by rows for x W^T and by columns for dy W, so that its two
copies take the memory of one in bfloat16. torchao's training layers would quantise it anew in every pass, for there
weights move.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import nn

from revocab.errors import ConfigError

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max
SIDE = 16  # sizes that the 8-bit matrix units ask for


def require_float8() -> None:
    """Raise ConfigError where no device multiplies 8-bit floats."""
    if not (torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9)):
        raise ConfigError("vocab.fp8", True, "false without a GPU that multiplies 8-bit floats (Ada, Hopper or later)")


def quantise(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, K) -> the rows in 8 bits and their scales (N, 1) in float32: rows = quantised * scale."""
    scale = rows.abs().amax(dim=1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    return (rows.float() / scale).clamp(-LARGEST, LARGEST).to(E4M3).contiguous(), scale


class Eight(NamedTuple):
    """A matrix (N, K) in 8 bits, and what products with it come out in."""

    rows: torch.Tensor
    scales: torch.Tensor  # (N, 1) float32
    kind: torch.dtype


class Float8Matrix:
    """A frozen linear layer, W (O, I) and b (O), in 8 bits; see `revocab.training.frozen.Frozen`."""

    def __init__(self, layer: nn.Linear) -> None:
        with torch.no_grad():
            self.rows, self.columns = quantise(layer.weight), quantise(layer.weight.t())
        self.bias = layer.bias

    def read(self, x: torch.Tensor) -> Eight:
        return Eight(*_quantise_fast(x), x.dtype)

    def product(self, read: Eight) -> torch.Tensor:
        """x W^T + b, of x (N, I)."""
        out = _product(read, *self.rows)
        return out if self.bias is None else out.add_(self.bias)

    def gradient(self, grad: torch.Tensor) -> torch.Tensor:
        return _product(self.read(grad.contiguous()), *self.columns)

    def add_gradient(self, grad_x: torch.Tensor, grad: torch.Tensor) -> None:
        grad_x.add_(self.gradient(grad))  # products of 8 bits cannot accumulate


class Float8Product(torch.autograd.Function):
    """x (N, I) -> x W^T + b (N, O)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, matrix: Float8Matrix) -> torch.Tensor:
        ctx.matrix = matrix
        return matrix.product(matrix.read(x))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.matrix.gradient(grads[0]), None


def _product(read: Eight, rows: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return torch._scaled_mm(
        read.rows, rows.t(), scale_a=read.scales, scale_b=scales.t(), out_dtype=read.kind, use_fast_accum=True
    )


_compiled: Any = None


def _quantise_fast(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One kernel instead of eight: compiled on first use for every width, but not for every number of rows.

    Of a width that it does not know, the compiler cannot say that rows begin at multiples of 16 bytes, and its kernel
    reads values one by one. What else would have it compile anew, until it gives up: whether gradients are wanted.
    """
    global _compiled
    if _compiled is None:
        _compiled = torch.compile(quantise, dynamic=True)
    x = x.detach()
    torch._dynamo.mark_static(x, 1)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        return _compiled(x)


def frozen_linears(module: nn.Module) -> list[nn.Linear]:
    """Those whose weight is frozen, of sizes that the units can multiply; the tables are no part of them."""
    model: Any = module  # of transformers, with or without adapters around its layers
    output_table = model.get_output_embeddings()
    return [
        layer
        for layer in module.modules()
        if type(layer) is nn.Linear
        and layer is not output_table
        and not layer.weight.requires_grad
        and all(size % SIDE == 0 for size in layer.weight.shape)
    ]


@contextmanager
def in_float8(module: nn.Module) -> Generator[None]:
    """Let every frozen linear layer multiply in 8 bits, from its first call on; the weight itself stays."""
    require_float8()
    layers = frozen_linears(module)
    for layer in layers:
        layer.__dict__.update(forward=MethodType(_forward, layer), _float8=None)
    try:
        yield
    finally:
        for layer in layers:
            for name in ("forward", "_float8"):
                layer.__dict__.pop(name, None)


def is_in_8_bits(layer: nn.Linear) -> bool:
    """Whether `in_float8` has the layer multiply in 8 bits."""
    return "_float8" in layer.__dict__


def in_8_bits(layer: nn.Linear) -> Float8Matrix | None:
    """The layer's matrix in 8 bits, made on first use, when the weight is on its device; None for any other layer."""
    if is_in_8_bits(layer) and layer.__dict__["_float8"] is None:
        layer.__dict__["_float8"] = Float8Matrix(layer)
    return layer.__dict__.get("_float8")


def _forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    return Float8Product.apply(x.flatten(0, -2), in_8_bits(layer)).unflatten(0, x.shape[:-1])
