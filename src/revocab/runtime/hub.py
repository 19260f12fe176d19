"""Whether the Hugging Face Hub can be reached, found out in seconds.

Without this question its client repeats every request for most of a minute before it gives up.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache

SECONDS_TO_ANSWER = 5.0


@cache
def hub_reachable() -> bool:
    """Ask the Hub for its front page once per process; False too where `HF_HUB_OFFLINE` is set.

    The client's own session asks, so proxies and a mirror named by `HF_ENDPOINT` count. It asks in a thread of its
    own: the look-up of a host name knows no time limit.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=SECONDS_TO_ANSWER)
        except Exception:  # whatever went wrong, by whichever HTTP client is installed: no answer came
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS_TO_ANSWER)
    return answered.is_set()


@contextmanager
def offline_if_unreachable() -> Generator[None]:
    """Where the Hub cannot be reached, its client is told so: it uses what it has, or fails at once."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = not hub_reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def why_unreachable() -> ConnectionError | None:
    """The cause of an error that says that the Hub is not reached; None where it is not by chance, but by choice."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return None
    return ConnectionError(f"{constants.ENDPOINT} gave no answer in {SECONDS_TO_ANSWER:g} s")
