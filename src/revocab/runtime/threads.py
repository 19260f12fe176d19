"""How many threads torch computes with."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

FEW = 8


@contextmanager
def few_threads() -> Generator[None]:
    """At most FEW inside: decompositions of a few hundred rows wait for their threads where there are many more."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, FEW))
    try:
        yield
    finally:
        torch.set_num_threads(before)
