"""Embedding tables that come back: for a trial that must leave no trace in the model."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def restored_tables(model: PreTrainedModel) -> Generator[None]:
    """Whatever the body does to the embedding tables of `model`, they are put back to the bit; costs a copy of them."""
    tables = [module for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module is not None]
    parameters = [parameter for module in tables for parameter in module.parameters()]
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
