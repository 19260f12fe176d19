"""Cutting documents into windows that a model can read, and windows into batches of about equal length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Window:
    """Tokens [start, end) of one document go through the model; those from `first` on are scored."""

    document: int
    start: int
    end: int
    first: int  # start < first: every scored token stands behind at least one token of context

    def __len__(self) -> int:
        return self.end - self.start


def windows_of(document: int, length: int, max_length: int) -> Iterator[Window]:
    """Windows of at most `max_length` tokens that score each of the tokens 1 ... length - 1 exactly once.

    Token 0 is the prefix and only context. The first window scores all it holds; each later one repeats half a window
    (`max_length // 2` tokens) as context, so that no token but those of the first window is predicted from less.
    """
    end = min(length, max_length)
    if end > 1:
        yield Window(document=document, start=0, end=end, first=1)
    context = max_length // 2
    while end < length:
        first, end = end, min(length, end + max_length - context)
        yield Window(document=document, start=first - context, end=end, first=first)


def batches_of(windows: Sequence[Window], batch_tokens: int) -> Iterator[list[Window]]:
    """Batches that hold at most `batch_tokens` tokens once padded, at least one window each.

    Longest first: little padding, and memory that does not suffice shows in the first batch, not in the last.
    """
    batch: list[Window] = []
    for window in sorted(windows, key=len, reverse=True):
        if batch and len(batch[0]) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch
