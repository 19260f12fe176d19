"""Curves, kinds and sentences as the page gets them, from jobs that ended, that run, and that left broken files."""

import json

import pytest

from revocab.reporting.jobs import read_job
from revocab.reporting.learning import kinds_of, learning_of, segments_of

POINT = {"stage": "init", "step": 0, "bytes": 0, "seconds": 0.0, "bpb": 2.0}


def change_summary(folder, **values):
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return read_job(folder)


def test_a_job_that_ended_has_its_curves(tmp_path, make_job):
    curves = {
        "source": 1.0, "adapted": [POINT], "source_cpt": [POINT, {"bpb": None}, 7], "documents": 8,
        "steps_to_source": 12, "bytes_to_source": 34, "seconds_to_source": 5.6,
    }  # fmt: skip
    job = change_summary(make_job(tmp_path / "a"), learning_curves={"bio": curves, "bad": 3})
    found = learning_of(job)
    assert found["bio"] == {
        "source": 1.0,
        "adapted": [POINT],
        "source_cpt": [POINT],
        "met": {"steps": 12, "bytes": 34, "seconds": 5.6},
    }
    assert found["bad"] == {"source": None, "adapted": [], "source_cpt": [], "met": None}


def test_a_job_that_runs_has_what_its_metrics_tell(tmp_path, make_job):
    folder = make_job(tmp_path / "a", summary=False, steps=0)
    lines = [
        {"stage": "stage1", "step": 1, "tokens": 10, "seconds": 1.0},
        {"stage": "stage1", "step": 2, "tokens": 20, "seconds": 2.0, "bytes": 80, "bpb": {"bio": 1.5}},
        {"stage": "stage1", "step": 3, "tokens": 30, "seconds": 3.0},
        {"stage": "stage2", "step": 2, "tokens": 20, "seconds": 5.0, "bytes": 80, "bpb": {"bio": 1.25}},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves = learning_of(read_job(folder))["bio"]
    assert [tuple(point.values()) for point in curves["adapted"]] == [
        ("stage1", 2, 80, 2.0, 1.5),
        ("stage2", 2, 120 + 80, 3.0 + 5.0, 1.25),
    ]
    assert (curves["source"], curves["met"]) == (None, None)


def test_kinds_stand_below_their_data_set(tmp_path, make_job):
    kind = {"documents": 3, "bytes_per_token": {"source": 3.0, "target": 4.0}, "bpb": {"source": 1.0, "target": 0.9}}
    job = change_summary(make_job(tmp_path / "a"), kinds={"bio.heldout": {"GO": kind, "broken": 1}})
    whole, part = kinds_of(job)
    assert (whole["kind"], whole["source"], whole["target"], whole["bpb"]["target"]) == (None, 3.41, 3.86, 0.88)
    assert part == {
        "dataset": "bio.heldout", "kind": "GO", "documents": 3, "source": 3.0, "target": 4.0,
        "bpb": {"source": 1.0, "target": 0.9},
    }  # fmt: skip


@pytest.mark.parametrize("content", [None, "{", "[]", '{"source": []}', '{"source": 3}'])
def test_without_sentences_there_are_none(tmp_path, make_job, content):
    folder = make_job(tmp_path / "a")
    if content is not None:
        (folder / "segments.json").write_text(content)
    assert segments_of(read_job(folder), "source") is None


def test_sentences_are_shortened(tmp_path, make_job):
    folder = make_job(tmp_path / "a")
    token = {"text": "E2", "bytes": 1, "whole": False, "bits": 1.23456789}
    sentence = {"dataset": "bio", "text": "x", "tokens": [token, {"text": "<"}]}
    (folder / "segments.json").write_text(json.dumps({"source": [sentence]}))
    assert segments_of(read_job(folder), "source") == [
        {"dataset": "bio", "tokens": [["E2", 1, 1.235, False], ["<", 0, None, True]]}
    ]
