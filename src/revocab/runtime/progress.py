"""One progress bar for all steps: it shows itself once something takes longer than a few seconds."""

import logging
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from tqdm.auto import tqdm

log = logging.getLogger(__name__)
SECONDS_BEFORE_SHOWN = 3.0
SECONDS_BETWEEN_LINES = 20.0  # in a log file every move of the bar is a line
SECONDS_BETWEEN_BEATS = 30.0
LARGE = 100_000  # counts from here on are shown as 100k
Item = TypeVar("Item")
_branch: ContextVar[str] = ContextVar("branch", default="")


def track(items: Iterable[Item], description: str, *, total: int | None = None, unit: str = "it") -> Iterator[Item]:
    """Yield the items, with a bar on standard error after `SECONDS_BEFORE_SHOWN`."""
    yield from tqdm(items, **_look(description, total, unit))


def bar(description: str, *, total: int | None, unit: str) -> tqdm:
    """A bar to be moved by hand with `.update(n)`; use it as a context manager."""
    scale = total is None or total >= LARGE  # 3.2M of 80M tokens, but 3 of 20 steps
    return tqdm(unit_scale=scale, **_look(description, total, unit))


@contextmanager
def named(branch: str) -> Generator[None]:
    """Bars of this thread say of which branch they are, for there may be the same one of another beside them."""
    token = _branch.set(f"{branch}: ")
    try:
        yield
    finally:
        _branch.reset(token)


@contextmanager
def heartbeat(description: str) -> Generator[None]:
    """Log every `SECONDS_BETWEEN_BEATS` that the body still runs: for one long call of a library, without steps."""
    began, over = time.monotonic(), threading.Event()

    def beat() -> None:
        while not over.wait(SECONDS_BETWEEN_BEATS):
            log.info("%s: running for %.0f s", description, time.monotonic() - began)

    thread = threading.Thread(target=beat, name=f"heartbeat of {description}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _look(description: str, total: int | None, unit: str) -> dict[str, Any]:
    terminal = sys.stderr.isatty()
    return {
        "desc": _branch.get() + description,
        "total": total,
        "unit": unit,
        "leave": False,
        "delay": SECONDS_BEFORE_SHOWN if terminal else SECONDS_BETWEEN_LINES,
        "mininterval": 0.1 if terminal else SECONDS_BETWEEN_LINES,
        "maxinterval": 10.0 if terminal else SECONDS_BETWEEN_LINES,
    }
