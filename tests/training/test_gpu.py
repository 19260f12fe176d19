"""Stages on a CUDA device, and on two; left out where there is none. What the CPU can stand in for is tested there."""

import json
from dataclasses import replace

import pytest
import torch

from revocab.training import Hardware, train_stage, with_best_batch
from revocab.training import kernels as kernels_module
from revocab.training.module import StageModule

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
GPU = Hardware(accelerator="gpu", devices=1, strategy="auto", num_workers=0)
TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
# Without dropout of attention: a GPU draws other masks than a CPU, and a recorded graph others than plain code.
SIZES = {"hidden_size": 64, "intermediate_size": 128, "attention_dropout": 0.0}
RECORDED = "liger, CUDA graph"


@pytest.fixture
def train(make_model, corpus, tmp_path):
    """train(settings, hardware, name) gives the record, the lines of metrics.jsonl, and the trained model."""

    def run(chosen, hardware=GPU, name="job"):
        folder = tmp_path / name
        hardware = replace(hardware, scratch=folder / "scratch")
        model, record = train_stage(
            make_model(**SIZES),
            corpus,
            chosen,
            hardware,
            folder=folder / chosen.name,
            metrics_path=folder / "metrics.jsonl",
        )
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return record, lines, model

    return run


def assert_same_curve(lines, expected, rel):
    assert [line["step"] for line in lines] == [line["step"] for line in expected]
    for key in ("loss", "grad_norm"):
        assert [line[key] for line in lines] == pytest.approx([line[key] for line in expected], rel=rel), key


@pytest.mark.parametrize("kind", ["tables", "full", "lora", "lora_tables", "first_last"])
def test_fast_and_plain_path_agree(kind, train, settings):
    """In bfloat16, whose numbers are 1/256 apart; without dropout, which draws other masks in a recorded graph."""
    chosen = settings(kind=kind, name="stage2", bf16=True, gradient_accumulation=2)
    if chosen.lora:
        chosen = replace(chosen, lora=replace(chosen.lora, dropout=0.0))
    fast, lines, _ = train(chosen, name="fast")
    plain, expected, _ = train(chosen, replace(GPU, kernels="plain"), name="plain")
    assert (fast.kernels, plain.kernels) == (RECORDED, "plain")
    assert_same_curve(lines, expected, rel=0.05)
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in expected], rel=5e-3)


@pytest.mark.parametrize("kind", ["tables", "full", "lora"])
def test_a_gpu_trains_as_the_cpu_does(kind, train, settings, cpu):
    chosen = settings(kind=kind, name="stage2")
    if chosen.lora:
        chosen = replace(chosen, lora=replace(chosen.lora, dropout=0.0))
    _, lines, _ = train(chosen, replace(GPU, kernels="plain"), name="gpu")
    _, expected, _ = train(chosen, cpu, name="cpu")
    assert_same_curve(lines, expected, rel=1e-3)


@pytest.mark.parametrize("kind", ["tables", "lora", "full"])
def test_a_stage_that_was_stopped_ends_as_one_that_was_not(kind, train, settings, monkeypatch):
    """With dropout, accumulation and a recorded graph; atomic additions may differ in their order."""
    chosen = settings(kind=kind, name="stage2", bf16=True, gradient_accumulation=2, checkpoint_every=2)
    record, expected, model = train(chosen, name="whole")
    assert record.kernels == RECORDED
    original = StageModule.training_step
    stops = [7]

    def step(self, batch, batch_idx):
        if stops and batch_idx == stops[0]:
            raise KeyboardInterrupt(stops.pop())
        return original(self, batch, batch_idx)

    monkeypatch.setattr(StageModule, "training_step", step)
    with pytest.raises(KeyboardInterrupt):
        train(chosen, name="stopped")
    _, lines, other = train(chosen, name="stopped")
    assert_same_curve(lines, expected, rel=5e-3)
    for (name, value), (_, end) in zip(other.named_parameters(), model.named_parameters(), strict=True):
        torch.testing.assert_close(
            value.cpu(), end.cpu(), rtol=2e-2, atol=2e-3, msg=lambda text, name=name: name + text
        )


def test_a_graph_that_cannot_be_recorded_leaves_the_random_generator_usable(train, settings, monkeypatch):
    """The processor waits for a value inside of it; the dropout of the adapters then draws as without a recording."""
    original = kernels_module._Loss.forward

    def forward(self, ids):
        float(ids.sum())
        return original(self, ids)

    monkeypatch.setattr(kernels_module._Loss, "forward", forward)
    record, lines, _ = train(settings(kind="lora", name="stage2", bf16=True))
    assert record.kernels == "liger"
    assert len(lines) == 6
    assert torch.rand(4, device="cuda").isfinite().all()


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_recorded_step_that_is_not_finite_is_left_out(accumulation, train, settings, monkeypatch):
    original = StageModule.training_step

    def step(self, batch, batch_idx):
        loss = original(self, batch, batch_idx)
        return loss * float("nan") if batch_idx == 2 else loss

    monkeypatch.setattr(StageModule, "training_step", step)
    chosen = settings(kind="full", name="stage2", bf16=True, skip_nonfinite=True, gradient_accumulation=accumulation)
    record, lines, model = train(chosen, name="skipped")
    assert (record.kernels, record.skipped_steps) == (RECORDED, 1)
    skipped = [line["step"] for line in lines if line.get("skipped")]
    assert skipped == [2 // accumulation + 1]
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    _, expected, _ = train(chosen, replace(GPU, kernels="plain"), name="plain")
    assert_same_curve(*([line for line in each if line["step"] not in skipped] for each in (lines, expected)), rel=0.05)


@pytest.mark.parametrize("kind", ["tables", "lora"])
def test_8_bits_learn_what_bfloat16_learns(kind, train, settings):
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("no products in 8 bits")
    chosen = settings(kind=kind, name="stage2", bf16=True)
    if chosen.lora:
        chosen = replace(chosen, lora=replace(chosen.lora, dropout=0.0))
    _, expected, _ = train(chosen, name="bf16")
    _, lines, _ = train(replace(chosen, fp8=True), name="fp8")
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in expected], rel=2e-2)


@pytest.mark.parametrize("kind", ["tables", "lora"])
def test_micro_batches_are_found(kind, make_model, corpus, settings, tmp_path):
    model = make_model(**SIZES)
    chosen = settings(kind=kind, name="stage2", bf16=True, batch_size=1, gradient_accumulation=8)
    found, entry = with_best_batch(model, corpus, chosen, GPU, path=tmp_path / "batch_sizes.json")
    speeds = entry["tokens_per_second"]
    assert set(speeds) <= {"1", "2", "4", "8"}
    assert all(speeds.values())
    assert found.sequences_per_step == 8
    train_stage(model, corpus, found, GPU, folder=None, metrics_path=None)


@TWO_GPUS
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("kind", ["tables", "full", "lora"])
def test_two_gpus_train_as_one_does(strategy, kind, train, settings):
    chosen = settings(kind=kind, name="stage2", gradient_accumulation=4, gradient_clip=0.5)
    if chosen.lora:
        chosen = replace(chosen, lora=replace(chosen.lora, dropout=0.0))
    one, expected, _ = train(chosen, replace(GPU, kernels="plain"), name="one")
    two = replace(GPU, kernels="plain", devices=2, strategy=strategy)
    record, lines, _ = train(chosen, two, name="two")
    assert record.tokens == one.tokens
    assert_same_curve(lines, expected, rel=2e-3)
