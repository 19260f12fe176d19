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


@pytest.mark.parametrize("name", ["docs/results.md", "README.md"])
def test_every_table_is_made_of_the_stored_summaries(results_page, name):
    page = (ROOT / name).read_text(encoding="utf-8")
    tables, questions = results_page.TABLE.findall(page), results_page.QUESTIONS.findall(page)
    assert page.count("<!-- table ") == len(tables) > 0
    assert page.count("<!-- questions ") == len(questions)
    ranks = results_page.RANKS.findall(page)
    assert page.count("<!-- ranks ") == len(ranks)
    assert page.count("<!-- end -->") == len(tables) + len(questions) + len(ranks)
    assert results_page.render(page, ROOT) == page, f"run: python scripts/results_page.py render {name}"


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


def scored(seed, final, **others):
    facts = {"sweep": "one", "commit": "abc", "date": "2026-11-24", "device": "cpu", "run_id": f"{seed}{final}"}
    return (
        facts | {"labels": {"change": "paper", "seed": seed}, "bpb": {"bio": {"source": 2.0, "final": final}}} | others
    )


def rendered(results_page, folder, marker, rows):
    (folder / "file.json").write_text(json.dumps(rows))
    return results_page.render(f"<!-- {marker} -->\n<!-- end -->\n", folder).splitlines()[1:-1]


def test_seeds_share_a_row_by_mean_and_spread(results_page, tmp_path):
    rows = [scored(0, 0.9, stage1={"spikes": 1}), scored(1, 1.1, stage1={"spikes": 3})]
    lines = rendered(results_page, tmp_path, "table file.json: change | final spikes |", rows)
    assert lines[2] == "| paper | 1.0000 ± 0.1414 (0.500) | 2 ± 1 / – |"
    other = scored(0, 0.95) | {"labels": {"change": "batch", "seed": 0}}
    lines = rendered(results_page, tmp_path, "table file.json: change | final | order=final", [*rows, other])
    assert [line.split()[1] for line in lines[2:4]] == ["batch", "paper"], "ranked by the mean, not by the best seed"
    with pytest.raises(SystemExit, match="more than their seed"):
        rendered(results_page, tmp_path, "table file.json: change | final |", [*rows, scored(0, 0.7)])


def test_what_it_took_to_meet_the_source_model_and_how_far_the_baseline_is(results_page, tmp_path):
    row = scored(0, 0.9, learning_curves={"bio": {"steps_to_source": 250, "bytes_to_source": 12_340_000}})
    row["bpb"]["bio"]["source_cpt"] = 0.75
    marker = "table file.json: change | gap steps_to_source bytes_to_source seconds_to_source |"
    assert rendered(results_page, tmp_path, marker, [row])[2] == "| paper | +20.0% | 250 | 12.3 | – |"


def test_scores_on_the_way(results_page, tmp_path):
    points = [{"stage": "stage1", "step": 10, "bpb": 1.25}, {"stage": "stage2", "step": 10, "bpb": 0.5}]
    row = scored(0, 0.9, learning_curves={"bio": {"adapted": points}})
    lines = rendered(results_page, tmp_path, "table file.json: change | stage1@10 stage2@10 stage2@20 |", [row])
    assert lines[0] == "| change | stage 1, step 10 | stage 2, step 10 | stage 2, step 20 |"
    assert lines[2] == "| paper | 1.2500 | 0.5000 | – |"


def test_questions_have_a_row_each(results_page, tmp_path):
    def answers(right, change):
        facts = {"n": 200, "chance": 0.25, "source_accuracy": 0.5, "source_low": 0.43, "source_high": 0.57}
        difference = {"value": change, "low": change - 0.1, "high": change + 0.1}
        per_byte = {"source_accuracy_per_byte": 0.4, "accuracy_per_byte": right}
        return {"medqa": {**facts, **per_byte, "accuracy": right, "difference": difference}}

    rows = [scored(0, 0.9, qa=answers(0.48, -0.02)), scored(1, 0.9, qa=answers(0.44, -0.06))]
    lines = rendered(results_page, tmp_path, "questions file.json | sweep=one", rows)
    cells = ["medqa", "200", "25%", "50.0% (43.0% to 57.0%)", "46.0% ± 2.8%", "-4.0% ± 2.8% (-12.0% to +8.0%)"]
    cells.append("40.0% → 46.0% ± 2.8%")
    assert lines[2] == f"| {' | '.join(cells)} |"
    assert lines[4].startswith("2 jobs; bio; commit abc")


def test_ranks_are_correlated_over_all_rows_and_over_those_near_the_best(results_page, tmp_path):
    scores = {"a": (3.0, 1.0, 0.80), "b": (1.0, 2.0, 0.81), "c": (2.0, 3.0, 0.82), "far": (9.0, 9.0, 9.0)}
    rows = []
    for name, (init, probe, final) in scores.items():
        row = scored(0, final) | {"labels": {"change": name, "seed": 0}}
        row["bpb"]["bio"] |= {"init": init, "probe": probe}
        rows.append(row)
    lines = rendered(results_page, tmp_path, "ranks file.json: change | init probe final", rows)
    assert lines[0] == "| rank correlation with after stage 2 | init | probe |"
    # By hand, 1 - 6 sum(d^2) / (n (n^2 - 1)): differences of ranks of the init are 2, 1, 1 and, of the far one, 0.
    assert lines[2:] == ["| all 4 | 0.40 | 1.00 |", "| the 3 within 10% of the best | -0.50 | 1.00 |"]


def test_every_picture_is_made_of_the_stored_summaries(results_page, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import results_curves
    import results_plot

    pictures = sorted((ROOT / "docs" / "results").glob("*.svg"))
    assert pictures
    for picture in pictures:
        script = results_curves if picture.stem.endswith("_curves") else results_plot
        file = picture.with_name(f"{picture.stem.removesuffix('_curves')}.json")
        made = script.draw(json.loads(file.read_text()))
        assert made == picture.read_text(), f"run: python scripts/{script.__name__}.py {file.name}"


def test_curves_of_text_and_seconds(results_page, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import results_curves

    def point(num_bytes, seconds, bpb):
        return {"stage": "stage1", "step": 1, "bytes": num_bytes, "seconds": seconds, "bpb": bpb}

    adapted = [point(0, 0, 1.4), point(10**6, 1, 1.2), point(10**7, 10, 0.9)]
    baseline = [point(0, 0, 1.0), point(10**6, 2, 0.9), point(10**7, 20, 0.8)]
    curves = {"bio": {"source": 1.0, "adapted": adapted, "source_cpt": baseline}}
    labels = {"vocab.lr_stage1": 2e-3, "vocab.lr_stage2": 2e-4, "vocab.lr_tables": 1e-3}
    row = {"labels": labels, "stage1": {"steps": 200}, "stage2": {"steps": 800}, "learning_curves": curves}
    assert (
        results_curves.name_of({"labels": labels | {"vocab.lr_tables": None}, "stage1": {"steps": 9}})
        == "9 steps at 0.002"
    )
    drawn = results_curves.draw([row])
    assert "200 + 800 steps at 0.0002, tables 0.001" in drawn
    assert drawn.count("<polyline") == 2, "seconds of a job that shared its GPU are not shown"
    drawn = results_curves.draw([row | {"alone": True}])
    assert results_curves.draw([row, row | {"seed": 1}]) == results_curves.draw([row]), "the first of several seeds"
    points = [line.split('points="')[1].split('"')[0].split() for line in drawn.splitlines() if "<polyline" in line]
    assert [len(line) for line in points] == [2, 2, 2, 2]
    text, seconds = points[0], points[2]
    assert [each.split(",")[1] for each in text] == [each.split(",")[1] for each in seconds], "the same scores"
    assert float(text[0].split(",")[1]) < float(text[1].split(",")[1]), "lower scores are further down"


def test_rows_columns_and_conditions(results_page, tmp_path):
    def job(rate, final, sweep):
        scores = {"bio": {"source": 1.0, "final": final}, "general": {"source": 2.0}}
        facts = {"sweep": sweep, "commit": "abc", "date": "2026-11-24", "device": "cpu"}
        return {**facts, "labels": {"vocab.lr_stage1": rate}, "bpb": scores, "stage1": {"seconds": 3.4}}

    rows = [job(2e-3, 0.75, "one"), job(2e-5, 0.9, "one"), job(1.0, 0.1, "other")]
    (tmp_path / "file.json").write_text(json.dumps(rows))
    opening = "<!-- table file.json: vocab.lr_stage1 | final seconds | sweep=one by=vocab.lr_stage1 -->"
    page = f"before\n{opening}\nold\n<!-- end -->\nafter\n"
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
        labels = {
            "seed": 0,
            "models.target_tokenizer": str(tmp_path / "mistral_v3"),
            "models.source_model": "owner/name",
        }
        summary = {"run_id": "a1", "labels": labels, "bpb": {"bio": {"final": final}}, "perplexity": {"bio": {}}}
        (job / "summary.json").write_text(json.dumps(summary))
        results_page.collect_sweep(tmp_path / "sweep", into, "abc")
    (row,) = json.loads(into.read_text())
    assert row["bpb"]["bio"]["final"] == 0.8
    assert (row["sweep"], row["commit"], row["date"]) == ("sweep", "abc", "2026-11-24")
    assert row["labels"] == {"seed": 0, "models.target_tokenizer": "mistral_v3", "models.source_model": "owner/name"}
    assert "perplexity" not in row
