"""Several sources as one stream, in proportion."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Document = TypeVar("Document")


def in_proportion(
    streams: Sequence[Iterator[Document]], weights: Sequence[float], taken_bytes: Sequence[int]
) -> Iterator[tuple[int, Document]]:
    """(number of its stream, document): always of the stream that lacks most of its share of the bytes taken so far.

    It ends with the first stream that has no more, so that the shares hold to within one document wherever the result
    is cut. No chance is involved: equal inputs give equal streams.

    Args:
        streams: of documents.
        weights: share of each stream in bytes, up to a common factor; above 0.
        taken_bytes: what the caller kept of each stream; the caller brings it up to date before it asks for more.
    """
    while True:
        number = min(range(len(streams)), key=lambda each: (taken_bytes[each] / weights[each], each))
        document = next(streams[number], None)
        if document is None:
            return
        yield number, document


def one_after_another(streams: Sequence[Iterator[Document]]) -> Iterator[tuple[int, Document]]:
    """(number of its stream, document) of all streams, in their order."""
    for number, stream in enumerate(streams):
        for document in stream:
            yield number, document
