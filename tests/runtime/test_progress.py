import logging
import time

from revocab.runtime import progress


def test_a_heartbeat_is_heard_while_the_body_runs_and_not_after(caplog, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_BEATS", 0.05)
    with caplog.at_level(logging.INFO), progress.heartbeat("fastText"):
        deadline = time.monotonic() + 10
        while len(caplog.messages) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    heard = list(caplog.messages)
    assert len(heard) >= 2
    assert all(message.startswith("fastText: running for ") for message in heard)
    time.sleep(0.2)
    assert caplog.messages == heard


def test_short_work_says_nothing(caplog):
    with caplog.at_level(logging.INFO), progress.heartbeat("fastText"):
        pass
    assert not caplog.messages
