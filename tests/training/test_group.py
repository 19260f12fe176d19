"""Stages in two processes (gloo, CPU): the same curve as in one, resumed by either, and nothing left when one dies."""

import io
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from revocab.artifacts import memory_map
from revocab.errors import ConfigError, MissingDependencyError, ResourceError, TrainingError
from revocab.training import Hardware, HeldOut, group, resumed_from, train_stage
from revocab.training.processes import _portable, run_group
from revocab.training.sharding import shard
from revocab.upstream.scores import OnTheWay

ONE = Hardware(accelerator="cpu", devices=1, strategy="auto", num_workers=0)
TWO = {name: replace(ONE, devices=2, strategy=name) for name in ("ddp", "fsdp")}


def run(folder, model, corpus, settings, hardware, **others):
    hardware = replace(hardware, scratch=folder / "scratch")
    return train_stage(
        model,
        corpus,
        settings,
        hardware,
        folder=folder / settings.name,
        metrics_path=folder / "metrics.jsonl",
        **others,
    )


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same(one_folder, other_folder, one, other):
    for line, expected in zip(lines_of(other_folder), lines_of(one_folder), strict=True):
        assert (line["step"], line["tokens"]) == (expected["step"], expected["tokens"])
        for key in ("loss", "grad_norm", "lr"):
            assert line[key] == pytest.approx(expected[key], rel=1e-4), (key, line["step"])
    for (name, value), (_, expected) in zip(other.named_parameters(), one.named_parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")


SLOW = pytest.mark.slow  # a process imports for seconds before it trains for a moment


@pytest.mark.parametrize(
    ("strategy", "kind", "tied"),
    [
        pytest.param("ddp", "lora", False, marks=[SLOW, pytest.mark.survival]),
        pytest.param("ddp", "tables", True, marks=SLOW),
        pytest.param("fsdp", "tables", False, marks=SLOW),
        pytest.param("fsdp", "tables", True, marks=SLOW),
        pytest.param("fsdp", "lora", True, marks=SLOW),
        pytest.param("ddp", "lora_tables", True, marks=SLOW),
        pytest.param("fsdp", "lora_tables", True, marks=SLOW),
        pytest.param("fsdp", "first_last", False, marks=SLOW),
    ],
)
def test_two_processes_train_as_one_does(strategy, kind, tied, make_model, corpus, settings, tmp_path):
    """With dropout, accumulation, clipping, and more than one pass over the data."""
    rate = None if kind == "lora" else 3e-2
    chosen = settings(kind=kind, table_learning_rate=rate, gradient_accumulation=4, steps=8, gradient_clip=0.5)
    one, record = run(tmp_path / "one", make_model(tied=tied), corpus, chosen, ONE)
    model = make_model(tied=tied)
    two, other = run(tmp_path / "two", model, corpus, chosen, TWO[strategy])
    assert two is model
    assert_same(tmp_path / "one", tmp_path / "two", one, two)
    assert (other.steps, other.tokens, other.trainable_parameters) == (
        record.steps,
        record.tokens,
        record.trainable_parameters,
    )


def words_of(vocabulary):
    """A tokenizer with so many words."""
    backend = Tokenizer(models.WordLevel({f"w{number}": number for number in range(vocabulary)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="w1", unk_token="w0")


@pytest.mark.parametrize(("strategy", "kind"), [("ddp", "lora"), ("fsdp", "lora_tables"), ("fsdp", "tables")])
@SLOW
def test_two_processes_score_on_the_way_as_one_does(strategy, kind, make_model, corpus, settings, tmp_path):
    tokenizer = words_of(corpus.vocabulary_size)
    texts = {"a": ["w3 w4 w5 w6 w7", "w9"], "b": ["w28 w3 w1"]}
    heldout = HeldOut(every=2, score=OnTheWay(tokenizer=tokenizer, texts=texts, batch_tokens=64))
    chosen = settings(kind=kind, gradient_accumulation=2, steps=6)
    one, record = run(tmp_path / "one", make_model(tied=True), corpus, chosen, ONE, heldout=heldout)
    two, other = run(tmp_path / "two", make_model(tied=True), corpus, chosen, TWO[strategy], heldout=heldout)
    assert_same(tmp_path / "one", tmp_path / "two", one, two)
    assert [point["step"] for point in record.on_the_way] == [2, 4]
    for point, expected in zip(other.on_the_way, record.on_the_way, strict=True):
        assert (point["step"], point["bytes"]) == (expected["step"], expected["bytes"])
        assert point["bpb"] == pytest.approx(expected["bpb"], rel=1e-4)
    assert len({tuple(point["bpb"].values()) for point in record.on_the_way}) == 2


@SLOW
def test_fsdp_with_bf16_and_gradient_checkpointing(make_model, corpus, settings, tmp_path):
    chosen = settings(kind="full", gradient_accumulation=2, bf16=True, gradient_checkpointing=True)
    run(tmp_path / "one", make_model(), corpus, chosen, ONE)
    two, _ = run(tmp_path / "two", make_model(), corpus, chosen, TWO["fsdp"])
    assert {parameter.dtype for parameter in two.parameters()} == {torch.float32}
    for line, expected in zip(lines_of(tmp_path / "two"), lines_of(tmp_path / "one"), strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-3)
        assert line["grad_norm"] == pytest.approx(expected["grad_norm"], rel=2e-2)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(ONE, TWO["fsdp"], marks=[SLOW, pytest.mark.survival]),
        pytest.param(TWO["fsdp"], TWO["ddp"], marks=SLOW),
        pytest.param(TWO["ddp"], ONE, marks=SLOW),
    ],
    ids=["1-fsdp", "fsdp-ddp", "ddp-1"],
)
def test_a_stage_goes_on_with_another_number_of_devices(first, second, make_model, corpus, settings, tmp_path):
    """Stopped at an odd step, so that micro-batches of one count would not fall together with steps of the other."""
    chosen = settings(kind="full", gradient_accumulation=4, steps=7, checkpoint_every=3)
    one, record = run(tmp_path / "one", make_model(tied=True), corpus, chosen, ONE)
    with pytest.raises(StoppedError):
        run(tmp_path / "two", make_model(tied=True), corpus, chosen, first, loggers=[Stopping(5)])
    two, other = run(tmp_path / "two", make_model(tied=True), corpus, chosen, second)
    assert_same(tmp_path / "one", tmp_path / "two", one, two)
    assert resumed_from(tmp_path / "two" / "stage1") == [3]
    assert (other.steps, other.tokens, other.loss_first) == (
        record.steps,
        record.tokens,
        pytest.approx(record.loss_first),
    )


class StoppedError(Exception):
    """What a test throws out of training."""


class Stopping:
    """A logger that ends the training when a step is logged."""

    def __init__(self, at):
        self.at, self.seen = at, []

    def log_metrics(self, metrics, step):
        self.seen.append((step, metrics))
        if step == self.at:
            raise StoppedError


class Killing(Stopping):
    """A logger that kills the process that was started last."""

    def log_metrics(self, metrics, step):
        self.seen.append((step, metrics))
        if step == self.at:
            os.kill(max(p.pid for p in multiprocessing.active_children()), signal.SIGKILL)


@SLOW
def test_a_death_ends_the_stage_with_its_reason_and_the_next_run_goes_on(make_model, corpus, settings, tmp_path):
    chosen = settings(gradient_accumulation=2, steps=400, checkpoint_every=1)
    killer = Killing(2)
    with pytest.raises(ResourceError, match=r"Process 1 of the 2 that train the model was killed by SIGKILL"):
        run(tmp_path, make_model(), corpus, chosen, TWO["ddp"], loggers=[killer])
    assert multiprocessing.active_children() == []
    assert not (tmp_path / "scratch" / "handover").exists()
    assert [step for step, _ in killer.seen[:2]] == [1, 2]
    assert killer.seen[0][1]["stage1/loss"] == lines_of(tmp_path)[0]["loss"]
    assert (tmp_path / "stage1" / "last.ckpt").exists()


def send_parts(model, send):
    shard(model, torch.device("cpu"), 2)
    send(sum(parameter.to_local().numel() for parameter in model.parameters()))


@SLOW
def test_fsdp_leaves_half_of_every_parameter_to_each_of_two(make_model):
    model, sizes = make_model(tied=True), []
    run_group(send_parts, (model,), size=2, backend="gloo", receive=sizes.append)
    assert len(sizes) == 2
    assert sum(sizes) == sum(parameter.numel() for parameter in model.parameters())
    assert max(sizes) - min(sizes) <= 8  # a row of the 29 of the table


@SLOW
def test_errors_come_back_as_they_were_raised(make_model, corpus, settings, tmp_path):
    model = make_model()
    model.get_input_embeddings().weight.data[:] = float("inf")
    with pytest.raises(TrainingError, match=r"stage1: the loss became nan in step 1 of 6.*Lower vocab\.lr_stage1"):
        run(tmp_path, model, corpus, settings(gradient_accumulation=2), TWO["ddp"])


PARENT = """
import os, runpy, sys
from dataclasses import replace
from pathlib import Path
from revocab.training import Hardware, StageSettings, train_stage

class Reporting:
    def log_metrics(self, metrics, step):
        if step == 1:
            import multiprocessing
            print(*[process.pid for process in multiprocessing.active_children()], flush=True)

if __name__ == "__main__":
    helpers = runpy.run_path(sys.argv[1])
    settings = StageSettings(**(helpers["DEFAULTS"] | {"gradient_accumulation": 2, "steps": 100000}))
    two = Hardware(accelerator="cpu", devices=2, strategy="ddp", num_workers=0, scratch=Path(sys.argv[2]))
    train_stage(helpers["model_of"](), helpers["corpus_of"]([10] * 40), settings, two, folder=None, metrics_path=None,
                loggers=[Reporting()])
"""


@SLOW
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_one_that_started_them(number, tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    conftest = Path(__file__).with_name("conftest.py")
    words = [sys.executable, str(tmp_path / "parent.py"), str(conftest), str(tmp_path / "scratch")]
    parent = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    os.killpg(parent.pid, number) if number == signal.SIGINT else parent.send_signal(number)  # Ctrl-C reaches all
    parent.wait(timeout=20)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_devices_that_do_not_divide_a_step_are_refused(make_model, corpus, settings, tmp_path):
    with pytest.raises(
        ConfigError, match=r"trainer\.devices must be a divisor of the 3 micro-batches of a step, got 2"
    ):
        run(tmp_path, make_model(), corpus, settings(gradient_accumulation=3), TWO["ddp"])


def test_a_corpus_travels_by_the_names_of_its_files(tmp_path):
    np.arange(1000, dtype=np.uint16).tofile(tmp_path / "tokens.bin")
    tokens = memory_map(tmp_path / "tokens.bin", np.dtype(np.uint16))
    sizes = []
    for given in (tokens, tokens[10:]):
        buffer = io.BytesIO()
        group._Pickler(buffer).dump({"tokens": given})
        assert np.array_equal(pickle.loads(buffer.getvalue())["tokens"], given)
        sizes.append(len(buffer.getvalue()))
    assert sizes[0] < 600 < 2 * 990 < sizes[1]  # a part of a file has no name of its own


def test_errors_survive_pickling():
    short = _portable(torch.OutOfMemoryError("CUDA out of memory"))  # the job tries again with a smaller micro-batch
    assert isinstance(pickle.loads(pickle.dumps(short)), torch.OutOfMemoryError)
    error = pickle.loads(pickle.dumps(ConfigError("vocab.lr_stage1", -1, "above 0", "Try 1e-4.")))
    assert str(error) == "vocab.lr_stage1 must be above 0, got -1. Try 1e-4."
    assert (error.key, error.value, error.expected) == ("vocab.lr_stage1", -1, "above 0")
    missing = pickle.loads(pickle.dumps(MissingDependencyError("ray", "launcher=ray", "pip install ray")))
    assert (missing.package, type(missing)) == ("ray", MissingDependencyError)
