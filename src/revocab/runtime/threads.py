"""How many threads torch computes with, and its start on a GPU."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

from revocab.runtime.cores import whole_machine

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


def start_device(device: str) -> None:
    """Load what a GPU computes with, which takes a second or more, before it is needed; nothing on the CPU."""
    if device != "cpu":
        with whole_machine():
            torch.linalg.qr(torch.eye(2, device=device))
            torch.cuda.synchronize(device)
