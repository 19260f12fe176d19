"""A linear layer that is not trained, as functions of autograd use it: in the type of its weight or in 8 bits."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from revocab.training.float8 import in_8_bits


class Frozen(Protocol):
    """W (O, I), b (O)."""

    def read(self, x: torch.Tensor) -> Any:
        """x (N, I) as `product` takes it; all layers of one class read an input alike, so one reading serves them."""
        ...

    def product(self, read: Any) -> torch.Tensor:
        """x W^T + b (N, O), of what `read` gave."""
        ...

    def gradient(self, grad: torch.Tensor) -> torch.Tensor:
        """grad W (N, I), of grad (N, O)."""
        ...

    def add_gradient(self, grad_x: torch.Tensor, grad: torch.Tensor) -> None:
        """grad_x (N, I) += grad W, of grad (N, O)."""
        ...


class AsItIs:
    """In the type of the weight."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight, self.bias = weight, bias

    def read(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def product(self, read: torch.Tensor) -> torch.Tensor:
        return functional.linear(read, self.weight, self.bias)

    def gradient(self, grad: torch.Tensor) -> torch.Tensor:
        return grad @ self.weight

    def add_gradient(self, grad_x: torch.Tensor, grad: torch.Tensor) -> None:
        grad_x.addmm_(grad, self.weight)


def as_frozen(layer: nn.Linear, kind: torch.dtype) -> Frozen:
    """The layer in 8 bits where it is meant to be, otherwise in the type `kind`."""
    if (eight := in_8_bits(layer)) is not None:
        return eight
    return AsItIs(layer.weight.to(kind), None if layer.bias is None else layer.bias.to(kind))


def kind_of_product(x: torch.Tensor) -> torch.dtype:
    """The type in which a linear layer multiplies x: under autocast another one than that of x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
