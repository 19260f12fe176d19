"""What the page draws of a job's held-out scores over text and time, of its kinds of documents and of its sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from revocab.reporting.jobs import Job, mapping, number

AXES = ("bytes", "seconds", "bpb")
DIGITS = 4  # of bits of a token: a picture shows no more


def learning_of(job: Job) -> dict[str, dict[str, Any]]:
    """By data set {source, adapted, source_cpt, met}: a number, curves as lists of {stage, step, bytes, seconds, bpb},
    and {steps, bytes, seconds} until the adapted model is as good as the source model, None where it never was.

    Of a job that has not ended it is what its metrics tell so far.
    """
    ended = mapping(job.summary.get("learning_curves"))
    if not ended:
        return _so_far(job.metrics)
    return {
        name: {
            "source": number(mapping(curves).get("source")),
            **{curve: _points(mapping(curves).get(curve)) for curve in ("adapted", "source_cpt")},
            "met": _met(mapping(curves)),
        }
        for name, curves in ended.items()
    }


def _so_far(metrics: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    before = {"bytes": 0.0, "seconds": 0.0}
    for stage in ("stage1", "stage2"):
        records = [record for record in metrics if record.get("stage") == stage]
        scored = [record for record in records if isinstance(record.get("bpb"), Mapping)]
        for record in scored:
            at = {key: before[key] + (number(record.get(key)) or 0.0) for key in before}
            for name, bpb in record["bpb"].items():
                point = {"stage": stage, "step": record["step"], **at, "bpb": bpb}
                curves = found.setdefault(str(name), {"source": None, "adapted": [], "source_cpt": [], "met": None})
                curves["adapted"].append(point)
        if scored:  # bytes stand on these lines only
            last = scored[-1]
            per_token = (number(last.get("bytes")) or 0.0) / (number(last.get("tokens")) or 1.0)
            before["bytes"] += per_token * (number(records[-1].get("tokens")) or 0.0)
            before["seconds"] += number(records[-1].get("seconds")) or 0.0
    return {name: curves | {"adapted": _points(curves["adapted"])} for name, curves in found.items()}


def _met(curves: Mapping[str, Any]) -> dict[str, float] | None:
    found = {what: number(curves.get(f"{what}_to_source")) for what in ("steps", "bytes", "seconds")}
    whole = {what: value for what, value in found.items() if value is not None}
    return whole if len(whole) == len(found) else None


def _points(value: Any) -> list[dict[str, Any]]:
    """The points that can be drawn."""
    points = [mapping(point) for point in value] if isinstance(value, list) else []
    return [point for point in points if all(number(point.get(axis)) is not None for axis in AXES)]


def kinds_of(job: Job) -> list[dict[str, Any]]:
    """Rows {dataset, kind, documents, source, target, bpb} of bytes per token; kind None for a whole data set."""
    rows = []
    for dataset in job.datasets:
        whole = {side: job.bytes_per_token(dataset, side) for side in ("source", "target")}
        bpb = {"source": job.bpb(dataset, "source"), "target": job.bpb(dataset, "final")}
        rows.append({"dataset": dataset, "kind": None, "documents": None, **whole, "bpb": bpb})
        for kind, row in mapping(mapping(job.summary.get("kinds")).get(dataset)).items():
            sizes, scores = mapping(mapping(row).get("bytes_per_token")), mapping(mapping(row).get("bpb"))
            rows.append(
                {
                    "dataset": dataset,
                    "kind": kind,
                    "documents": number(mapping(row).get("documents")),
                    **{side: number(sizes.get(side)) for side in ("source", "target")},
                    "bpb": {side: number(scores.get(side)) for side in ("source", "target")},
                }
            )
    return [row for row in rows if row["source"] is not None and row["target"] is not None]


def segments_of(job: Job, side: str) -> list[dict[str, Any]] | None:
    """Sentences of `source` or `adapted` as {dataset, tokens: [[text, bytes, bits, whole]]}; None where there are none.

    Shortened, since every job of a sweep brings its own.
    """
    sentences = job.segments.get(side)
    if not isinstance(sentences, list) or not sentences:
        return None
    return [
        {"dataset": sentence.get("dataset"), "tokens": [_token(mapping(token)) for token in sentence.get("tokens", [])]}
        for sentence in map(mapping, sentences)
    ]


def _token(token: Mapping[str, Any]) -> list[Any]:
    bits = number(token.get("bits"))
    rounded = None if bits is None else float(f"{bits:.{DIGITS}g}")
    return [str(token.get("text", "")), number(token.get("bytes")) or 0, rounded, bool(token.get("whole", True))]
