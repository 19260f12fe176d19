"""The tables of docs/results.md are those of the stored summaries."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "results_page.py"


@pytest.fixture(scope="module")
def results_page():
    spec = importlib.util.spec_from_file_location("results_page", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_table_is_made_of_the_stored_summaries(results_page):
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert page.count("<!-- table ") == page.count("<!-- end -->") == len(results_page.TABLE.findall(page)) > 0
    assert results_page.render(page, ROOT) == page, "run: python scripts/results_page.py render docs/results.md"


def test_unusual_values_name_a_row_and_jobs_are_ranked(results_page, tmp_path):
    def job(final, **labels):
        facts = {"sweep": "one", "commit": "abc", "date": "2026-11-24", "device": "cpu"}
        return {**facts, "labels": {f"alignment.{key}": value for key, value in labels.items()}, "bpb": {"bio": final}}

    rows = [
        job({"source": 1.0, "final": 0.9}, method="random"),
        job({"source": 1.0, "final": 0.7}, method="mixed", top_k=10, similarity_threshold=0.4),
        job({"source": 1.0, "final": 0.8}, method="mixed", top_k=1, similarity_threshold=None),
    ]
    (tmp_path / "file.json").write_text(json.dumps(rows))
    keys = "alignment.method alignment.top_k=10 alignment.similarity_threshold=None"
    page = f"<!-- table file.json: {keys} | final | order=final -->\n<!-- end -->\n"
    assert results_page.render(page, tmp_path).splitlines()[1:6] == [
        "| method | after stage 2 |",
        "| --- | --- |",
        "| mixed, similarity threshold 0.4 | **0.7000 (0.700)** |",
        "| mixed, top k 1 | 0.8000 (0.800) |",
        "| random | 0.9000 (0.900) |",
    ]


def test_every_picture_is_made_of_the_stored_summaries(results_page, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import results_plot

    pictures = sorted((ROOT / "docs" / "results").glob("*.svg"))
    assert pictures
    for picture in pictures:
        made = results_plot.draw(json.loads(picture.with_suffix(".json").read_text()))
        assert made == picture.read_text(), f"run: python scripts/results_plot.py {picture.with_suffix('.json').name}"


def test_rows_columns_and_conditions(results_page, tmp_path):
    def job(rate, final, sweep):
        scores = {"bio": {"source": 1.0, "final": final}, "general": {"source": 2.0}}
        facts = {"sweep": sweep, "commit": "abc", "date": "2026-11-24", "device": "cpu"}
        return {**facts, "labels": {"vocab.lr_stage1": rate}, "bpb": scores, "stage1": {"seconds": 3.4}}

    rows = [job(2e-5, 0.9, "one"), job(2e-3, 0.75, "one"), job(1.0, 0.1, "other")]
    (tmp_path / "file.json").write_text(json.dumps(rows))
    page = "before\n<!-- table file.json: vocab.lr_stage1 | final seconds | sweep=one -->\nold\n<!-- end -->\nafter\n"
    lines = results_page.render(page, tmp_path).splitlines()
    assert lines[4:6] == [
        "| 2e-05 | 0.9000 (0.900) / – | 3 / – |",
        "| 0.002 | **0.7500 (0.750) / –** | 3 / – |",
    ]
    assert lines[7] == "bio / general; commit abc; device cpu; date 2026-11-24."
    assert (lines[0], lines[-1]) == ("before", "after")


def test_collect_adds_finished_jobs_and_replaces_those_of_the_same_run(results_page, tmp_path):
    job = tmp_path / "sweep" / "job-1"
    job.mkdir(parents=True)
    (job / "status.json").write_text(json.dumps({"state": "completed", "started": "2026-11-24T10:00:00+0000"}))
    into = tmp_path / "kept.json"
    for final in (0.9, 0.8):
        summary = {"run_id": "a1", "labels": {"seed": 0}, "bpb": {"bio": {"final": final}}, "perplexity": {"bio": {}}}
        (job / "summary.json").write_text(json.dumps(summary))
        results_page.collect_sweep(tmp_path / "sweep", into, "abc")
    (row,) = json.loads(into.read_text())
    assert row["bpb"]["bio"]["final"] == 0.8
    assert (row["sweep"], row["commit"], row["date"]) == ("sweep", "abc", "2026-11-24")
    assert "perplexity" not in row
