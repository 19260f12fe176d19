"""Several sources as one stream, in proportion."""

from collections.abc import Iterator, Sequence


def in_proportion(
    streams: Sequence[Iterator[str]], weights: Sequence[float], taken_bytes: Sequence[int]
) -> Iterator[tuple[int, str]]:
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
        text = next(streams[number], None)
        if text is None:
            return
        yield number, text


def one_after_another(streams: Sequence[Iterator[str]]) -> Iterator[tuple[int, str]]:
    """(number of its stream, document) of all streams, in their order."""
    for number, stream in enumerate(streams):
        for text in stream:
            yield number, text
