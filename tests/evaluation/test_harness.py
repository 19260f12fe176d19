"""lm-evaluation-harness on a task made here: its own sums, our intervals, no network."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from revocab.errors import ConfigError, DataError, MissingDependencyError
from revocab.evaluation import harness_row, load_tasks, run_tasks
from revocab.evaluation.accuracy import paired_difference_of
from revocab.initialisation import load_model
from revocab.runtime.embedded import locate
from revocab.vocabulary import load_tokenizer

WHERE = locate("embedded:source_model", "models.source_model")
CHOICES = ["the liver", "the spleen", "the heart muscle"]
TASK = """\
task: organs
dataset_path: json
dataset_kwargs: {data_files: {test: organs.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: gold
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""


def result(scores, **others):
    return {"n": len(scores), "few_shot": 0, "metrics": {"acc": {"scores": scores, **others}}}


def test_a_share_has_wilsons_interval_and_a_paired_difference():
    first = result([1.0, 0.0, 0.0, 1.0], value=0.5, stderr=0.29)
    better = result([1.0, 1.0, 0.0, 1.0], value=0.75, stderr=0.25)
    row = harness_row(better, first)["metrics"]["acc"]
    assert (row["low"], row["high"]) == (pytest.approx(0.30064, abs=1e-5), pytest.approx(0.95441, abs=1e-5))
    expected = paired_difference_of(np.array([1, 1, 0, 1]), np.array([1, 0, 0, 1]))
    assert row["difference"] == expected
    assert "difference" not in harness_row(first, None)["metrics"]["acc"]


def test_other_scores_have_a_bootstrap_of_pairs():
    generator = np.random.default_rng(1)
    scores = generator.normal(0.3, 0.1, 200)
    row = harness_row(
        result((scores + 0.02).tolist(), value=0.32, stderr=0.01), result(scores.tolist(), value=0.3, stderr=0.01)
    )["metrics"]["acc"]
    assert (row["low"], row["high"]) == (pytest.approx(0.32 - 0.0196), pytest.approx(0.32 + 0.0196))
    assert [row["difference"][end] for end in ("value", "low", "high")] == pytest.approx([0.02] * 3)


def test_a_value_without_scores_or_error_stands_alone():
    found = {"value": 11.5, "stderr": None, "scores": None}
    row = harness_row({"n": 4, "few_shot": 0, "metrics": {"ppl": found}}, None)
    assert row["metrics"]["ppl"] == {"value": 11.5, "low": None, "high": None}


def test_without_the_package_a_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(MissingDependencyError, match=r"harness_tasks needs .* lm-eval.*revocab\[harness\]"):
        load_tasks(["organs"], None)


# --- with the harness itself


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("lm_eval")
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "organs.yaml").write_text(TASK)
    (folder / "broken.yaml").write_text(
        TASK.replace("task: organs", "task: broken").replace("organs.jsonl", "no.jsonl")
    )
    shots = TASK.replace("task: organs", "task: shots") + "num_fewshot: 2\nfewshot_split: test\n"
    (folder / "shots.yaml").write_text(shots)
    (folder / "both.yaml").write_text(
        "group: both\ntask: [organs, shots]\naggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    )
    items = [{"question": f"Which organ has number {n}?", "choices": CHOICES, "gold": n % 3} for n in range(9)]
    (folder / "organs.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


@pytest.fixture(scope="module")
def tasks(folder):
    return load_tasks(["organs"], folder)


def test_the_harness_finds_what_the_likelihoods_say(tasks, folder):
    model, tokenizer = load_model(WHERE), load_tokenizer(WHERE)
    pad = tokenizer.pad_token
    options = {"limit": 7, "batch_size": 4, "max_length": 512, "device": "cpu"}
    found = run_tasks(model, tokenizer, tasks["organs"], **options)["organs"]
    nats = np.array([[log_likelihood(model, tokenizer, n, choice) for choice in CHOICES] for n in range(7)])
    right = nats.argmax(axis=1) == np.arange(7) % 3
    by_length = (nats / [len(choice) for choice in CHOICES]).argmax(axis=1) == np.arange(7) % 3
    assert found["n"] == 7
    assert found["metrics"]["acc"]["scores"] == right.astype(float).tolist()
    assert found["metrics"]["acc"]["value"] == pytest.approx(right.mean())
    assert found["metrics"]["acc_norm"]["scores"] == by_length.astype(float).tolist()
    assert run_tasks(model, tokenizer, tasks["organs"], **options)["organs"] == found  # tasks can be used again
    assert tokenizer.pad_token == pad


def test_groups_and_few_shot_are_as_the_harness_has_them_by_itself(folder, monkeypatch):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model, tokenizer = load_model(WHERE), load_tokenizer(WHERE)
    mine = run_tasks(
        model, tokenizer, load_tasks(["both"], folder)["both"], limit=None, batch_size=4, max_length=512, device="cpu"
    )
    monkeypatch.chdir(folder)
    manager = TaskManager(include_path=folder, include_defaults=False)
    wrapped = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=4, max_length=512, device="cpu")
    theirs = simple_evaluate(wrapped, tasks=["both"], task_manager=manager)
    assert set(mine) == {"both", "organs", "shots"}
    for task, result in mine.items():
        assert result["metrics"]["acc"]["value"] == theirs["results"][task]["acc,none"]
    assert (mine["shots"]["few_shot"], mine["organs"]["few_shot"]) == (2, 0)
    assert mine["both"]["metrics"]["acc"]["scores"] is None


def log_likelihood(model, tokenizer, number, choice):
    """Of the answer's tokens behind the prompt, each read without marks: the embedded tokenizer adds none."""
    prompt = tokenizer.encode(f"Question: Which organ has number {number}?\nAnswer:")
    ids = tokenizer.encode(f"Question: Which organ has number {number}?\nAnswer: {choice}")
    with torch.no_grad():
        nats = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return math.fsum(float(nats[place - 1, ids[place]]) for place in range(len(prompt), len(ids)))


def test_unknown_and_unreadable_tasks_are_one_line(folder):
    with pytest.raises(ConfigError, match=r"evaluation.harness_tasks must be .* got 'organ'.* Near it: organs"):
        load_tasks(["organ"], folder)
    with pytest.raises(DataError, match=r"broken cannot be read: .*no.jsonl.*evaluation.harness_folder=FOLDER"):
        load_tasks(["broken"], Path(folder))
