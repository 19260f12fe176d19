"""How good a model is on held-out text after how much text and time, from what its stages have left.

Points on the way are those of `StageRecord.on_the_way`; where a stage begins and ends, the documents that are scored on
the way are a part of the scores that are made there anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from revocab.artifacts import StageRecord, TextScore

Point = dict[str, Any]  # stage, step (of that stage), bytes and seconds (since the first stage began), bpb
STAGES = {"stage1": "stage1", "stage2": "final"}  # by name of a stage: of the score at its end


def learning_curves(
    scores: Mapping[str, Mapping[str, TextScore]],
    records: Mapping[str, StageRecord],
    bytes_per_token: float,
    baseline: Mapping[str, Any],
    documents: int | None,
) -> dict[str, dict[str, Any]]:
    """By data set: the curves of the adapted model and of the baseline, and when the former meets the source model.

    Args:
        scores: by `source`, `init`, `stage1`, `final`, `source_cpt` (as far as there are), then by data set.
        records: of `stage1` and `stage2`, as far as they ran.
        bytes_per_token: of the corpus in the target vocabulary.
        baseline: record of `source_cpt` with its `bytes`; empty where there is none.
        documents: the first so many of each data set are what was scored on the way; None: all of them.

    Returns:
        {documents, source, adapted: [point], source_cpt: [point], steps_to_source, bytes_to_source, seconds_to_source}:
        `source` is the untouched source model's BPB; the last three are of the first point of `adapted` that is not
        above it, steps counted over both stages, None where there is no such point.
    """
    part = slice(documents)
    ends = {
        stage: {name: score.of(part).bits_per_byte for name, score in by_dataset.items()}
        for stage, by_dataset in scores.items()
    }
    found = {}
    for name, score in scores["source"].items():
        source = ends["source"][name]
        adapted = _adapted(name, ends, records, bytes_per_token)
        found[name] = {
            "documents": len(score.of(part).bytes),
            "source": source,
            "adapted": adapted,
            "source_cpt": _baseline(name, ends, baseline) if baseline else [],
            **_met(adapted, source, records),
        }
    return found


def _adapted(
    name: str, ends: Mapping[str, Mapping[str, float]], records: Mapping[str, StageRecord], bytes_per_token: float
) -> list[Point]:
    points = [_point("init", 0, 0, 0.0, ends["init"][name])]
    for stage, end in STAGES.items():
        if stage not in records:
            continue
        record, last = records[stage], points[-1]
        on_the_way = [
            _point(stage, at["step"], last["bytes"] + at["bytes"], last["seconds"] + at["seconds"], at["bpb"][name])
            for at in record.on_the_way
        ]
        read = last["bytes"] + round(record.tokens * bytes_per_token)
        points += [*on_the_way, _point(stage, record.steps, read, last["seconds"] + record.seconds, ends[end][name])]
    return points


def _baseline(name: str, ends: Mapping[str, Mapping[str, float]], record: Mapping[str, Any]) -> list[Point]:
    stage = "source_cpt"
    return [
        _point("source", 0, 0, 0.0, ends["source"][name]),
        *(_point(stage, at["step"], at["bytes"], at["seconds"], at["bpb"][name]) for at in record["on_the_way"]),
        _point(stage, record["steps"], record["bytes"], record["seconds"], ends[stage][name]),
    ]


def _point(stage: str, step: int, num_bytes: int, seconds: float, bpb: float) -> Point:
    return {"stage": stage, "step": step, "bytes": num_bytes, "seconds": round(seconds, 3), "bpb": bpb}


def _met(points: list[Point], source: float, records: Mapping[str, StageRecord]) -> dict[str, float | None]:
    first = next((point for point in points if point["bpb"] <= source), None)
    if first is None:
        return {"steps_to_source": None, "bytes_to_source": None, "seconds_to_source": None}
    before = records["stage1"].steps if first["stage"] == "stage2" else 0
    return {
        "steps_to_source": before + first["step"],
        "bytes_to_source": first["bytes"],
        "seconds_to_source": first["seconds"],
    }
