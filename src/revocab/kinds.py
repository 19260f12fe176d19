"""Compression and bits per byte by kinds of documents: journals, sources, or whatever a field of theirs says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from revocab.artifacts import TextScore

MOST = 12  # kinds of a data set that stand for themselves, those with the most documents; a picture holds no more
OTHERS = "others"  # the rest, and documents whose kind is unknown


def by_kind(
    kinds: Mapping[str, Sequence[str | None]], scores: Mapping[str, Mapping[str, TextScore]], target: str
) -> dict[str, dict[str, Any]]:
    """By data set and kind {documents, bytes, bytes_per_token, bpb}, the latter two {source, target}.

    A data set whose documents are of no or one kind is left out: there the whole set tells the same.

    Args:
        kinds: of each document, by data set.
        scores: by stage and data set, of the same documents; `source` is among the stages.
        target: the stage whose tokenizer and model are compared with those of `source`.
    """
    found = {}
    for name, of_documents in kinds.items():
        places = _places(of_documents)
        if len(places) > 1:
            found[name] = {
                kind: _row(scores["source"][name].of(where), scores[target][name].of(where))
                for kind, where in places.items()
            }
    return found


def _places(kinds: Sequence[str | None]) -> dict[str, list[int]]:
    """By kind the places of its documents, the most frequent kind first, those without one of their own last."""
    places: dict[str, list[int]] = {}
    for place, kind in enumerate(kinds):
        places.setdefault(kind or OTHERS, []).append(place)
    others = places.pop(OTHERS, [])
    frequent = sorted(places, key=lambda kind: (-len(places[kind]), kind))
    others += [place for kind in frequent[MOST:] for place in places[kind]]
    named = {kind: places[kind] for kind in frequent[:MOST]}
    return named | ({OTHERS: sorted(others)} if others else {})


def _row(source: TextScore, target: TextScore) -> dict[str, Any]:
    return {
        "documents": len(source.bytes),
        "bytes": int(source.bytes.sum()),
        "bytes_per_token": {"source": source.bytes_per_token, "target": target.bytes_per_token},
        "bpb": {"source": source.bits_per_byte, "target": target.bits_per_byte},
    }
