"""How many CPU cores this process may use, and which of its threads takes all of them."""

import os
import threading
from contextlib import AbstractContextManager

_whole_machine = threading.RLock()


def available_cores() -> int:
    """Return the cores this process is allowed on; fewer than the machine has under a scheduler or a container."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def whole_machine() -> AbstractContextManager[bool]:
    """One thread of this process at a time inside: for work that takes every core, or the GPU, and much memory alone.

    It also keeps the first decomposition on a GPU to one thread: torch loads its library for that without a lock
    (https://github.com/pytorch/pytorch/issues/90613). Ask for nothing of the cache inside that another thread may be
    making.
    """
    return _whole_machine  # as it is: a generator around it would keep it, interrupted between taking it and the body
