import csv
import io
import statistics

import pytest

from revocab.reporting import collect
from revocab.reporting.settings import label_of, separating, show, varying
from revocab.reporting.table import TERMINAL_WIDTH, best_job, to_csv, to_markdown, to_terminal


def rows_of(jobs):
    return list(csv.DictReader(io.StringIO(to_csv(jobs))))


def test_csv_has_one_line_per_job_in_full_precision(sweep):
    text = to_csv(collect(sweep))
    assert len(text.splitlines()) == 1 + 4
    rows = {row["job"]: row for row in csv.DictReader(io.StringIO(text))}
    assert float(rows["b"]["bpb.bio.heldout.final"]) == 0.792
    assert float(rows["a"]["bytes_per_token.bio.heldout.target"]) == 3.86
    assert rows["b"]["vocab.lr_stage1"] == "2e-05"
    assert (rows["c"]["state"], rows["c"]["error"], rows["c"]["bpb.bio.heldout.final"]) == (
        "failed",
        "no space left",
        "",
    )
    assert rows["d"]["state"] == "interrupted"


def test_settings_show_only_what_differs_preset_first_seed_last(tmp_path, make_job):
    for number, (preset, rate, seed) in enumerate([("paper", 1e-3, 0), ("paper", 1e-4, 1), ("optimal", 1e-4, 2)]):
        labels = {"seed": seed, "vocab.shuffle": True, "vocab.lr_stage1": rate, "preset": preset}
        make_job(tmp_path / str(number), labels=labels, seed=seed)
    assert varying(collect(tmp_path)) == ["preset", "vocab.lr_stage1", "seed"]


def test_a_job_without_a_word_of_a_setting_differs_in_nothing(tmp_path, make_job):
    make_job(tmp_path / "a", labels={"vocab.extra": 1})
    make_job(tmp_path / "b")
    jobs = collect(tmp_path)
    assert varying(jobs) == []
    assert [label_of(job, varying(jobs)) for job in jobs] == ["a", "b"]


def test_equal_last_words_of_keys_are_told_apart(tmp_path, make_job):
    make_job(tmp_path / "a", labels={"embedding.window": 5, "vocab.window": 5})
    make_job(tmp_path / "b", labels={"embedding.window": 2, "vocab.window": 2})
    assert "| embedding.window | vocab.window |" in to_markdown(collect(tmp_path))


def test_separating_settings_are_as_few_as_tell_jobs_apart(tmp_path, make_job):
    for preset, rate, batch in (("paper", 1e-3, 2), ("research", 1e-3, 4), ("optimal", 1e-5, 4)):
        make_job(tmp_path / preset, labels={"preset": preset, "vocab.lr_stage1": rate, "vocab.batch_size": batch})
    jobs = collect(tmp_path)
    assert separating(jobs, varying(jobs)) == ["preset"]


def test_the_best_final_score_is_marked_once_per_data_set(sweep):
    jobs = collect(sweep)
    assert best_job(jobs, "bio.heldout").name == "b"
    assert to_markdown(jobs).count("**") == 2
    assert "**0.7920**" in to_markdown(jobs)
    assert "0.7920*" in to_terminal(jobs)
    assert to_terminal(jobs).count("*") == 2  # the mark and its explanation


def test_markdown_rows_have_the_cells_of_their_head(sweep):
    lines = [line for line in to_markdown(collect(sweep)).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1


def test_terminal_fits_and_aligns(tmp_path, make_job):
    for preset, rate in (("paper", 6.4e-4), ("research", 5e-4), ("optimal", 2e-5)):
        labels = {"preset": preset, "vocab.lr_stage1": rate, "vocab.train_start_idx_stage2": 1000 + len(preset)}
        make_job(tmp_path / preset, labels=labels | {"alignment.similarity_threshold": rate})
    lines = to_terminal(collect(tmp_path)).splitlines()
    assert max(map(len, lines)) <= TERMINAL_WIDTH
    assert lines[1].index("final") + len("final") == lines[3].index("0.8800") + len("0.8800*")


def test_every_data_set_has_its_block_and_every_failure_its_line(tmp_path, make_job):
    make_job(tmp_path / "a", datasets=("bio.heldout", "general"))
    make_job(tmp_path / "b", state="failed", error="boom", summary=False)
    text = to_terminal(collect(tmp_path))
    assert "on bio.heldout" in text
    assert "on general" in text
    assert "b failed: boom" in text


def test_a_sweep_without_any_score_still_has_tables(tmp_path, make_job):
    make_job(tmp_path / "a", state="failed", error="boom", summary=False)
    jobs = collect(tmp_path)
    assert "No job has a score yet" in to_terminal(jobs)
    assert "boom" in to_markdown(jobs)
    assert rows_of(jobs)[0]["error"] == "boom"


def test_a_probe_that_did_not_run_has_no_column(tmp_path, make_job):
    folder = make_job(tmp_path / "a")
    text = (folder / "summary.json").read_text().replace('"probe": 1.13', '"probe": null')
    (folder / "summary.json").write_text(text)
    assert "probe" not in to_terminal(collect(tmp_path))
    assert rows_of(collect(tmp_path))[0]["bpb.bio.heldout.probe"] == ""


def test_seeds_are_summed_up_by_mean_and_spread(tmp_path, make_job):
    qualities = {0: 1.0, 1: 1.02, 2: 0.97}
    for seed, quality in qualities.items():
        make_job(tmp_path / f"paper{seed}", seed=seed, quality=quality)
        make_job(tmp_path / f"best{seed}", labels={"preset": "best"}, seed=seed, quality=quality / 2)
    make_job(tmp_path / "failed", seed=3, state="failed", summary=False)
    finals = [0.88 * quality for quality in qualities.values()]
    expected = f"{statistics.fmean(finals):.4f} ± {statistics.stdev(finals):.4f}"
    for text in (to_markdown(collect(tmp_path)), to_terminal(collect(tmp_path))):
        assert "mean ± standard deviation over seeds" in text
        assert expected in text


@pytest.fixture
def answered(tmp_path, make_job):
    tasks = ("arc_easy", "medqa")
    make_job(tmp_path / "a", datasets=("general", "bio"), tasks=tasks)
    make_job(tmp_path / "b", datasets=("general", "bio"), tasks=tasks, labels={"preset": "best"}, quality=0.9)
    return collect(tmp_path)


def test_answers_stand_beside_bits_with_intervals_and_differences(answered):
    text = to_markdown(answered)
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    answers = ["## Right answers: medqa", "## Right answers: arc_easy (general)"]
    assert headings == ["## bio", "## general (general)", *answers]
    assert "what is lost there was forgotten" in text
    rows = text.split(answers[0])[1].split("##")[0].strip().splitlines()
    assert rows[0] == "| preset | source | final | final − source | questions |"
    assert rows[3] == "| best | 46.0% [39.0, 52.0] | 51.0% [44.0, 57.0] | +5.0 [-2.0, +8.1] | 200 |"
    assert "| final − source | coverage |" in text
    assert "| -0.2080 [-0.3000, +0.0100] |" in text  # 0.88 x 0.9 - 1
    lines = to_terminal(answered).split("Right answers on medqa (higher is better)\n")[1].splitlines()
    assert lines[3].split("  ")[0] == "best"
    assert "51.0% [44.0, 57.0]" in lines[3]


def test_answers_are_columns_of_the_csv(answered):
    row = rows_of(answered)[1]
    assert float(row["accuracy.medqa.final"]) == pytest.approx(0.51)
    assert float(row["accuracy.medqa.source.low"]) == pytest.approx(0.39)
    assert float(row["accuracy_difference.medqa.high"]) == pytest.approx(0.081)
    assert float(row["bpb_difference.bio.low"]) == pytest.approx(-0.3)


def test_one_seed_has_no_spread(sweep):
    assert "±" not in to_markdown(collect(sweep))


@pytest.mark.parametrize(
    ("value", "text"),
    [(2e-5, "2e-05"), (6.4e-4, "0.00064"), (True, "yes"), (False, "no"), (None, "none"), (["q", "v"], "q,v"), (3, "3")],
)
def test_show(value, text):
    assert show(value) == text
