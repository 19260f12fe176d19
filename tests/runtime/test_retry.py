"""What is tried again and what is not; how often, and after how long."""

import logging
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from revocab.errors import ModelError
from revocab.runtime import retry
from revocab.runtime.retry import Retries, is_out_of_memory, is_transient, smaller_batch


class TransportError(Exception):
    """Named as the base of what httpx raises where the connection fails."""


class ReadTimeout(TransportError):  # noqa: N818, the name is not ours
    pass


class HTTPStatusError(Exception):
    def __init__(self, status):
        super().__init__(f"HTTP {status}")
        self.response = SimpleNamespace(status_code=status)


def behind(cause):
    """As the packages of the steps raise it: one line for the user, the cause behind it."""
    try:
        try:
            raise cause
        except Exception as error:
            raise OSError("We couldn't connect to load this file") from error
    except OSError as error:
        wrapped = ModelError("The model cannot be loaded.")
        wrapped.__cause__ = error
        return wrapped


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def naps(monkeypatch):
    slept = []
    monkeypatch.setattr(retry.time, "sleep", slept.append)
    return slept


TRANSIENT = [ConnectionResetError("reset"), TimeoutError("slow"), ReadTimeout("slow"), LocalEntryNotFoundError("none")]
DETERMINISTIC = [ValueError("bad name"), FileNotFoundError("no file"), OfflineModeIsEnabled("by choice")]


@pytest.mark.parametrize("error", [*TRANSIENT, *(HTTPStatusError(code) for code in (429, 500, 502, 503))])
def test_lost_connections_and_busy_servers_are_transient(error):
    assert is_transient(error)
    assert is_transient(behind(error))


@pytest.mark.parametrize("error", [*DETERMINISTIC, *(HTTPStatusError(code) for code in (400, 401, 403, 404))])
def test_wrong_names_and_missing_rights_are_not(error):
    assert not is_transient(error)
    assert not is_transient(behind(error))


def test_an_answer_counts_more_than_what_followed_from_it():
    error = HTTPStatusError(404)
    error.__cause__ = ConnectionError("closed after the answer")
    assert not is_transient(error)


def test_without_network_by_choice_nothing_is_transient(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not is_transient(behind(LocalEntryNotFoundError("not cached")))


def fails(times, error, calls):
    def read():
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "content"

    return read


def test_a_transient_error_is_retried_after_a_growing_pause_and_noted(naps, caplog):
    retries, calls = Retries(3, 5.0), []
    assert retries.download("model x", fails(3, behind(TimeoutError("slow")), calls)) == "content"
    assert (len(calls), naps) == (4, [5.0, 10.0, 20.0])
    expected = {"what": "model x", "reason": "The model cannot be loaded."}
    assert retries.noted == [{**expected, "seconds": seconds} for seconds in naps]
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said[0] == "model x: The model cannot be loaded. Trying again in 5 s (retry 1 of 3)."


def test_it_fails_with_its_own_error_once_the_retries_are_used_up(naps):
    calls = []
    with pytest.raises(TimeoutError, match="slow"):
        Retries(1, 5.0).download("model x", fails(9, TimeoutError("slow"), calls))
    assert (len(calls), naps) == (2, [5.0])


@pytest.mark.parametrize("error", DETERMINISTIC)
def test_a_deterministic_error_is_never_retried(error, naps):
    calls = []
    with pytest.raises(type(error)):
        Retries(5, 5.0).download("model x", fails(1, error, calls))
    assert (len(calls), naps) == (1, [])


def test_each_thing_has_its_own_retries(naps):
    retries = Retries(1, 1.0)
    for what in ("a", "b"):
        assert retries.download(what, fails(1, TimeoutError("slow"), [])) == "content"
    assert naps == [1.0, 1.0]


def test_what_counts_as_out_of_memory():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as caught:  # torch's own words
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"))
    assert is_out_of_memory(RuntimeError("Triton Error [CUDA]: out of memory"))
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_out_of_memory(ValueError("CUDA out of memory"))


@pytest.mark.parametrize(
    ("batch", "smaller"), [((4, 8), (2, 16)), ((2, 1), (1, 2)), ((9, 2), (3, 6)), ((7, 2), (1, 14)), ((1, 16), None)]
)
def test_a_smaller_micro_batch_gives_the_same_steps(batch, smaller):
    assert smaller_batch(*batch) == smaller
