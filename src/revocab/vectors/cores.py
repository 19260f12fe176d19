"""How many CPU cores this process may use."""

import os


def available_cores() -> int:
    """Return the cores this process is allowed on; fewer than the machine has under a scheduler or a container."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
