"""The entry scripts as a user sees them: what a command prints, what it leaves, and what it says of bad input."""

import csv
import json
import os
import re
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from revocab import cli, pipeline, training
from revocab.runtime.embedded import ASSETS, locate
from revocab.training import stage as stage_module

SMALL = [  # two steps a stage, a few short documents: seconds, and every step of the pipeline runs
    "scale.step_factor=0.0008", "vocab.probe_steps=1", "vocab.max_seq_length=32", "vocab.gradient_accumulation=1",
    "evaluation.max_samples=3", "evaluation.max_characters=120", "evaluation.speed_bytes=8",
    "corpus.byte_budget=400000", "corpus.heldout_fraction=0.1", "vocab.bf16=false",
]  # fmt: skip


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One artifact cache for all tests: corpus, vectors and alignment are made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def command(tmp_path, monkeypatch, cache, capsys):
    """Run an entry script in an empty folder; returns (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(script, *arguments, logger="none"):
        task = {"train": pipeline.train, "align": pipeline.align, "evaluate": pipeline.evaluate}[script]
        multirun = [a for a in arguments if a == "-m"]
        rest = [a for a in arguments if a != "-m"]
        given = [*multirun, *SMALL, f"logger={logger}", f"paths.cache_dir={cache}", *rest]
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *given])
        with pytest.raises(SystemExit) as ended:
            cli.run(task)
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


def jobs(folder):
    return sorted(path for path in folder.iterdir() if (path / "status.json").exists())


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_sweep_of_two_learning_rates_leaves_two_jobs_and_one_table(command, tmp_path):
    code, out, err = command("train", "-m", "vocab.lr_stage1=2e-5,6.4e-4")
    assert code == 0, err
    (sweep,) = (tmp_path / "multirun").iterdir()
    assert sweep.name.startswith("sweep-")
    found = jobs(sweep)
    assert len(found) == 2
    for folder in found:
        summary = read(folder / "summary.json")
        assert folder.name.endswith(summary["run_id"])
        assert set(summary["bpb"]["heldout"]) == {"source", "init", "probe", "stage1", "final"}
        assert all(value > 0 for value in summary["bpb"]["heldout"].values())
        assert summary["scale"]["step_factor"] == 0.0008
        assert summary["stage1"]["steps"] == summary["stage2"]["steps"] == 2
        counts = summary["alignment"]
        total = counts["exact"] + counts["aligned"] + counts["fallback"] + counts["zero_initialised"]
        assert total == counts["target_tokens"]
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [(line["stage"], line["step"]) for line in lines] == [
            ("stage1", 1), ("stage1", 2), ("stage2", 1), ("stage2", 2),
        ]  # fmt: skip
        assert read(folder / "status.json")["state"] == "completed"
        assert (folder / "alignment_report.json").exists()
        assert (folder / "config.yaml").exists()
    rates = {read(folder / "summary.json")["labels"]["vocab.lr_stage1"] for folder in found}
    assert rates == {2e-5, 6.4e-4}
    assert len((sweep / "table.csv").read_text().splitlines()) == 3
    assert "report.html" in out
    for value in rates:
        assert f"{value:g}" in out


def test_jobs_that_differ_in_the_learning_rate_share_everything_before_it(command, tmp_path):
    command("train", "-m", "vocab.lr_stage1=2e-5,6.4e-4")
    first, second = (read(folder / "summary.json") for folder in jobs(next((tmp_path / "multirun").iterdir())))
    for stage in ("source", "init", "probe"):
        assert first["bpb"]["heldout"][stage] == second["bpb"]["heldout"][stage]
    assert first["bpb"]["heldout"]["stage1"] != second["bpb"]["heldout"]["stage1"]


def test_the_baseline_reads_as_many_bytes_and_is_trained_once_for_a_sweep(command, tmp_path, monkeypatch):
    trained = []
    original = training.train_stage

    def counted(model, tokens, settings, *arguments, **others):
        trained.append(settings.name)
        return original(model, tokens, settings, *arguments, **others)

    monkeypatch.setattr(training, "train_stage", counted)
    cache = tmp_path / "cache"
    write_questions(tmp_path / "parity.jsonl")
    words = ["baseline=source_cpt", "vocab.lr_stage1=2e-5,6.4e-4", f"paths.cache_dir={cache}"]
    words += ["evaluation.qa=true", "evaluation.tasks=[parity.jsonl]"]
    code, out, err = command("train", "-m", *words)
    assert code == 0, err
    assert [name for name in trained if name != "probe"] == ["stage1", "stage2", "source_cpt", "stage1", "stage2"]
    (sweep,) = (tmp_path / "multirun").iterdir()
    first, second = (read(folder / "summary.json") for folder in jobs(sweep))
    assert first["baseline"] == second["baseline"]
    assert first["bpb"]["heldout"]["source_cpt"] == second["bpb"]["heldout"]["source_cpt"]
    assert first["bpb"]["heldout"]["source_cpt"] != first["bpb"]["heldout"]["source"]
    assert first["perplexity"]["heldout"]["source_cpt"] > 1
    assert first["qa"]["parity"]["source_cpt_accuracy"] == second["qa"]["parity"]["source_cpt_accuracy"]
    assert set(first["bpb_difference"]["heldout"]) == {"final", "source_cpt"}
    record = first["baseline"]
    sizes = [read(path) for path in cache.glob("tokens/*/tokens.json")]
    counts = [len(np.memmap(path, "uint16", "r")) for path in cache.glob("tokens/*/tokens.bin")]
    source, target = sorted(size["text_bytes"] / count for size, count in zip(sizes, counts, strict=True))
    read_by_the_stages = (first["stage1"]["tokens"] + first["stage2"]["tokens"]) * target
    step = 4 * 32 * source  # bytes
    assert abs(record["bytes"] - read_by_the_stages) <= step / 2 + 1
    assert record["bytes"] == pytest.approx(record["tokens"] * source, abs=1)
    assert record["tokens"] == record["steps"] * 4 * 32
    assert record["kind"] == "full"
    assert record["trainable_parameters"] < first["stage2"]["trainable_parameters"]  # its vocabulary is smaller
    assert "source CPT" in out
    assert "| source CPT |" in (sweep / "table.md").read_text()
    assert "| source CPT − source |" in (sweep / "table.md").read_text().split("## Right answers: parity")[1]
    assert "bpb.heldout.source_cpt" in (sweep / "table.csv").read_text().splitlines()[0]
    assert "source CPT" in (sweep / "report.html").read_text()
    assert not list(sweep.glob("*/checkpoints/source_cpt"))


def test_the_baseline_of_adapters_is_trained_by_adapters(command, tmp_path):
    code, _, err = command("train", "baseline=source_cpt", "lora=r64", "vocab.lora_r=2")
    assert code == 0, err
    (folder,) = jobs(tmp_path / "outputs" / "train")
    summary = read(folder / "summary.json")
    assert summary["baseline"]["kind"] == "lora"
    assert summary["baseline"]["trainable_parameters"] == summary["stage2"]["trainable_parameters"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} == {"stage1", "stage2"}  # of the job's own training alone


@pytest.mark.slow
def test_jobs_on_two_devices_are_the_jobs_of_one(command, tmp_path):
    """By two processes of the CPU; the sweep is made once, and its jobs are those that one device would have run."""
    sweep = ["-m", "vocab.gradient_accumulation=2", "vocab.lr_stage1=2e-5,6.4e-4", "sweep_name=devices"]
    code, _, err = command("train", *sweep, "pipeline.run_root=one")
    assert code == 0, err
    code, out, err = command("train", *sweep, "trainer=ddp", "trainer.accelerator=cpu", "pipeline.run_root=two")
    assert code == 0, err
    assert out.count("Job ") == 2
    assert out.count("stage1: tables, 2 steps of 2 x 4 x 32 tokens, learning rate 2e-05, ddp on 2 devices") == 1
    ones, twos = (jobs(tmp_path / root / "multirun" / "devices") for root in ("one", "two"))
    assert [job.name for job in ones] == [job.name for job in twos]
    for one, two in zip(ones, twos, strict=True):
        expected, summary = read(one / "summary.json"), read(two / "summary.json")
        assert summary["run_id"] == expected["run_id"]
        for stage, value in expected["bpb"]["heldout"].items():
            assert summary["bpb"]["heldout"][stage] == pytest.approx(value, rel=1e-4)
        assert summary["stage2"]["tokens"] == expected["stage2"]["tokens"]
        assert len((two / "metrics.jsonl").read_text().splitlines()) == 4
        assert sorted(path.name for path in (two / "checkpoints").iterdir()) == ["stage1", "stage2"]
    code, out, _ = command("train", *sweep, "trainer=fsdp", "trainer.accelerator=cpu", "pipeline.run_root=one")
    assert code == 0
    assert out.count("finished already") == 2


def test_jobs_that_differ_in_stage_2_train_stage_1_once(command, tmp_path, monkeypatch):
    trained = []

    def fit(*arguments, data, **others):
        trained.append(data.settings.name)
        return original(*arguments, data=data, **others)

    original = stage_module.fit
    monkeypatch.setattr(stage_module, "fit", fit)
    command("train", "-m", "vocab.lr_stage2=1e-5,1e-4,5e-4", "vocab.probe_steps=0", "seed=11")
    assert sorted(trained) == ["stage1", "stage2", "stage2", "stage2"]
    (sweep,) = (tmp_path / "multirun").iterdir()
    summaries = [read(folder / "summary.json") for folder in jobs(sweep)]
    stage1 = [summary["bpb"]["heldout"]["stage1"] for summary in summaries]
    assert len(set(stage1)) == 1
    assert len({summary["bpb"]["heldout"]["final"] for summary in summaries}) == 3
    assert len({json.dumps(summary["stage1"]) for summary in summaries}) == 1
    for folder in jobs(sweep):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [(line["stage"], line["step"]) for line in lines] == [
            (stage, step) for stage in ("stage1", "stage2") for step in (1, 2)
        ]
    alone = ("vocab.lr_stage2=1e-4", "vocab.probe_steps=0", "seed=11", "vocab.share_stage1=false")
    assert command("train", *alone)[0] == 0
    (folder,) = (tmp_path / "outputs" / "train").iterdir()
    assert read(folder / "summary.json")["bpb"] in [summary["bpb"] for summary in summaries]


def test_a_job_may_end_with_stage_1(command, tmp_path):
    code, _, _ = command("train", "vocab.stage2_steps=0")
    assert code == 0
    (folder,) = (tmp_path / "outputs" / "train").iterdir()
    summary = read(folder / "summary.json")
    assert "stage2" not in summary
    for scores in summary["bpb"].values():
        assert scores["final"] == scores["stage1"] != scores["init"]


def test_the_same_command_again_touches_nothing_that_is_finished(command, tmp_path):
    command("train", "-m", "vocab.lr_stage1=2e-5,6.4e-4")
    (sweep,) = (tmp_path / "multirun").iterdir()
    before = {path: path.stat().st_mtime_ns for job in jobs(sweep) for path in job.rglob("*")}
    code, out, _ = command("train", "-m", "vocab.lr_stage1=2e-5,6.4e-4")
    assert code == 0
    assert out.count("finished already") == 2
    assert {path: path.stat().st_mtime_ns for job in jobs(sweep) for path in job.rglob("*")} == before


def test_a_job_of_an_experiment_is_reproduced_alone_by_its_own_command(command, tmp_path):
    words = ["experiment=comparison_table", "preset=paper,best"]
    code, _, err = command("train", "-m", *words)
    assert code == 0, err
    sweep = tmp_path / "multirun" / "comparison_table"
    table = (sweep / "table.csv").read_text()
    for job in jobs(sweep):
        own = shlex.split(yaml.safe_load((job / "config.yaml").read_text())["command"])
        code, _, err = command("train", *own[2:])
        assert code == 0, err
    alone = jobs(tmp_path / "outputs" / "train")
    assert {read(job / "summary.json")["run_id"] for job in alone} == {
        read(job / "summary.json")["run_id"] for job in jobs(sweep)
    }
    assert (sweep / "table.csv").read_text() == table


def test_a_failing_job_leaves_the_others_alone_and_is_told(command, tmp_path):
    """In its status, its W&B run, the table, and a last line with what failed and how to run it again."""
    words = ["-m", "lora=r64", "vocab.lora_target_modules=[q_proj],[nowhere]"]
    code, out, err = command("train", *words, logger="wandb_offline")
    assert code == 1
    assert "Traceback" not in err
    (sweep,) = (tmp_path / "multirun").iterdir()
    states = {read(job / "status.json")["state"]: job for job in jobs(sweep)}
    assert states.keys() == {"completed", "failed"}
    reason = read(states["failed"] / "status.json")["error"]
    assert "vocab.lora_target_modules" in reason
    assert "nowhere" in reason
    for state, exit_code in (("completed", 0), ("failed", 1)):
        (run,) = [path for path in (states[state] / "wandb").glob("offline-run-*") if path.is_dir()]
        assert leet(run)["exit_code"] == exit_code
    assert "failed" in out
    assert reason in " ".join((sweep / "table.md").read_text().split())
    assert [row["state"] for row in csv.DictReader((sweep / "table.csv").open())].count("failed") == 1
    last = err.splitlines()[-1]
    start = f"1 of 2 jobs did not finish; the same command reruns only them ({states['failed'].name}): "
    assert last.startswith(start + "python train.py -m ")
    again = shlex.split(last.removeprefix(start))
    assert words[-1] in again


def test_a_job_that_another_command_runs_in_the_same_sweep_is_no_failure(command, tmp_path):
    other = tmp_path / "multirun" / "shared" / "other-0123456789ab"
    other.mkdir(parents=True)
    running = {"state": "running", "error": None, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "pid": os.getpid()}
    (other / "status.json").write_text(json.dumps(running | {"host": socket.gethostname()}))
    code, out, err = command("train", "-m", "sweep_name=shared", "seed=0")
    assert code == 0, err
    assert "running" in out
    assert "did not finish" not in err


def test_seeds_are_an_axis_and_the_table_shows_mean_and_spread(command, tmp_path):
    code, out, err = command("train", "-m", "seed=0,1")
    assert code == 0, err
    (sweep,) = (tmp_path / "multirun").iterdir()
    scores = [read(job / "summary.json")["bpb"]["heldout"]["final"] for job in jobs(sweep)]
    assert {read(job / "summary.json")["seed"] for job in jobs(sweep)} == {0, 1}
    assert scores[0] != scores[1]
    expected = f"{statistics.fmean(scores):.4f} ± {statistics.stdev(scores):.4f}"
    for text in (out, (sweep / "table.md").read_text()):
        assert expected in text, text


def test_a_single_run_can_save_its_model_and_evaluate_scores_it_alike(command, tmp_path):
    code, _, err = command("train", "save_model=true")
    assert code == 0, err
    (folder,) = jobs(tmp_path / "outputs" / "train")
    final = read(folder / "summary.json")["bpb"]["heldout"]["final"]
    code, out, err = command("evaluate", f"evaluation.models=[{folder / 'model'}]")
    assert code == 0, err
    (scored,) = jobs(tmp_path / "outputs" / "evaluate")
    everything = read(scored / "scores.json")
    scores = everything["bpb"]["heldout"]
    first, second = scores.values()
    assert second["difference"]["value"] == pytest.approx(second["value"] - first["value"])
    assert set(everything["terms"]["heldout"]) == set(everything["speed"]) == set(scores)
    assert (scored / "scores.md").read_text().strip() in out
    assert scores[str(folder / "model")]["value"] == pytest.approx(final, abs=1e-6)
    for row in scores.values():
        assert row["low"] <= row["value"] <= row["high"]
        assert row["documents"] == 3


def test_adapters_with_their_tables_are_the_saved_model(command, tmp_path):
    """The lines of the card, run as they stand."""
    code, _, err = command("train", "lora=r64_tables", "save_model=true", "save_adapter=true")
    assert code == 0, err
    (folder,) = jobs(tmp_path / "outputs" / "train")
    card = (folder / "adapter" / "README.md").read_text()
    source = locate(
        yaml.safe_load((folder / "config.yaml").read_text())["models"]["source_model"], "models.source_model"
    )
    lines = card.split("```python\n")[1].split("```")[0].replace("FOLDER", str(folder / "adapter"))
    made: dict = {}
    exec(re.sub(r'from_pretrained\("[^"]*"', f'from_pretrained("{source}"', lines, count=1), made)
    saved = AutoModelForCausalLM.from_pretrained(folder / "model")
    ids = torch.arange(0, 6144, 100)[None]
    with torch.no_grad():
        expected = saved(input_ids=ids).logits
        torch.testing.assert_close(made["model"].eval()(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert len(made["tokenizer"]) == 6144
    final = read(folder / "summary.json")["bpb"]["heldout"]["final"]
    for name in ("model", "adapter"):
        text = (folder / name / "README.md").read_text()
        assert f"{final:.4f}" in text
        assert "lora_tables" in text
        assert (
            yaml.safe_load(text.split("---")[1])["library_name"] == {"model": "transformers", "adapter": "peft"}[name]
        )
    disk = read(folder / "summary.json")["disk"]
    assert disk["model"] > disk["adapter"] > 0


def test_align_reports_every_token(command, tmp_path):
    code, out, err = command("align", "alignment=exact")
    assert code == 0, err
    (folder,) = jobs(tmp_path / "outputs" / "align")
    report = read(folder / "alignment_report.json")
    assert report["exact"] + report["aligned"] + report["fallback"] + report["zero_initialised"] == 6144
    assert "coverage" in out
    (folder,) = jobs(tmp_path / "outputs" / "align")
    corpus = read(folder / "corpus.json")
    (source,) = corpus["sources"]
    assert corpus["counts"] == source["counts"]
    assert len(source["files"][0]["sha256"]) == 64


@pytest.mark.parametrize(
    "method", ["mixed", "procrustes", "subtoken", "tokalign_paper", "tokalign_code", "exact", "mean", "random"]
)
def test_every_alignment_method_aligns_the_embedded_pair(command, method):
    code, out, err = command("align", f"alignment={method}")
    assert code == 0, err
    assert "coverage" in out


def test_domain_terms_are_tokens_from_the_alignment_to_the_saved_model(command, tmp_path):
    code, _, err = command("train", "terms=tfidf", "term_mining.top_k=50", "save_model=true")
    assert code == 0, err
    (folder,) = jobs(tmp_path / "outputs" / "train")
    summary, report = read(folder / "summary.json"), read(folder / "alignment_report.json")
    terms = summary["terms"]
    assert terms["mined"] == terms["added"] == 50
    assert terms["already_single"] > 0
    assert terms["tokens_saved_per_term"] == terms["tokens_saved"] / 50
    after = summary["bytes_per_token"]["heldout"]["target"]
    assert after >= terms["bytes_per_token_before"]["heldout"]
    assert report["terms"] == terms
    assert summary["alignment"]["target_tokens"] == 6144 + 50
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert len(tokenizer) == model.config.vocab_size == 6144 + 50
    assert len(model.get_input_embeddings().weight) == len(model.get_output_embeddings().weight) == 6144 + 50
    for row in range(6144, 6144 + 50):
        text = f"(({tokenizer.convert_ids_to_tokens(row).replace('▁', ' ')}, which"
        assert row in tokenizer.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    code, _, err = command("evaluate", f"models.source_model={folder / 'model'}")
    assert code == 0, err
    (scored,) = jobs(tmp_path / "outputs" / "evaluate")
    value = read(scored / "scores.json")["bpb"]["heldout"][str(folder / "model")]["value"]
    assert value == pytest.approx(summary["bpb"]["heldout"]["final"], abs=1e-6)


def test_a_sweep_shows_which_job_has_domain_terms(command):
    code, out, err = command("train", "-m", "terms=none,tfidf", "term_mining.top_k=20", "vocab.enabled=false")
    assert code == 0, err
    assert "term_mining" in out


SECRETS = {  # what an environment may hold, and no file of a sweep may
    "WANDB_API_KEY": "0123456789abcdef" * 2 + "5ec3e75e",
    "WANDB_ENTITY": "the-secret-team",
    "WANDB_USERNAME": "the-secret-user",
    "WANDB_USER_EMAIL": "the-secret-user@example.org",
    "HF_TOKEN": "hf_thesecrettoken",
}


def test_wandb_gets_one_run_per_job_and_one_of_the_table_and_no_secret(command, tmp_path, monkeypatch):
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    wandb.teardown()  # it reads the environment once
    code, out, err = command("train", "-m", "vocab.lr_stage1=2e-5,6.4e-4", "vocab.enabled=true", logger="wandb_offline")
    assert code == 0, err
    (sweep,) = (tmp_path / "multirun").iterdir()
    assert f'Upload all runs: wandb sync --yes --entity "$WANDB_ENTITY" multirun/{sweep.name}/*/wandb\n' in out
    seen = set()
    for job in jobs(sweep):
        (run,) = [path for path in (job / "wandb").glob("offline-run-*") if path.is_dir()]
        facts = leet(run)
        seen.add(facts["config"]["vocab"]["lr_stage1"])
        assert facts["exit_code"] == 0
        summary = read(job / "summary.json")
        assert facts["summary"]["bpb/heldout/final"] == pytest.approx(summary["bpb"]["heldout"]["final"])
        failed = [check["name"] for check in summary["checks"] if not check["passed"]]
        assert facts["summary"]["checks_failed"] == len(failed)
    assert seen == {2e-5, 6.4e-4}
    (table,) = [path for path in (sweep / "table" / "wandb").glob("offline-run-*") if path.is_dir()]
    summary = leet(table)["summary"]
    assert summary["comparison"]["nrows"] == 2
    (cells,) = table.glob("files/media/table/comparison*.json")
    assert sorted(row[read(cells)["columns"].index("vocab.lr_stage1")] for row in read(cells)["data"]) == [2e-5, 6.4e-4]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"config.yaml", "multirun.yaml", "report.html"} < {path.name for path in files}
    for secret in SECRETS.values():
        assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_a_sweep_that_nobody_is_logged_in_for_is_refused_once_before_its_first_job(command, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    code, _, err = command("train", "-m", "vocab.lr_stage1=2e-5,6.4e-4", logger="wandb")
    assert code == 1
    assert err.startswith("Error: logger must be wandb_offline where nobody is logged in")
    assert err.count("wandb login") == len(err.splitlines()) == 1
    assert not list(tmp_path.rglob("status.json"))


def test_without_a_tracker_a_sweep_leaves_nothing_of_one(command, tmp_path):
    code, out, err = command("train", "-m", "vocab.lr_stage1=2e-5", "vocab.enabled=false")
    assert code == 0, err
    assert "Upload" not in out
    assert not list(tmp_path.rglob("wandb"))


def leet(run):
    """The run as W&B's own reader sees it."""
    reader = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--summary", "--json", str(run)]
    return json.loads(subprocess.run(reader, capture_output=True, text=True, check=True).stdout)


def write_questions(path, number=7):
    items = [
        {"question": f"Is {n} even?", "choices": ["yes", "no"], "gold": n % 2, "subject": "numbers"}
        for n in range(number)
    ]
    path.write_text("".join(json.dumps(item) + "\n" for item in items))


def test_questions_are_answered_before_and_after(command, tmp_path):
    write_questions(tmp_path / "parity.jsonl")
    asked = ["evaluation.qa=true", "evaluation.tasks=[parity.jsonl]", "evaluation.general=[parity]"]
    code, _, err = command("train", *asked, "save_model=true")
    assert code == 0, err
    (folder,) = jobs(tmp_path / "outputs" / "train")
    found = read(folder / "summary.json")["qa"]["parity"]
    assert found["n"] == 7
    assert found["chance"] == 0.5
    for key in ("accuracy", "source_accuracy"):
        assert 0 <= found[key] <= 1
    assert found["low"] < found["accuracy"] < found["high"] or found["accuracy"] in (0, 1)
    assert {"accuracy_per_byte", "accuracy_per_token", "source_low", "source_high"} <= set(found)
    assert found["difference"]["value"] == pytest.approx(found["accuracy"] - found["source_accuracy"])
    assert read(folder / "summary.json")["groups"] == {"heldout": "domain", "parity": "general"}
    bpb, change = (read(folder / "summary.json")[key]["heldout"] for key in ("bpb", "bpb_difference"))
    assert change["final"]["value"] == pytest.approx(bpb["final"] - bpb["source"])
    assert change["final"]["low"] < change["final"]["value"] < change["final"]["high"]
    code, out, err = command("evaluate", *asked, f"evaluation.models=[{folder / 'model'}]")
    assert code == 0, err
    assert "% right" in out
    (scored,) = jobs(tmp_path / "outputs" / "evaluate")
    scores = read(scored / "scores.json")["qa"]["parity"]
    assert scores["embedded:source_model"]["accuracy"] == found["source_accuracy"]
    assert scores[str(folder / "model")]["accuracy"] == found["accuracy"]
    assert scores[str(folder / "model")]["by_gold"]["yes"]["n"] == 4
    assert scores[str(folder / "model")]["difference"] == found["difference"]
    assert "| parity (general) " in out
    lines = [json.loads(line) for line in (scored / "answers.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * 7
    assert all(len(line["nats"]) == 2 and max(line["nats"]) < 0 for line in lines)
    assert all(line["gold"] == line["question"] % 2 for line in lines)


def test_questions_alone(command, tmp_path):
    (tmp_path / "qa").mkdir()
    for name in ("one", "two"):
        write_questions(tmp_path / "qa" / f"{name}.jsonl")
    words = ["evaluation=medical_qa", "evaluation.tasks=[qa]", "evaluation.qa_samples=3", "evaluation.qa_style=letters"]
    for script in ("train", "evaluate"):
        code, _, err = command(script, *words)
        assert code == 0, err
    (trained,), (scored,) = jobs(tmp_path / "outputs" / "train"), jobs(tmp_path / "outputs" / "evaluate")
    summary, scores = read(trained / "summary.json"), read(scored / "scores.json")
    assert summary["bpb"] == scores["bpb"] == {}
    assert {task: found["n"] for task, found in summary["qa"].items()} == {"one": 3, "two": 3}
    assert set(scores["qa"]["one"]["embedded:source_model"]["by_gold"]) <= {"A", "B"}


@pytest.mark.slow
def test_tasks_of_the_harness_compare_models(command, tmp_path):
    pytest.importorskip("lm_eval")
    code, _, err = command("train", "save_model=true")
    assert code == 0, err
    (trained,) = jobs(tmp_path / "outputs" / "train")
    (tmp_path / "own").mkdir()
    write_questions(tmp_path / "own" / "parity.jsonl", 9)
    (tmp_path / "own" / "parity.yaml").write_text(
        "task: parity\ndataset_path: json\ndataset_kwargs: {data_files: {test: parity.jsonl}}\ntest_split: test\n"
        "output_type: multiple_choice\ndoc_to_text: '{{question}}'\ndoc_to_choice: '{{choices}}'\ndoc_to_target: gold\n"
    )
    asked = ["evaluation.harness_tasks=[parity]", "evaluation.harness_folder=own", "evaluation.general=[parity]"]
    code, out, err = command("evaluate", *asked, f"evaluation.models=[{trained / 'model'}]")
    assert code == 0, err
    (scored,) = jobs(tmp_path / "outputs" / "evaluate")
    rows = read(scored / "scores.json")["harness"]["parity"]
    source, adapted = (row["metrics"]["acc"] for row in rows.values())
    assert adapted["difference"]["value"] == pytest.approx(adapted["value"] - source["value"])
    assert source["low"] < source["value"] < source["high"]
    assert rows["embedded:source_model"]["n"] == 9
    assert "| lm-eval: parity (general) " in out


BAD = {  # what a user got wrong: the command's words, and what the one line must name
    "no such model folder or network": (["models.source_model=no/such-model"], ["no/such-model"]),
    "no such tokenizer": (["models.target_tokenizer=no-such-folder"], ["no-such-folder"]),
    "no such embedded asset": (["models.source_model=embedded:nothing"], ["embedded:nothing", "embedded:source_model"]),
    "no corpus file": (["corpus=jsonl", "corpus.inputs=[missing.jsonl]"], ["missing.jsonl"]),
    "corpus below one batch": (["vocab.batch_size=4000", "vocab.max_seq_length=512"], ["tokens", "batch"]),
    "offset beyond the data": (
        ["scale.keep_offset_share=false", "vocab.train_start_idx_stage2=1000000"],
        ["vocab.train_start_idx_stage2", "1000000"],
    ),
    "offset beyond the data that it was written for": (
        ["vocab.train_start_idx_stage2=5000000"],
        ["vocab.train_start_idx_stage2", "5000000", "vocab.offset_corpus_documents"],
    ),
    "weights that are cut off": (["models.source_model=cut_off"], ["cut_off", "damaged or cut off"]),
    "a text file that is cut off": (["corpus=jsonl", "corpus.inputs=[cut_off.jsonl.zst]"], ["cut_off.jsonl.zst"]),
    "no such field": (["corpus=jsonl", "corpus.inputs=[c.jsonl]", "corpus.text_field=body"], ["c.jsonl", "body"]),
    "zero steps": (["vocab.stage1_steps=0"], ["vocab.stage1_steps"]),
    "a sequence longer than the model's positions": (["vocab.max_seq_length=4096"], ["vocab.max_seq_length", "512"]),
    "no such LoRA module": (["lora=r64", "vocab.lora_target_modules=[nope]"], ["vocab.lora_target_modules", "nope"]),
    "a GPU that is not there": (["trainer=gpu"], ["trainer.accelerator"]),
    "no such method": (["alignment.method=magic"], ["magic", "mixed"]),
    "no such data set": (["evaluation.datasets=[nowhere.jsonl]"], ["nowhere.jsonl"]),
    "questions without a task": (["evaluation.qa=true"], ["evaluation.tasks", "questions.jsonl"]),
    "questions of the Hub without network": (
        ["evaluation=medical_qa"],
        ["evaluation.tasks", "qiaojin/PubMedQA", "cannot be reached", ".jsonl]"],
    ),
    "no such task": (["evaluation.qa=true", "evaluation.tasks=[mmmlu]"], ["evaluation.tasks", "mmmlu", "mmlu_medical"]),
    "no such questions": (["evaluation.qa=true", "evaluation.tasks=[a/q.jsonl]"], ["a/q.jsonl"]),
    "text for questions": (["evaluation.qa=true", "evaluation.tasks=[c.jsonl]"], ["c.jsonl", "item 1", '"gold"']),
    "a task twice": (["evaluation.qa=true", "evaluation.tasks=[c.jsonl,a/c.jsonl]"], ["evaluation.tasks", "c"]),
    "a general set that is not there": (["evaluation.general=[wiki]"], ["evaluation.general", "wiki", "heldout"]),
    "outputs that cannot be written": (["pipeline.run_root=a/x.txt"], ["Cannot write to a/x.txt/outputs/train"]),
    "a cache that cannot be written": (["paths.cache_dir=a/x.txt"], ["Cannot write to a/x.txt"]),
    "text that is not UTF-8": (["corpus=jsonl", "corpus.inputs=[latin.txt]"], ["latin.txt", "UTF-8", "line 1"]),
    "an empty file": (["corpus=jsonl", "corpus.inputs=[empty.jsonl]"], ["empty.jsonl", "is empty"]),
    "a folder without text": (["corpus=jsonl", "corpus.inputs=[c]"], ["The folder c", "no text"]),
    "an evaluation set without text": (["evaluation.datasets=[empty.jsonl]"], ["empty.jsonl", "is empty"]),
    "a data set twice": (["evaluation.datasets=[a/x.txt,b/x.txt]"], ["evaluation.datasets", "x"]),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_is_answered_by_one_line(command, tmp_path, monkeypatch, mistake):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.txt").write_text("Some text.\n\nMore of it.\n")
    for place in ("c.jsonl", "a/c.jsonl"):
        (tmp_path / place).write_text('{"text": "No question."}\n')
    (tmp_path / "latin.txt").write_bytes("Käse und Brot.\n\nÖl.\n".encode("latin-1"))
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "x.pdf").touch()
    shutil.copytree(ASSETS / "source_model", tmp_path / "cut_off")
    (tmp_path / "cut_off" / "model.safetensors").write_bytes(b"\x80")
    (tmp_path / "cut_off.jsonl.zst").write_bytes((ASSETS / "sample.jsonl.zst").read_bytes()[:30_000])
    words, named = BAD[mistake]
    code, _, err = command("train", *words)
    assert code == 1
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, err
    for name in named:
        assert name in lines[0]
    assert not list(tmp_path.rglob("metrics.jsonl"))  # nothing was trained before it was said


def test_an_alignment_is_scored_on_held_out_text_and_other_text_makes_no_new_alignment(command, tmp_path, cache):
    arguments = ["alignment=procrustes", "embedding.dim=16"]
    assert command("align", *arguments, "paths.output_dir=one")[0] == 0
    one, made = read(tmp_path / "one" / "alignment_report.json"), sorted((cache / "alignment").iterdir())
    assert 0 < one["bleu1"] < 100
    assert 0 < one["bleu1_document_mean"] < 100
    assert one["semantic_score"] is None
    assert one["heldout_top1"] == one["heldout"]["top1"]
    assert one["mapped_text"]["target_tokens"] > one["mapped_text"]["misses"]
    assert command("align", *arguments, "paths.output_dir=two", "evaluation.max_samples=2")[0] == 0
    two = read(tmp_path / "two" / "alignment_report.json")
    assert two["mapped_text"]["documents"] == 2 < one["mapped_text"]["documents"] == 3
    assert sorted((cache / "alignment").iterdir()) == made


@pytest.mark.parametrize("method", ["subtoken", "exact"])
def test_the_same_tokenizer_on_both_sides_maps_every_text_to_itself(command, tmp_path, method):
    arguments = [f"alignment={method}", "models.target_tokenizer=embedded:source_model", "paths.output_dir=same"]
    assert command("align", *arguments)[0] == 0
    report = read(tmp_path / "same" / "alignment_report.json")
    assert report["bleu1"] == report["bleu1_document_mean"] == 100
    assert report["mapped_text"]["misses"] == 0


def test_glove_is_a_choice_like_any_other(command, tmp_path):
    glove = ["embedding=glove", "embedding.dim=8", "embedding.glove.iterations=2", "embedding.glove.window=3"]
    assert command("align", "alignment=tokalign_paper", *glove, "paths.output_dir=glove")[0] == 0
    assert read(tmp_path / "glove" / "alignment_report.json")["heldout"]["pairs"] > 0


def test_a_job_leaves_curves_kinds_and_sentences(command, tmp_path):
    """Scored on the way after every second of four steps, in both stages and in the baseline."""
    words = ["scale.step_factor=0.0016", "evaluation.every_steps=2", "evaluation.curve_samples=2"]
    code, _, err = command("train", "baseline=source_cpt", *words)
    assert code == 0, err
    (folder,) = jobs(tmp_path / "outputs" / "train")
    summary = read(folder / "summary.json")
    curves = summary["learning_curves"]["heldout"]
    assert curves["documents"] == 2
    assert [(point["stage"], point["step"]) for point in curves["adapted"]] == [
        ("init", 0), ("stage1", 2), ("stage1", 4), ("stage2", 2), ("stage2", 4),
    ]  # fmt: skip
    for name in ("adapted", "source_cpt"):
        for key in ("bytes", "seconds"):
            values = [point[key] for point in curves[name]]
            assert values == sorted(set(values)), (name, key)
    steps = summary["baseline"]["steps"]
    assert [point["step"] for point in curves["source_cpt"]] == [*range(0, steps, 2), steps]
    assert curves["source_cpt"][-1]["bytes"] == pytest.approx(curves["adapted"][-1]["bytes"], rel=0.1)
    assert "on_the_way" not in {**summary["stage1"], **summary["baseline"]}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    on_the_way = [(line["stage"], line["step"], line["bpb"]["heldout"]) for line in lines if "bpb" in line]
    assert on_the_way == [tuple(curves["adapted"][place][key] for key in ("stage", "step", "bpb")) for place in (1, 3)]
    kinds = summary["kinds"]["heldout"]
    assert sum(kind["documents"] for kind in kinds.values()) == 3  # evaluation.max_samples
    sentences = read(folder / "segments.json")
    assert [each["text"] for each in sentences["source"]] == [each["text"] for each in sentences["adapted"]]
    for each in [*sentences["source"], *sentences["adapted"]]:
        assert sum(token["bytes"] for token in each["tokens"]) == len(each["text"].encode())
        assert all(token["bits"] >= 0 for token in each["tokens"])
