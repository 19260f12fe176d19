"""Keeping Lightning's chatter off the terminal: one progress bar per stage, and warnings that mean something."""

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager

CHATTY = ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.rank_zero")
# Each is answered elsewhere: the number of workers and the accelerator are the user's choice, data positions are kept.
EXPECTED = (
    r".*does not have many workers.*",
    r".*GPU available but not used.*",
    r".*ended before the epoch ended and your dataloader is not resumable.*",
    r".*isinstance\(treespec, LeafSpec\).*",  # torch about Lightning's own code
    r".*`is_gradient_checkpointing` is deprecated.*",  # peft asks transformers by the old name
    r".*Found \d+ module\(s\) in eval mode at the start of training.*",
)


@contextmanager
def quiet_lightning() -> Generator[None]:
    """While the body runs, Lightning's information lines and the warnings above are not shown."""
    levels = {name: logging.getLogger(name).level for name in CHATTY}
    with warnings.catch_warnings():
        for message in EXPECTED:
            warnings.filterwarnings("ignore", message=message)
        try:
            for name in CHATTY:
                logging.getLogger(name).setLevel(logging.WARNING)
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
