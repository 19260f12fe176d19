"""Frozen linear layers that read the same input, as one function of autograd: q, k and v, gate and up.

Apart, each of them gives a gradient of the input (N, I), and autograd adds these up, a pass over three of them for
every layer but the first. Together, the products themselves accumulate. In 8 bits the input is quantised once for all.
One product of all weights side by side would need them copied, and its outputs, columns of one tensor, would be copied
again by kernels that want them contiguous.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from revocab.training.float8 import is_in_8_bits
from revocab.training.frozen import Frozen, as_frozen, kind_of_product

GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # by the names that transformers gives them


class SharedInput(torch.autograd.Function):
    """x (N, I) -> x W^T + b (N, O) of every layer, which are of one class. For backward, x is not needed."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layers: Sequence[Frozen]) -> tuple[torch.Tensor, ...]:
        ctx.layers = layers
        ctx.set_materialize_grads(False)  # an output that nobody used has none
        read = layers[0].read(x)
        return tuple(layer.product(read) for layer in layers)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, None]:
        grad_x = None
        for layer, grad in zip(ctx.layers, grads, strict=True):
            if grad is None:
                continue
            if grad_x is None:
                grad_x = layer.gradient(grad)
            else:
                layer.add_gradient(grad_x, grad)
        return grad_x, None


@contextmanager
def shared_inputs(module: nn.Module) -> Generator[int]:
    """Let frozen layers of one input compute by `SharedInput`; gives the number of groups. Others stay as they are."""
    groups = [
        (parent, _Group(layers)) for parent in module.modules() for names in GROUPS if (layers := _found(parent, names))
    ]
    hooks = []
    for parent, group in groups:
        group.put_in()
        hooks.append(parent.register_forward_hook(partial(_forget, group), always_call=True))
    try:
        yield len(groups)
    finally:
        for hook in hooks:
            hook.remove()
        for _, group in groups:
            group.take_out()


def _found(parent: nn.Module, names: Sequence[str]) -> list[nn.Linear]:
    """The children of these names that are frozen linear layers, if there are several, and of one kind."""
    children = (parent._modules.get(name) for name in names)
    layers = [child for child in children if type(child) is nn.Linear and not _trained(child)]
    alike = len({is_in_8_bits(layer) for layer in layers}) == 1
    return layers if len(layers) > 1 and alike else []


def _trained(layer: nn.Linear) -> bool:
    return any(parameter.requires_grad for parameter in layer.parameters())


def _forget(group: _Group, *_: Any) -> None:
    group.forget()


class _Group:
    """Layers of one input. The model calls one after the other: the first call computes all, the others hand out.

    A part is handed out once, and only for the very tensor that it was computed of, unchanged since. When all are
    handed out, or the module around them is done, nothing is kept.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self.layers = layers
        self._before = [layer.__dict__.get("forward") for layer in layers]
        self._alone = [layer.forward for layer in layers]
        self._input: tuple[torch.Tensor, int, torch.dtype] | None = None  # its version and the type of the products
        self._parts: dict[int, torch.Tensor] = {}  # by position, of those not handed out yet

    def put_in(self) -> None:
        for position, layer in enumerate(self.layers):
            layer.__dict__["forward"] = partial(self._forward, position)

    def take_out(self) -> None:
        self.forget()
        for layer, before in zip(self.layers, self._before, strict=True):
            del layer.__dict__["forward"]
            if before is not None:
                layer.__dict__["forward"] = before

    def forget(self) -> None:
        self._input, self._parts = None, {}

    def _forward(self, position: int, x: torch.Tensor) -> torch.Tensor:
        if not (torch.is_grad_enabled() and x.requires_grad):  # nothing to add up
            return self._alone[position](x)
        if position not in self._parts:
            self._compute(x)
        same, part = self._is_input(x), self._parts.pop(position)
        if not self._parts:
            self.forget()
        return part if same else self._alone[position](x)

    def _compute(self, x: torch.Tensor) -> None:
        kind = kind_of_product(x)
        with torch.autocast(x.device.type, enabled=False):
            frozen = [as_frozen(layer, kind) for layer in self.layers]
            parts = SharedInput.apply(x.to(kind).reshape(-1, x.shape[-1]), frozen)
        self._input = (x, x._version, kind)
        self._parts = {place: part.view(*x.shape[:-1], part.shape[-1]) for place, part in enumerate(parts)}

    def _is_input(self, x: torch.Tensor) -> bool:
        if self._input is None or x is not self._input[0]:
            return False
        return self._input[1:] == (x._version, kind_of_product(x))
