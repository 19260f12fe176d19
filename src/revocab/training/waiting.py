"""How long the training loop waits for its data."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext

from pytorch_lightning.profilers import Profiler

NEXT_BATCH = ".train_dataloader_next"  # what Lightning calls the moment in which it asks for a batch

NOTHING = nullcontext()


class DataClock(Profiler):
    """Adds up the seconds in which the loop does nothing but wait for the next micro-batch.

    On a GPU an upper bound of what that costs: the device may still compute meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._asked = 0.0

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # ty: ignore[incompatible-method-override]
        """For the fifty actions of a step that Lightning times by `with`; a wait for data it starts and stops."""
        return NOTHING

    def start(self, action_name: str) -> None:
        if action_name.endswith(NEXT_BATCH):
            self._asked = time.perf_counter()

    def stop(self, action_name: str) -> None:
        if action_name.endswith(NEXT_BATCH):
            self.seconds += time.perf_counter() - self._asked
