"""Branches at the same time or one after another: what they return, how they fail, and that they leave no trace."""

import signal
import threading
import time

import pytest
import torch
from tqdm import tqdm

from revocab.runtime import progress, threads
from revocab.runtime import side_by_side as module
from revocab.runtime.cores import whole_machine
from revocab.runtime.side_by_side import FEW_CORES, side_by_side

WAY = pytest.mark.parametrize("at_once", [True, False])
PATIENCE = 20  # seconds, after which a test fails


@WAY
def test_each_branch_returns_under_its_name_in_their_order(at_once):
    made = side_by_side({"b": lambda: 1, "a": lambda: None, "c": lambda: [2]}, at_once=at_once)
    assert list(made.items()) == [("b", 1), ("a", None), ("c", [2])]


@pytest.mark.parametrize(("cores", "overlaps"), [(FEW_CORES, False), (FEW_CORES + 1, True)])
def test_many_cores_make_it_threads(monkeypatch, cores, overlaps):
    monkeypatch.setattr(module, "available_cores", lambda: cores)
    made = side_by_side({"a": threading.get_ident, "b": threading.get_ident})
    assert (threading.get_ident() not in made.values()) == overlaps


def test_branches_are_under_way_together():
    together = threading.Barrier(3)
    side_by_side(dict.fromkeys("abc", lambda: together.wait(PATIENCE)), at_once=True)


def test_the_error_of_the_first_that_failed_is_raised_as_it_is_and_the_others_end():
    errors, failed, ended = (KeyError("first"), ValueError("second")), threading.Event(), []

    def first():
        assert failed.wait(PATIENCE)
        raise errors[0]

    def second():
        failed.set()
        raise errors[1]

    def last():
        time.sleep(0.05)
        ended.append(True)

    with pytest.raises(KeyError) as caught:
        side_by_side({"first": first, "second": second, "last": last}, at_once=True)
    assert caught.value is errors[0]
    assert ended == [True]


def test_one_after_another_nothing_begins_behind_an_error():
    with pytest.raises(ZeroDivisionError):
        side_by_side({"a": lambda: 1 / 0, "b": lambda: pytest.fail("began")}, at_once=False)


def test_an_interrupt_ends_every_branch():
    begun, ended = threading.Event(), []

    def endless():
        begun.set()
        deadline = time.monotonic() + PATIENCE
        try:
            while time.monotonic() < deadline:
                time.sleep(0.01)
        except KeyboardInterrupt:
            ended.append(True)
            raise

    def interrupts():
        assert begun.wait(PATIENCE)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        side_by_side({"endless": endless, "interrupts": interrupts}, at_once=True)
    assert ended == [True]


def test_an_interrupt_leaves_the_whole_machine_to_whoever_comes_next():
    held = threading.Event()

    def holds():
        with whole_machine():
            held.set()
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                time.sleep(0.01)

    def waits():
        assert held.wait(PATIENCE)
        with whole_machine():
            pytest.fail("began")

    def interrupts():
        assert held.wait(PATIENCE)
        time.sleep(0.1)  # until `waits` does
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def enter():
        with whole_machine():
            entered.set()

    with pytest.raises(KeyboardInterrupt):
        side_by_side({"holds": holds, "waits": waits, "interrupts": interrupts}, at_once=True)
    entered = threading.Event()
    threading.Thread(target=enter, daemon=True).start()
    assert entered.wait(PATIENCE)


def test_few_threads_of_one_branch_are_not_those_of_another_and_end_with_it():
    own = torch.get_num_threads()
    inside, seen = threading.Barrier(2), []

    def few():
        with threads.few_threads():
            inside.wait(PATIENCE)
            inside.wait(PATIENCE)

    def many():
        inside.wait(PATIENCE)
        seen.append(torch.get_num_threads())
        with threads.few_threads():
            inside.wait(PATIENCE)
        seen.append(torch.get_num_threads())

    try:
        torch.set_num_threads(threads.FEW + 3)
        side_by_side({"few": few, "many": many}, at_once=True)
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert [*seen, torch.get_num_threads()] == [threads.FEW + 3] * 4
    finally:
        torch.set_num_threads(own)


def test_bars_of_branches_say_whose_they_are(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)

    def count():
        return list(progress.track(range(3), "counting"))

    side_by_side({"source": count, "target": count}, at_once=True)
    list(progress.track(range(3), "alone"))
    shown = capsys.readouterr().err
    assert "source: counting" in shown
    assert "target: counting" in shown
    assert ": alone" not in shown
    assert not tqdm._instances
