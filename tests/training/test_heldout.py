"""Scores on the way: on the right lines, of the right weights, outside of the clock, and without influence."""

import json
import time
from dataclasses import dataclass

import pytest
import torch

from revocab.training import HeldOut, train_stage
from revocab.training.metrics import StageMetrics

STEPS = 10


@dataclass
class Fingerprint:
    """A score that tells which weights it was computed of, and that tries to disturb."""

    seconds: float = 0.0
    seen: tuple = ()

    def __call__(self, model: torch.nn.Module, bf16: bool) -> dict[str, float]:
        time.sleep(self.seconds)
        self.seen = (*self.seen, bf16)
        weights = model.get_input_embeddings().weight
        return {"bio": float(weights.detach().double().abs().sum()), "general": 1.0}


def run(folder, model, corpus, settings, hardware, heldout, **others):
    return train_stage(
        model, corpus, settings, hardware, folder=folder / "stage", metrics_path=folder / "metrics.jsonl",
        heldout=heldout, **others,
    )  # fmt: skip


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_scores_stand_on_the_lines_of_their_steps(make_model, corpus, settings, cpu, tmp_path):
    chosen = settings(steps=STEPS, gradient_accumulation=2, log_every=4)
    _, record = run(tmp_path, make_model(), corpus, chosen, cpu, HeldOut(every=3, score=Fingerprint()))
    lines = lines_of(tmp_path)
    assert [line["step"] for line in lines] == [1, 3, 4, 6, 8, 9, 10]
    assert [line["step"] for line in lines if "bpb" in line] == [3, 6, 9]  # the last step is for others to score
    assert all(line["bytes"] == line["tokens"] * 4 for line in lines if "bpb" in line)  # the corpus has 4 a token
    assert record.on_the_way == [
        {key: line[key] for key in ("step", "bytes", "seconds", "bpb")} for line in lines if "bpb" in line
    ]


def test_a_score_is_of_the_weights_behind_its_step(make_model, corpus, settings, cpu, tmp_path):
    """A stage of as many steps, with the same learning rates, ends with the weights that were scored on the way."""
    chosen = settings(steps=4, warmup_share=0.0)
    score = Fingerprint()
    run(tmp_path, make_model(), corpus, chosen, cpu, HeldOut(every=3, score=score))
    (scored,) = [line["bpb"]["bio"] for line in lines_of(tmp_path) if "bpb" in line]
    seen = []
    original = StageMetrics.on_train_batch_end

    class Watching(StageMetrics):
        def on_train_batch_end(self, trainer, module, *others):
            seen.append(score(module.model, False)["bio"])
            original(self, trainer, module, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("revocab.training.stage.StageMetrics", Watching)
        train_stage(make_model(), corpus, chosen, cpu, folder=None, metrics_path=None)
    assert scored == seen[2]
    assert len(set(seen)) == 4


def test_scoring_changes_no_bit_and_is_not_counted_as_training(make_model, corpus, settings, cpu, tmp_path):
    """With dropout, which draws random numbers, and a score that takes far longer than the training."""
    chosen = settings(kind="lora", steps=STEPS)
    plain, record = run(tmp_path / "plain", make_model(), corpus, chosen, cpu, None)
    scored, other = run(
        tmp_path / "scored", make_model(), corpus, chosen, cpu, HeldOut(every=2, score=Fingerprint(seconds=0.3))
    )
    for (name, value), (_, expected) in zip(scored.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.equal(value, expected), name
    for line, expected in zip(lines_of(tmp_path / "scored"), lines_of(tmp_path / "plain"), strict=True):
        assert [line[key] for key in ("step", "loss", "grad_norm")] == [
            expected[key] for key in ("step", "loss", "grad_norm")
        ]
    assert other.seconds < record.seconds + 4 * 0.3 / 2  # four pauses of 0.3 s
    assert all(line["seconds"] <= other.seconds for line in lines_of(tmp_path / "scored"))


def test_a_stage_that_was_stopped_has_each_point_once(make_model, corpus, settings, cpu, tmp_path, monkeypatch):
    chosen, heldout = settings(steps=STEPS, checkpoint_every=4), HeldOut(every=2, score=Fingerprint())
    _, record = run(tmp_path / "whole", make_model(), corpus, chosen, cpu, heldout)
    original = StageMetrics.on_train_batch_end

    def stop(self, trainer, *others):
        original(self, trainer, *others)
        if trainer.global_step == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StageMetrics, "on_train_batch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", make_model(), corpus, chosen, cpu, heldout)
    _, resumed = run(tmp_path / "parts", make_model(), corpus, chosen, cpu, heldout)
    points = [[(point["step"], point["bpb"]) for point in each.on_the_way] for each in (record, resumed)]
    assert points[0] == points[1]
    assert [step for step, _ in points[1]] == [2, 4, 6, 8]
    assert [line["step"] for line in lines_of(tmp_path / "parts") if "bpb" in line] == [2, 4, 6, 8]
    _, read_back = run(tmp_path / "parts", make_model(), corpus, chosen, cpu, heldout)
    assert read_back == resumed


def test_loggers_get_one_number_a_key(make_model, corpus, settings, cpu, tmp_path):
    rows = {}

    class Recorder:
        def log_metrics(self, metrics, step):
            rows[step] = metrics

    score = Fingerprint()
    run(tmp_path, make_model(), corpus, settings(bf16=True), cpu, HeldOut(every=4, score=score), loggers=[Recorder()])
    assert rows[4]["stage1/bpb/general"] == 1.0
    assert rows[4]["stage1/bytes"] == 4 * 2 * 8 * 4
    assert score.seen == (True,)
