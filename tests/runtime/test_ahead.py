"""One item ahead, never more; order, errors and an early end as without threads."""

import time
from contextlib import closing

import pytest

from revocab.runtime.ahead import one_ahead


def test_items_come_in_order_and_false_ones_too():
    items = [3, None, 0, [], "x"]
    assert list(one_ahead(iter(items))) == items
    assert list(one_ahead(iter([]))) == []


def test_making_and_using_overlap_by_one_item():
    made = []

    def items():
        for number in range(4):
            made.append(number)
            yield number

    for number in one_ahead(items()):
        deadline = time.monotonic() + 5
        while len(made) < min(4, number + 2) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)  # time in which it must not go further
        assert made == list(range(min(4, number + 2)))


def test_an_error_comes_in_the_place_of_its_item():
    def items():
        yield 1
        raise KeyError("here")

    found = one_ahead(items())
    assert next(found) == 1
    with pytest.raises(KeyError, match="here"):
        next(found)


def test_closing_waits_for_the_item_that_is_being_made():
    finished = []

    def items():
        for number in range(9):
            time.sleep(0.05)
            finished.append(number)
            yield number

    with closing(one_ahead(items())) as found:
        assert next(found) == 0
    assert len(finished) in (1, 2)
    known = list(finished)
    time.sleep(0.15)
    assert finished == known
