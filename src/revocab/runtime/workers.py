"""The same work on many items, in processes of this machine that end with the one that started them."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from revocab.errors import ResourceError
from revocab.runtime.cores import whole_machine
from revocab.runtime.progress import bar

_work: list[Callable[[Any], object]] = []  # of a worker process: what it does to every item


def for_each(
    work: Callable[[Any], object], items: Collection[Any], *, workers: int, threads: int, name: str, key: str
) -> None:
    """Call `work(item)` for every item, here one after another, or in `workers` processes side by side.

    Args:
        work: travels to each process once, so it must pickle; what it returns is thrown away.
        items: small, each travels to the process that takes it.
        workers: processes; 1 works in this one.
        threads: of the tokenizers library in each process.
        name: of the items, for the progress bar and messages, such as `shards`.
        key: config key of `workers`, for messages.

    Raises:
        ResourceError: a process was killed.
    """
    if workers == 1 or len(items) < 2:
        with bar(name, total=len(items), unit="shard") as done:
            for item in items:
                work(item)
                done.update()
        return
    with whole_machine():
        _in_processes(work, items, workers, threads, name, key)


def _in_processes(
    work: Callable[[Any], object], items: Collection[Any], workers: int, threads: int, name: str, key: str
) -> None:
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
    pool = ProcessPoolExecutor(min(workers, len(items)), context, initializer=_prepare, initargs=(work, threads))
    try:
        with bar(name, total=len(items), unit="shard") as done:
            for future in as_completed([pool.submit(_do, item) for item in items]):
                future.result()
                done.update()
    except BrokenProcessPool as error:
        raise ResourceError(
            f"A process that worked on {name} was killed (out of memory?). What is finished is kept: give the same "
            f"command again, with {key} below {workers}."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(work: Callable[[Any], object], threads: int) -> None:
    os.environ["RAYON_NUM_THREADS"] = str(threads)  # read when the tokenizers library starts its threads
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _work.append(work)


def _end_with_parent() -> None:
    """A process pool does not notice that the process that made it was killed; its workers would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(item: Any) -> None:
    _work[0](item)
