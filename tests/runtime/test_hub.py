"""Whether the Hub answers is known within seconds, whatever the network does."""

import threading
import time

import huggingface_hub
import pytest

from revocab.runtime import hub


class Session:
    def __init__(self, behaviour):
        self.head = behaviour


def refuse(*_args, **_options):
    raise ConnectionError("no route")


def hang(*_args, **_options):
    threading.Event().wait(30)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "SECONDS_TO_ANSWER", 0.2)
    hub.hub_reachable.cache_clear()
    yield
    hub.hub_reachable.cache_clear()


@pytest.mark.parametrize(("behaviour", "expected"), [(refuse, False), (hang, False), (lambda *_, **__: "200", True)])
def test_an_answer_counts_and_nothing_else(monkeypatch, behaviour, expected):
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: Session(behaviour))
    start = time.perf_counter()
    assert hub.hub_reachable() is expected
    assert time.perf_counter() - start < 2


def test_offline_mode_asks_nobody(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: pytest.fail("asked"))
    assert hub.hub_reachable() is False


@pytest.mark.parametrize(("behaviour", "offline"), [(refuse, True), (lambda *_, **__: "200", False)])
def test_the_client_is_told_that_it_is_offline(monkeypatch, behaviour, offline):
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: Session(behaviour))
    with hub.offline_if_unreachable():
        assert huggingface_hub.constants.HF_HUB_OFFLINE is offline
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False
