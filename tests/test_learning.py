"""Curves over text and time, and kinds of documents, against sums by hand."""

import numpy as np
import pytest

from revocab.artifacts import StageRecord, TextScore
from revocab.kinds import MOST, OTHERS, by_kind
from revocab.learning import learning_curves


def score(bits, sizes=(100, 100, 200), tokens=(20, 50, 50)):
    return TextScore(bits=np.array(bits, float), bytes=np.array(sizes), tokens=np.array(tokens))


def record(on_the_way, *, steps, tokens, seconds):
    return StageRecord(
        kind="tables", steps=steps, tokens=tokens, seconds=seconds, tokens_per_second=1.0, peak_memory_bytes=1,
        trainable_parameters=1, loss_first=1.0, loss_last=1.0, loss_max=1.0, grad_norm_max=1.0, spikes=0,
        on_the_way=on_the_way,
    )  # fmt: skip


SCORES = {
    "source": {"bio": score([100, 100, 900])},  # of the first two documents: 1 bit per byte
    "init": {"bio": score([300, 300, 0])},
    "stage1": {"bio": score([200, 200, 0])},
    "final": {"bio": score([90, 80, 0])},
}
RECORDS = {
    "stage1": record(
        [{"step": 5, "bytes": 4000, "seconds": 2.0, "bpb": {"bio": 2.5}}], steps=8, tokens=1600, seconds=4.0
    ),
    "stage2": record(
        [{"step": 5, "bytes": 4000, "seconds": 3.0, "bpb": {"bio": 1.0}}], steps=6, tokens=1200, seconds=5.0
    ),
}


def rows(points):
    return [tuple(point.values()) for point in points]


def test_bytes_and_seconds_go_on_from_stage_to_stage():
    curves = learning_curves(SCORES, RECORDS, 4.0, {}, documents=2)["bio"]
    assert rows(curves["adapted"]) == [
        ("init", 0, 0, 0.0, 3.0),
        ("stage1", 5, 4000, 2.0, 2.5),
        ("stage1", 8, 6400, 4.0, 2.0),
        ("stage2", 5, 10400, 7.0, 1.0),
        ("stage2", 6, 11200, 9.0, 0.85),
    ]
    assert (curves["documents"], curves["source"], curves["source_cpt"]) == (2, 1.0, [])
    met = [curves[f"{what}_to_source"] for what in ("steps", "bytes", "seconds")]
    assert met == [8 + 5, 10400, 7.0]  # equal counts as met


def test_without_documents_chosen_all_of_them_count_and_what_never_happens_is_none():
    curves = learning_curves(SCORES, {"stage1": RECORDS["stage1"]}, 4.0, {}, documents=None)["bio"]
    assert curves["documents"] == 3
    assert curves["source"] == pytest.approx(1100 / 400)
    assert curves["steps_to_source"] == 0  # of all documents, the initialised model is better at once
    never = SCORES | {"source": {"bio": score([1, 1, 1])}}
    curves = learning_curves(never, RECORDS, 4.0, {}, documents=2)["bio"]
    assert [curves[f"{what}_to_source"] for what in ("steps", "bytes", "seconds")] == [None, None, None]


def test_the_baseline_begins_with_the_source_model():
    baseline = {
        "steps": 9, "bytes": 900, "seconds": 3.0,
        "on_the_way": [{"step": 5, "bytes": 500, "seconds": 1.0, "bpb": {"bio": 0.9}}],
    }  # fmt: skip
    scores = SCORES | {"source_cpt": {"bio": score([80, 80, 0])}}
    curves = learning_curves(scores, RECORDS, 4.0, baseline, documents=2)["bio"]
    assert rows(curves["source_cpt"]) == [
        ("source", 0, 0, 0.0, 1.0),
        ("source_cpt", 5, 500, 1.0, 0.9),
        ("source_cpt", 9, 900, 3.0, 0.8),
    ]


def test_nothing_scored_gives_no_curves():
    assert learning_curves({"source": {}, "init": {}}, {}, 0.0, {}, documents=None) == {}


def test_kinds_add_up_to_the_documents_of_each():
    scores = {"source": {"bio": score([100, 100, 900])}, "final": {"bio": score([50, 60, 0], tokens=(10, 40, 30))}}
    found = by_kind({"bio": ["GO", None, "GO"]}, scores, "final")
    assert found == {
        "bio": {
            "GO": {
                "documents": 2,
                "bytes": 300,
                "bytes_per_token": {"source": 300 / 70, "target": 300 / 40},
                "bpb": {"source": 1000 / 300, "target": 50 / 300},
            },
            OTHERS: {
                "documents": 1,
                "bytes": 100,
                "bytes_per_token": {"source": 2.0, "target": 2.5},
                "bpb": {"source": 1.0, "target": 0.6},
            },
        }
    }
    assert by_kind({"bio": [None] * 3}, scores, "final") == by_kind({"bio": ["GO"] * 3}, scores, "final") == {}


def test_rare_kinds_are_put_together():
    kinds = [f"kind {number:02}" for number in range(MOST + 3)] + ["kind 14"]
    many = {"bio": score([1.0] * len(kinds), [10] * len(kinds), [5] * len(kinds))}
    rows = by_kind({"bio": kinds}, {"source": many, "final": many}, "final")["bio"]
    assert list(rows) == ["kind 14", *(f"kind {number:02}" for number in range(MOST - 1)), OTHERS]
    assert rows[OTHERS]["documents"] == 3
    assert sum(row["documents"] for row in rows.values()) == len(kinds)
