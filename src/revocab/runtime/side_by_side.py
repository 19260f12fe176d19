"""Independent work at the same time, in threads of this process, where there are cores for it."""

import ctypes
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from threading import get_ident
from typing import Any

import torch

from revocab.runtime.cores import available_cores
from revocab.runtime.progress import named

FEW_CORES = 4  # up to here one branch uses them all, and two would only hold more memory


def side_by_side(branches: Mapping[str, Callable[[], Any]], *, at_once: bool | None = None) -> dict[str, Any]:
    """Call every branch and return what each returns; in threads, or one after another in their order.

    In threads every branch runs to its end, so that what it leaves in the cache stays whatever happens to another;
    then the error of the first one that failed, in their order, is raised as it is. Ctrl-C interrupts all of them.

    Args:
        branches: by name, which stands before their progress bars. They may share what none of them changes; a
            `cached_property` has no lock, so ask for a shared one before.
        at_once: in threads; null: on more than FEW_CORES cores.
    """
    if not (available_cores() > FEW_CORES if at_once is None else at_once):
        return {name: branch() for name, branch in branches.items()}
    running: dict[str, int] = {}

    def run(name: str) -> Any:
        running[name] = get_ident()
        try:
            with named(name):
                return branches[name]()
        finally:
            del running[name]

    # A new thread takes torch's number of threads from whoever set one last, maybe another branch in `few_threads`.
    same_threads = {"initializer": torch.set_num_threads, "initargs": (torch.get_num_threads(),)}
    with ThreadPoolExecutor(len(branches), thread_name_prefix="side_by_side", **same_threads) as pool:
        try:
            futures = {name: pool.submit(run, name) for name in branches}
            wait(futures.values())
        except KeyboardInterrupt:
            for thread in list(running.values()):
                _interrupt(thread)
            raise
    return {name: future.result() for name, future in futures.items()}


def _interrupt(thread: int) -> None:
    """Raise KeyboardInterrupt in a thread, once it is at a line of Python: only the main thread gets it by itself."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))
