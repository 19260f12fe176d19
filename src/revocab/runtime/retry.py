"""Trying again what may well work the second time: a read from the Hub, and a stage that ran out of memory.

Everything else fails at once: a wrong name or value is as wrong the second time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from revocab.runtime.hub import hub_reachable

log = logging.getLogger(__name__)
Result = TypeVar("Result")

TOO_MANY_REQUESTS, SERVER_ERRORS = 429, 500  # HTTP
# By name, for each HTTP client has its own: requests, httpx and its successors, aiohttp, Python itself.
LOST_CONNECTION = {"ConnectionError", "TimeoutError", "Timeout", "TransportError", "ClientConnectionError"}
NOT_IN_LOCAL_CACHE = "LocalEntryNotFoundError"  # what the Hub's client says where it could not ask
OFFLINE_BY_CHOICE = "OfflineModeIsEnabled"
OUT_OF_MEMORY = (  # torch's allocators; CUDA itself, as for a graph, a library or pinned memory; a Triton kernel
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Triton Error [CUDA]: out of memory",
)


class Retries:
    """What one job tries again: how often, after how long, and what it was.

    Args:
        most: retries of one thing.
        backoff: seconds before the first retry, doubled before each further one.
    """

    def __init__(self, most: int, backoff: float) -> None:
        self.most, self.backoff = most, backoff
        self.noted: list[dict[str, Any]] = []  # {what, reason, seconds, ...}, for summary.json

    def left(self, what: str) -> bool:
        return self._tried(what) < self.most

    def wait(self, what: str, reason: str, **changed: Any) -> None:
        """Say loudly that `what` is tried again and what is changed for it, note it, and wait."""
        seconds = self.backoff * 2 ** self._tried(what)
        number = f"retry {self._tried(what) + 1} of {self.most}"
        how = "".join(f", {key} {value}" for key, value in changed.items())
        log.warning("%s: %s. Trying again in %g s (%s%s).", what, reason.rstrip("."), seconds, number, how)
        self.noted.append({"what": what, "reason": reason, "seconds": seconds, **changed})
        time.sleep(seconds)

    def download(self, what: str, read: Callable[[], Result]) -> Result:
        """`read()`, again if the connection or the server failed; any other error passes at once.

        Args:
            what: for the user, such as `models.source_model owner/name`.
            read: may be called several times.
        """
        while True:
            try:
                return read()
            except Exception as error:
                if not self.left(what) or not is_transient(error):
                    raise
                reason = " ".join(str(error).split())[:300] or type(error).__name__
            hub_reachable.cache_clear()
            self.wait(what, reason)

    def _tried(self, what: str) -> int:
        return sum(noted["what"] == what for noted in self.noted)


def is_transient(error: BaseException) -> bool:
    """Whether a lost connection, a time-out, or an answer of HTTP 429 or 5xx is behind the error; never 401 or 404."""
    for each in _with_causes(error):
        status = getattr(getattr(each, "response", None), "status_code", None)
        if isinstance(status, int):
            return status == TOO_MANY_REQUESTS or status >= SERVER_ERRORS
        names = {kind.__name__ for kind in type(each).__mro__}
        if OFFLINE_BY_CHOICE in names:
            return False
        if NOT_IN_LOCAL_CACHE in names:
            return not _is_offline_by_choice()
        if names & LOST_CONNECTION:
            return True
    return False


def _is_offline_by_choice() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


class StageOutOfMemoryError(Exception):
    """A stage whose micro-batch was too large for the memory; `adaptation` tries it with a smaller one."""

    def __init__(self, stage: str, reason: str, batch: tuple[int, int]) -> None:
        """`batch` is micro-batch and accumulation, as they were."""
        super().__init__(f"{stage}: {reason}")
        self.stage, self.reason, self.batch = stage, reason, batch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of the accelerator or of the machine did not suffice."""
    import torch

    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or (isinstance(error, RuntimeError) and any(s in str(error) for s in OUT_OF_MEMORY))


def smaller_batch(batch_size: int, gradient_accumulation: int) -> tuple[int, int] | None:
    """Half the micro-batch (of an odd one the next share that is even) and as many more of them for the same step.

    Returns:
        Micro-batch and accumulation with the same product; None for a micro-batch of one sequence.
    """
    for divisor in range(2, batch_size + 1):
        if batch_size % divisor == 0:
            return batch_size // divisor, gradient_accumulation * divisor
    return None
