"""Whole stages on small models: what moves, what the numbers mean, what is refused."""

import errno
import json
import logging
import math
import time
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from revocab.errors import ConfigError, ModelError, ResourceError, TrainingError
from revocab.training import Hardware, kernels, train_stage
from revocab.training.loss import next_token_loss
from revocab.training.metrics import StageMetrics
from revocab.training.settings import KINDS


def state_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def run(model, corpus, settings, cpu, tmp_path=None, **changes):
    folder = tmp_path / settings.name if tmp_path else None
    metrics = tmp_path / "metrics.jsonl" if tmp_path else None
    return train_stage(model, corpus, settings, cpu, **({"folder": folder, "metrics_path": metrics} | changes))


def lines_of(tmp_path: Path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["Llama", "GPTNeoX", "Mistral", "Gemma3", "Qwen2"])
def test_tables_move_and_the_body_does_not(family, tied, make_model, corpus, settings, cpu):
    model = make_model(family, tied=tied)
    before = state_of(model)
    trained, record = run(model, corpus, settings(), cpu)
    tables = {id(trained.get_input_embeddings().weight), id(trained.get_output_embeddings().weight)}
    moved = {id(p) for name, p in trained.named_parameters() if not torch.equal(p, before[name])}
    assert moved == tables
    assert (trained.get_output_embeddings().weight is trained.get_input_embeddings().weight) is tied
    assert record.trainable_parameters == 29 * 8 * (1 if tied else 2)
    assert not trained.training
    assert all(parameter.grad is None for parameter in trained.parameters())


@pytest.mark.parametrize("tied", [False, True])
def test_lora_moves_the_body_and_not_the_tables(tied, make_model, corpus, settings, cpu):
    model = make_model(tied=tied)
    before = state_of(model)
    trained, _ = run(model, corpus, settings(kind="lora", name="stage2"), cpu)
    after = state_of(trained)
    assert list(after) == list(before)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {name for name in after if "proj" in name}


@pytest.mark.parametrize("tied", [False, True])
def test_adapters_and_tables_move_together(tied, make_model, corpus, settings, cpu):
    model = make_model(tied=tied)
    before = state_of(model)
    trained, record = run(model, corpus, settings(kind="lora_tables", name="stage2"), cpu)
    after = state_of(trained)
    assert list(after) == list(before)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {name for name in after if "norm" not in name}
    assert (trained.get_output_embeddings().weight is trained.get_input_embeddings().weight) is tied
    assert record.kind == "lora_tables"


def test_first_last_leaves_the_middle_alone(make_model, corpus, settings, cpu):
    model = make_model(layers=3)
    before = state_of(model)
    after = state_of(run(model, corpus, settings(kind="first_last", name="stage2"), cpu)[0])
    still = {name for name in after if torch.equal(after[name], before[name])}
    assert still == {name for name in after if "layers.1." in name or name == "model.norm.weight"}


def test_the_tables_rate_is_the_tables_alone(make_model, corpus, settings, cpu):
    """Without gradient to clip and at a rate of 0, tables stand still and all else moves as it would."""
    chosen = settings(kind="full", table_learning_rate=0.0, steps=1)
    model = make_model()
    before = state_of(model)
    after = state_of(run(model, corpus, chosen, cpu)[0])
    usual = state_of(run(make_model(), corpus, settings(kind="full", steps=1), cpu)[0])
    for name, value in after.items():
        assert torch.equal(
            value, before[name] if name in ("model.embed_tokens.weight", "lm_head.weight") else usual[name]
        )


def test_full_moves_everything(make_model, corpus, settings, cpu):
    model = make_model()
    before = state_of(model)
    trained, record = run(model, corpus, settings(kind="full"), cpu)
    assert all(not torch.equal(value, before[name]) for name, value in state_of(trained).items())
    assert record.trainable_parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_loss_falls_on_a_corpus_with_structure(kind, make_model, make_corpus, settings, cpu):
    corpus = make_corpus([16] * 40)
    corpus.tokens[:] = [1, 2, 3, 4] * 160
    chosen = settings(kind=kind, steps=40, learning_rate=3e-2, batch_size=4)
    _, record = run(make_model(), corpus, chosen, cpu)
    assert record.loss_last < record.loss_first - (0.02 if kind == "lora" else 0.5)


def test_plain_loop_gives_the_same_weights(make_model, corpus, settings, cpu):
    """The stage against AdamW, clipping and schedule written out, in file order and without dropout."""
    chosen = settings(kind="full", shuffle=False, gradient_clip=0.5, start_document=3)
    model = make_model()
    model.config.attention_dropout = 0.0
    reference = make_model()
    for module in [*model.modules(), *reference.modules()]:
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    decayed = [p for p in reference.parameters() if p.ndim > 1]
    others = [p for p in reference.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=1e-2)
    warmup = 2  # 0.2 of 6, rounded up
    stream = torch.from_numpy(corpus.tokens[30:].astype("int64"))
    for step in range(6):
        cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (6 - warmup)))
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * ((step + 1) / (warmup + 1) if step < warmup else cosine)
        ids = stream[step * 16 : step * 16 + 16].view(2, 8)
        optimiser.zero_grad()
        reference(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
        optimiser.step()
    trained, _ = run(model, corpus, chosen, cpu)
    for name, value in state_of(trained).items():
        torch.testing.assert_close(value, reference.get_parameter(name).detach(), rtol=1e-5, atol=1e-6)


def test_accumulation_equals_a_larger_batch(make_model, corpus, settings, cpu, tmp_path):
    results = []
    for name, batch_size, accumulation in (("wide", 4, 1), ("long", 1, 4)):
        model = make_model("Qwen2")
        for module in model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0
        chosen = settings(kind="full", batch_size=batch_size, gradient_accumulation=accumulation)
        trained, record = run(model, corpus, chosen, cpu, tmp_path / name)
        results.append((state_of(trained), record, lines_of(tmp_path / name)))
    (wide, record_wide, lines_wide), (long, record_long, lines_long) = results
    for name in wide:
        torch.testing.assert_close(wide[name], long[name], rtol=1e-4, atol=1e-5)
    assert record_wide.tokens == record_long.tokens == 6 * 4 * 8
    for one, other in zip(lines_wide, lines_long, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


def test_first_logged_loss_is_the_models_loss(make_model, corpus, settings, cpu, tmp_path):
    model = make_model("Gemma3")
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    ids = torch.from_numpy(corpus.tokens[:16].astype("int64")).view(2, 8)
    expected = next_token_loss(model, ids, 29).item()
    run(model, corpus, settings(shuffle=False), cpu, tmp_path)
    assert lines_of(tmp_path)[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_weight_decay_pulls_rows_that_never_occur(make_model, corpus, settings, cpu):
    """Row 28 occurs in no sequence, so as an input it shrinks by the product of 1 - lr * decay over the schedule."""
    corpus.tokens[corpus.tokens == 28] = 0
    model = make_model()
    before = model.get_input_embeddings().weight[28].detach().clone()
    trained, _ = run(model, corpus, settings(weight_decay=0.5, learning_rate=0.1), cpu)
    rates = [0.1 * factor for factor in (1 / 3, 2 / 3, *(0.5 + 0.5 * math.cos(math.pi * k / 4) for k in range(4)))]
    shrunk = before * math.prod(1 - rate * 0.5 for rate in rates)
    torch.testing.assert_close(trained.get_input_embeddings().weight[28].detach(), shrunk)


def test_same_seed_same_result_and_the_global_generator_is_left_alone(make_model, corpus, settings, cpu):
    chosen = settings(kind="lora")
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, _ = run(make_model(), corpus, chosen, cpu)
    assert torch.equal(torch.rand(1), expected)
    second, _ = run(make_model(), corpus, chosen, cpu)
    other, _ = run(make_model(), corpus, settings(kind="lora", seed=6), cpu)
    assert all(torch.equal(value, state_of(second)[name]) for name, value in state_of(first).items())
    assert not all(torch.equal(value, state_of(other)[name]) for name, value in state_of(first).items())


def test_workers_read_the_same_data(make_model, corpus, settings, cpu):
    with_workers = Hardware(accelerator="cpu", devices=1, strategy="auto", num_workers=1)
    first, _ = run(make_model(), corpus, settings(), cpu)
    second, _ = run(make_model(), corpus, settings(), with_workers)
    assert all(torch.equal(value, state_of(second)[name]) for name, value in state_of(first).items())


@pytest.mark.parametrize("kind", ["tables", "lora"])
def test_bf16_computes_and_keeps_float32_weights(kind, make_model, corpus, settings, cpu):
    chosen = settings(kind=kind, bf16=True)
    trained, record = run(make_model(), corpus, chosen, cpu)
    assert {p.dtype for p in trained.parameters()} == {torch.float32}
    _, exact_record = run(make_model(), corpus, settings(kind=kind), cpu)
    assert record.loss_first == pytest.approx(exact_record.loss_first, rel=1e-2)
    assert record.loss_first != exact_record.loss_first


@pytest.mark.parametrize("kind", ["tables", "lora"])
def test_gradient_checkpointing_changes_nothing(kind, make_model, corpus, settings, cpu):
    plain, _ = run(make_model(), corpus, settings(kind=kind), cpu)
    saved, _ = run(make_model(), corpus, settings(kind=kind, gradient_checkpointing=True), cpu)
    for name, value in state_of(plain).items():
        torch.testing.assert_close(state_of(saved)[name], value, rtol=1e-5, atol=1e-6)


def test_loss_that_is_not_finite_stops_with_a_reason(make_model, corpus, settings, cpu, tmp_path):
    model = make_model()
    model.get_input_embeddings().weight.data[:] = float("inf")
    with pytest.raises(TrainingError, match=r"stage1: the loss became nan in step 1 of 6.*Lower vocab\.lr_stage1"):
        run(model, corpus, settings(checkpoint_every=1), cpu, tmp_path)
    assert not (tmp_path / "stage1" / "last.ckpt").exists()
    assert not (tmp_path / "stage1" / "trained.safetensors").exists()


@pytest.fixture
def broken_steps(monkeypatch):
    """broken_steps(where, *numbers): the loss or the gradients of these optimiser steps are not finite."""

    def arm(where: str, *numbers: int) -> None:
        original = kernels.next_token_loss

        def loss_of(model, ids, vocabulary_size):
            loss = original(model, ids, vocabulary_size)
            calls.append(loss)
            if len(calls) not in numbers:
                return loss
            if where == "loss":
                return loss + float("inf")  # its gradient is finite
            return loss + _NanGradient.apply(loss)

        calls: list[torch.Tensor] = []
        monkeypatch.setattr(kernels, "next_token_loss", loss_of)

    return arm


class _NanGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return torch.zeros_like(value)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_torch_fused", "adamw_8bit"])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_left_out(
    where, optimizer, make_model, corpus, settings, cpu, tmp_path, broken_steps, caplog
):
    """The weights are those of a run whose optimiser did not see the step; the schedule goes on."""
    if optimizer == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    broken_steps(where, 6)
    chosen = settings(kind="full", skip_nonfinite=True, optimizer=optimizer, log_every=4)
    trained, record = run(make_model(), corpus, chosen, cpu, tmp_path)
    assert record.skipped_steps == 1
    assert math.isfinite(record.loss_last)
    assert "in step 6, which is skipped" in caplog.text
    last = lines_of(tmp_path)[-1]
    assert (last["step"], last["skipped"]) == (6, True)
    assert (last["loss"] is None, last["grad_norm"] is None) == (where == "loss", where == "gradient")
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 4, 6]

    monkeypatch = pytest.MonkeyPatch()  # the same five steps, then nothing
    monkeypatch.setattr(torch.optim.lr_scheduler.LambdaLR, "step", _stop_rate_at(5))
    broken_steps("loss")
    reference, _ = run(make_model(), corpus, settings(kind="full", optimizer=optimizer), cpu)
    monkeypatch.undo()
    for name, value in state_of(trained).items():
        assert torch.equal(value, state_of(reference)[name]), name


def _stop_rate_at(steps: int):
    original = torch.optim.lr_scheduler.LambdaLR.step

    def step(self, *arguments):
        original(self, *arguments)
        if self.last_epoch >= steps:
            for group in self.optimizer.param_groups:
                group["lr"] = 0.0

    return step


def test_a_skipped_step_in_the_middle_leaves_a_model_that_goes_on(
    make_model, corpus, settings, cpu, tmp_path, broken_steps
):
    broken_steps("gradient", 2, 3)
    chosen = settings(skip_nonfinite=True, gradient_accumulation=1)
    trained, record = run(make_model(), corpus, chosen, cpu, tmp_path)
    assert record.skipped_steps == 2
    assert record.spikes == 0  # their losses were finite
    assert all(bool(p.isfinite().all()) for p in trained.parameters())
    assert [line["step"] for line in lines_of(tmp_path) if line.get("skipped")] == [2, 3]


def test_steps_that_are_skipped_without_end_stop_the_job(make_model, corpus, settings, cpu, tmp_path):
    model = make_model()
    model.get_input_embeddings().weight.data[:] = float("inf")
    with pytest.raises(
        TrainingError, match=r"loss became nan \(as in the 10 steps before, which were skipped\) in step 11"
    ):
        run(model, corpus, settings(skip_nonfinite=True, steps=20, checkpoint_every=1), cpu, tmp_path)
    assert not (tmp_path / "stage1" / "trained.safetensors").exists()
    with pytest.raises(TrainingError, match="stage1: all of its 6 steps were skipped"):
        run(model, corpus, settings(skip_nonfinite=True), cpu, tmp_path)


def test_weights_that_are_not_finite_are_no_result(make_model, corpus, settings, cpu, tmp_path, monkeypatch):
    model = make_model()
    original = StageMetrics.on_train_end

    def end(self, *arguments):
        original(self, *arguments)
        model.get_input_embeddings().weight.data[3, 3] = float("nan")

    monkeypatch.setattr(StageMetrics, "on_train_end", end)
    with pytest.raises(TrainingError, match=r"weights that are not finite .*embed_tokens"):
        run(model, corpus, settings(), cpu, tmp_path)
    assert not (tmp_path / "stage1" / "record.json").exists()


def test_sequences_longer_than_the_models_positions(make_model, corpus, settings, cpu):
    with pytest.raises(ConfigError, match=r"vocab\.max_seq_length must be at most 64, .* got 65"):
        run(make_model(), corpus, settings(max_seq_length=65), cpu)


def test_corpus_of_a_larger_vocabulary(make_model, corpus, settings, cpu):
    with pytest.raises(ModelError, match="29 kinds of tokens, the model's table 20 rows"):
        run(make_model(rows=20), corpus, settings(), cpu)


def test_full_disk_is_one_line(make_model, corpus, settings, cpu, tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", no_space)
    with pytest.raises(ResourceError, match=r"Cannot write to .*stage1: the disk is full"):
        run(make_model(), corpus, settings(checkpoint_every=2), cpu, tmp_path)
    assert not (tmp_path / "stage1" / "last.ckpt").exists()


def test_nothing_is_printed_or_left_behind(make_model, corpus, settings, cpu, tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(make_model(), corpus, settings(), cpu)
    assert list(tmp_path.iterdir()) == []
    assert "".join(capfd.readouterr()) == ""
    assert caplog.text == ""


def test_a_stage_starts_fast(make_model, corpus, settings, cpu):
    run(make_model(), corpus, settings(steps=1), cpu)
    began = time.process_time()  # of the processor: other work on the machine does not count
    for _ in range(3):
        run(make_model(), corpus, settings(steps=1), cpu)
    assert (time.process_time() - began) / 3 < 0.3
