"""One progress bar for all steps: it shows itself once something takes longer than a few seconds."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

SECONDS_BEFORE_SHOWN = 3.0
LARGE = 100_000  # counts from here on are shown as 100k
Item = TypeVar("Item")


def track(items: Iterable[Item], description: str, *, total: int | None = None, unit: str = "it") -> Iterator[Item]:
    """Yield the items, with a bar on standard error after `SECONDS_BEFORE_SHOWN`."""
    yield from tqdm(items, desc=description, total=total, unit=unit, delay=SECONDS_BEFORE_SHOWN, leave=False)


def bar(description: str, *, total: int | None, unit: str) -> tqdm:
    """A bar to be moved by hand with `.update(n)`; use it as a context manager."""
    scale = total is None or total >= LARGE  # 3.2M of 80M tokens, but 3 of 20 steps
    return tqdm(desc=description, total=total, unit=unit, unit_scale=scale, delay=SECONDS_BEFORE_SHOWN, leave=False)
