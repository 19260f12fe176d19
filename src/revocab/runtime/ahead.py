"""Work that overlaps: the next item is made while the last one is used."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def one_ahead(items: Iterator[Item]) -> Generator[Item]:
    """Yield the items, each made in a thread while the one before is used; memory holds two of them.

    It saves time where the making lets other threads run, as libraries do that are not Python. Items are made one after
    another and come in their order; what making one raises is raised in its place. Close the generator (or exhaust it)
    before what the items are made of is changed: it then waits for the one that is being made.
    """

    def take() -> list[Item]:
        return list(islice(items, 1))

    with ThreadPoolExecutor(1, thread_name_prefix="one_ahead") as pool:
        coming = pool.submit(take)
        while taken := coming.result():
            coming = pool.submit(take)
            yield taken.pop()
