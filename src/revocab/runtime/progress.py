"""One progress bar for all steps: it shows itself once something takes longer than a few seconds."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm.auto import tqdm

SECONDS_BEFORE_SHOWN = 3.0
SECONDS_BETWEEN_LINES = 20.0  # in a log file every move of the bar is a line
LARGE = 100_000  # counts from here on are shown as 100k
Item = TypeVar("Item")


def track(items: Iterable[Item], description: str, *, total: int | None = None, unit: str = "it") -> Iterator[Item]:
    """Yield the items, with a bar on standard error after `SECONDS_BEFORE_SHOWN`."""
    yield from tqdm(items, **_look(description, total, unit))


def bar(description: str, *, total: int | None, unit: str) -> tqdm:
    """A bar to be moved by hand with `.update(n)`; use it as a context manager."""
    scale = total is None or total >= LARGE  # 3.2M of 80M tokens, but 3 of 20 steps
    return tqdm(unit_scale=scale, **_look(description, total, unit))


def _look(description: str, total: int | None, unit: str) -> dict[str, Any]:
    terminal = sys.stderr.isatty()
    return {
        "desc": description,
        "total": total,
        "unit": unit,
        "leave": False,
        "delay": SECONDS_BEFORE_SHOWN if terminal else SECONDS_BETWEEN_LINES,
        "mininterval": 0.1 if terminal else SECONDS_BETWEEN_LINES,
        "maxinterval": 10.0 if terminal else SECONDS_BETWEEN_LINES,
    }
