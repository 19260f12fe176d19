"""A stage that one job trains and others take over: the same weights, lines and record, and nothing left behind."""

import json

import pytest
import torch

from revocab.runtime.cache import Cache
from revocab.training import shared_stage, train_stage
from revocab.training.metrics import StageMetrics


@pytest.fixture
def job(make_model, corpus, settings, cpu, tmp_path):
    """job(name): a job's stage 1 out of the cache; returns its weights, record and lines, and whether it trained."""
    cache, chosen = Cache(tmp_path / "cache"), settings(checkpoint_every=2, steps=6)

    def run(name):
        folder, metrics, trained = tmp_path / name / "stage1", tmp_path / name / "m.jsonl", []

        def train():
            return train_stage(make_model(), corpus, chosen, cpu, folder=folder, metrics_path=metrics)

        def build():
            trained.append(name)
            return train()[0]

        shared_stage(cache, {"key": 1}, stage="stage1", folder=folder, metrics_path=metrics, train=build)
        model, record = train()  # from the same start: read back
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        return {key: value.clone() for key, value in model.named_parameters()}, record, lines, bool(trained)

    return run


def same(first, second):
    assert first[0].keys() == second[0].keys()
    assert all(torch.equal(value, second[0][name]) for name, value in first[0].items())
    assert first[1:3] == second[1:3]


def test_the_second_job_takes_over_what_the_first_has_trained(job):
    first, second, again = job("a"), job("b"), job("b")
    assert [each[3] for each in (first, second, again)] == [True, False, False]
    same(first, second)
    same(first, again)
    assert [line["step"] for line in second[2]] == list(range(1, 7))


def test_a_job_that_was_stopped_takes_over_and_leaves_no_checkpoint(job, tmp_path, monkeypatch):
    original = StageMetrics.on_train_batch_end

    def stop(self, trainer, *others):
        original(self, trainer, *others)
        if trainer.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StageMetrics, "on_train_batch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            job("stopped")
    assert (tmp_path / "stopped" / "stage1" / "last.ckpt").exists()
    first, second = job("other"), job("stopped")
    assert (first[3], second[3]) == (True, False)
    same(first, second)
    assert not list((tmp_path / "stopped").rglob("*.ckpt"))
