"""Stages that are stopped at any step end bit-identical to stages that were not; finished ones are read back."""

import errno
import functools
import json
import logging
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from revocab.errors import ResourceError
from revocab.training import Hardware, LoraSettings, StageSettings, resumed_from, train_stage
from revocab.training.checkpoints import link
from revocab.training.metrics import StageMetrics
from revocab.training.settings import KINDS


class StoppedError(Exception):
    """What a test throws into the loop."""


@pytest.fixture
def stop_at(monkeypatch):
    """stop_at(step): the loop is left by an exception right behind that step; stop_at(None) lets it run."""
    original = StageMetrics.on_train_batch_end

    def arm(step: int | None) -> None:
        def hook(self, trainer, *arguments):
            original(self, trainer, *arguments)
            if trainer.global_step == step:
                raise StoppedError

        monkeypatch.setattr(StageMetrics, "on_train_batch_end", hook)

    return arm


def run(folder: Path, model, corpus, settings: StageSettings, hardware: Hardware):
    return train_stage(
        model, corpus, settings, hardware, folder=folder / settings.name, metrics_path=folder / "metrics.jsonl"
    )


def lines_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key != "seconds"} for line in lines]


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.named_parameters(), other.named_parameters(), strict=True)
    return all(name == name_other and torch.equal(p, q) for (name, p), (name_other, q) in pairs)


def same_record(one, other) -> bool:
    measured = ("seconds", "tokens_per_second", "peak_memory_bytes", "checkpoint_bytes", "data_share")
    return all(value == other.as_dict()[key] for key, value in one.as_dict().items() if key not in measured)


@pytest.mark.parametrize(("kind", "num_workers"), [*((kind, 0) for kind in KINDS), ("lora", 1)])
def test_resume_is_bit_identical(kind, num_workers, make_model, corpus, settings, stop_at, tmp_path):
    """Dropout, shuffling over more than one pass, accumulation, and stops at a step with and without checkpoint."""
    hardware = Hardware(accelerator="cpu", devices=1, strategy="auto", num_workers=num_workers)
    chosen = settings(
        kind=kind,
        steps=13,
        gradient_accumulation=2,
        checkpoint_every=3,
        table_learning_rate=None if kind == "lora" else 3e-2,
        start_document=7,
    )
    whole, record = run(tmp_path / "whole", make_model(), corpus, chosen, hardware)
    for step in (5, 9, 12):
        stop_at(step)
        with pytest.raises(StoppedError):
            run(tmp_path / "parts", make_model(), corpus, chosen, hardware)
    stop_at(None)
    resumed, resumed_record = run(tmp_path / "parts", make_model(), corpus, chosen, hardware)
    assert equal(whole, resumed)
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "parts")
    assert [line["step"] for line in lines_of(tmp_path / "parts")] == list(range(1, 14))
    assert same_record(record, resumed_record)
    assert resumed_from(tmp_path / "parts" / "stage1") == [3, 6, 9]
    assert resumed_from(tmp_path / "whole" / "stage1") == []


@pytest.mark.parametrize("optimizer", ["adamw_torch_fused", "adamw_8bit"])
def test_resume_is_bit_identical_with_other_optimisers(optimizer, make_model, corpus, settings, cpu, stop_at, tmp_path):
    if optimizer == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    model = functools.partial(make_model, rows=512)  # tables of 4,096 values: enough for 8 bits
    chosen = settings(kind="lora_tables", optimizer=optimizer, checkpoint_every=3)
    whole, _ = run(tmp_path / "whole", model(), corpus, chosen, cpu)
    stop_at(5)
    with pytest.raises(StoppedError):
        run(tmp_path / "parts", model(), corpus, chosen, cpu)
    stop_at(None)
    resumed, _ = run(tmp_path / "parts", model(), corpus, chosen, cpu)
    assert equal(whole, resumed)
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "parts")


KILLED = """
import os, runpy, signal, sys
from pathlib import Path
from revocab.training import Hardware, StageSettings, train_stage
from revocab.training.checkpoints import link
from revocab.training.metrics import StageMetrics

original = StageMetrics.on_train_batch_end
def hook(self, trainer, *arguments):
    original(self, trainer, *arguments)
    if trainer.global_step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
StageMetrics.on_train_batch_end = hook
helpers = runpy.run_path(sys.argv[1])
folder = Path(sys.argv[2])
settings = StageSettings(**(helpers["DEFAULTS"] | {"kind": "lora", "lora": helpers["LORA"], "checkpoint_every": 2}))
cpu = Hardware(accelerator="cpu", devices=1, strategy="auto", num_workers=0)
corpus = helpers["corpus_of"]([10] * 40)
train_stage(helpers["model_of"](), corpus, settings, cpu,
            folder=folder / "stage1", metrics_path=folder / "metrics.jsonl")
"""


@pytest.mark.slow
@pytest.mark.survival
def test_kill_9_and_resume_in_another_process(make_model, corpus, settings, cpu, tmp_path):
    conftest = Path(__file__).with_name("conftest.py")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(conftest), str(tmp_path / "parts")],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    chosen = settings(kind="lora", checkpoint_every=2)
    resumed, _ = run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
    whole, _ = run(tmp_path / "whole", make_model(), corpus, chosen, cpu)
    assert equal(whole, resumed)
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "parts")
    assert resumed_from(tmp_path / "parts" / "stage1") == [4]


def test_stop_while_a_checkpoint_is_written(make_model, corpus, settings, cpu, tmp_path, monkeypatch):
    """The earlier checkpoint still holds: the new one is written beside it."""
    original = pl.Trainer.save_checkpoint

    def half(self, path, *arguments, **others):
        original(self, path, *arguments, **others)
        if self.global_step == 4:
            Path(path).write_bytes(Path(path).read_bytes()[:100])
            raise StoppedError

    chosen = settings(checkpoint_every=2)
    monkeypatch.setattr(pl.Trainer, "save_checkpoint", half)
    with pytest.raises(StoppedError):
        run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
    monkeypatch.setattr(pl.Trainer, "save_checkpoint", original)
    resumed, _ = run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
    whole, _ = run(tmp_path / "whole", make_model(), corpus, chosen, cpu)
    assert equal(whole, resumed)
    assert resumed_from(tmp_path / "parts" / "stage1") == [2]


def test_stop_before_the_first_checkpoint_starts_anew(make_model, corpus, settings, cpu, stop_at, tmp_path):
    chosen = settings(checkpoint_every=5)
    stop_at(2)
    with pytest.raises(StoppedError):
        run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
    stop_at(None)
    resumed, _ = run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
    whole, _ = run(tmp_path / "whole", make_model(), corpus, chosen, cpu)
    assert equal(whole, resumed)
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "parts")
    assert resumed_from(tmp_path / "parts" / "stage1") == []


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_finished_stage_is_read_back(kind, tied, make_model, corpus, settings, cpu, tmp_path, monkeypatch):
    chosen = settings(kind=kind, checkpoint_every=2)
    trained, record = run(tmp_path, make_model(tied=tied), corpus, chosen, cpu)
    assert {path.name for path in (tmp_path / "stage1").iterdir()} == {
        "stage.json",
        "record.json",
        "trained.safetensors",
        *(["adapter"] if "lora" in kind else []),
    }
    before = lines_of(tmp_path)
    monkeypatch.setattr(pl.Trainer, "fit", lambda *_, **__: pytest.fail("a finished stage was trained again"))
    again, again_record = run(tmp_path, make_model(tied=tied), corpus, chosen, cpu)
    assert equal(trained, again)
    assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) is tied
    assert again_record == record
    assert lines_of(tmp_path) == before


@pytest.mark.parametrize("stopped_at", [4, None])
def test_other_settings_or_another_start_do_not_mix(
    stopped_at, make_model, corpus, settings, cpu, stop_at, tmp_path, caplog
):
    stop_at(stopped_at)
    if stopped_at:
        with pytest.raises(StoppedError):
            run(tmp_path / "mixed", make_model(), corpus, settings(checkpoint_every=1), cpu)
    else:
        run(tmp_path / "mixed", make_model(), corpus, settings(checkpoint_every=1), cpu)
    stop_at(None)
    for number, (seed, scale) in enumerate([(6, 1.0), (6, 1.5)]):
        models = []
        for folder in (tmp_path / "mixed", tmp_path / f"fresh{number}"):
            model = make_model()
            model.get_input_embeddings().weight.data.mul_(scale)
            models.append(run(folder, model, corpus, settings(seed=seed), cpu)[0])
        assert equal(*models)
        assert lines_of(tmp_path / "mixed") == lines_of(tmp_path / f"fresh{number}")
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == 2
    assert "begins anew" in warned[0].message


def test_checkpoint_holds_only_what_is_trained(make_model, corpus, settings, cpu, stop_at, tmp_path):
    stop_at(3)
    with pytest.raises(StoppedError):
        run(tmp_path, make_model(), corpus, settings(checkpoint_every=2), cpu)
    checkpoint = torch.load(tmp_path / "stage1" / "last.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == {"model.model.embed_tokens.weight", "model.lm_head.weight"}
    assert len(checkpoint["optimizer_states"][0]["state"]) == 2
    assert checkpoint["StageData"] == {"steps": 2}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_of_every_kind_hold_the_trained_parameters_alone(
    kind, tied, make_model, corpus, settings, cpu, stop_at, tmp_path
):
    stop_at(3)
    with pytest.raises(StoppedError):
        run(tmp_path, make_model(tied=tied, layers=3), corpus, settings(kind=kind, checkpoint_every=2), cpu)
    checkpoint = torch.load(tmp_path / "stage1" / "last.ckpt", weights_only=True)
    plain = [name for name, _ in make_model(tied=tied, layers=3).named_parameters()]
    adapters = {
        f"base_model.model.{name.removesuffix('weight')}lora_{letter}.default.weight"
        for name in plain if "proj" in name for letter in "AB"
    }  # fmt: skip
    tables = {name for name in plain if "embed" in name or "lm_head" in name}
    expected = {
        "tables": tables,
        "full": set(plain),
        "first_last": {name for name in plain if ".layers.1." not in name and name != "model.norm.weight"},
        "lora": adapters,
        "lora_tables": adapters | {f"base_model.model.{name}" for name in tables},
    }[kind]
    assert set(checkpoint["state_dict"]) == {f"model.{name}" for name in expected}
    assert len(checkpoint["optimizer_states"][0]["state"]) == len(expected)
    assert checkpoint["StageData"] == {"steps": 2}


def test_adapters_of_another_rank_begin_anew(make_model, corpus, settings, cpu, stop_at, tmp_path):
    lora = LoraSettings(r=2, alpha=4, dropout=0.0, target_modules=("q_proj",))
    stop_at(3)
    with pytest.raises(StoppedError):
        run(tmp_path, make_model(), corpus, settings(kind="lora", lora=lora, checkpoint_every=2), cpu)
    stop_at(None)
    lora = LoraSettings(r=3, alpha=4, dropout=0.0, target_modules=("q_proj",))
    _, record = run(tmp_path, make_model(), corpus, settings(kind="lora", lora=lora, checkpoint_every=2), cpu)
    assert record.trainable_parameters == 2 * 3 * (8 + 8)


def test_a_disk_that_is_full_is_one_line_and_the_earlier_checkpoint_holds(
    make_model, corpus, settings, cpu, tmp_path, monkeypatch
):
    """A limit on the size of files, set behind the first checkpoint, stands for the disk."""
    original = pl.Trainer.save_checkpoint
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save(self, path, *arguments, **others):
        if self.global_step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, usual[1]))
        original(self, path, *arguments, **others)

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", save)
    chosen = settings(checkpoint_every=2)
    try:
        with pytest.raises(ResourceError, match=r"stage1: .*free space") as caught:
            run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert "\n" not in str(caught.value)
    assert {path.name for path in (tmp_path / "parts" / "stage1").iterdir()} == {"stage.json", "last.ckpt"}
    monkeypatch.undo()
    resumed, _ = run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
    whole, _ = run(tmp_path / "whole", make_model(), corpus, chosen, cpu)
    assert equal(whole, resumed)
    assert resumed_from(tmp_path / "parts" / "stage1") == [2]


DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "same size": lambda content: content[: len(content) // 2] + bytes(64) + content[len(content) // 2 + 64 :],
    "no zip": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("which", [["last"], ["last", "previous"], ["previous"]])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    which, make_model, corpus, settings, cpu, stop_at, tmp_path, caplog
):
    chosen = settings(kind="full", checkpoint_every=2)
    stop_at(5)
    with pytest.raises(StoppedError):
        run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
    stop_at(None)
    folder = tmp_path / "parts" / "stage1"
    assert {path.name for path in folder.glob("*.ckpt")} == {"last.ckpt", "previous.ckpt"}
    for name in which:
        path = folder / f"{name}.ckpt"
        path.write_bytes(path.read_bytes()[:-100])
    resumed, record = run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
    whole, _ = run(tmp_path / "whole", make_model(), corpus, chosen, cpu)
    assert equal(whole, resumed)
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "parts")
    assert resumed_from(folder) == {"last": [2], "last previous": [], "previous": [4]}[" ".join(which)]
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    falls_back = f"The checkpoint {folder / 'last.ckpt'} is damaged: the stage goes on from previous.ckpt."
    anew = f"The checkpoint {folder / 'previous.ckpt'} is damaged: the stage begins anew."
    assert said == {"last": [falls_back], "last previous": [falls_back, anew], "previous": []}[" ".join(which)]
    assert list(folder.glob("*.ckpt")) == []  # the stage is done
    assert record.checkpoint_bytes > 0


def test_a_kill_between_the_two_renames_leaves_the_earlier_checkpoint(
    make_model, corpus, settings, cpu, stop_at, tmp_path
):
    chosen = settings(kind="full", checkpoint_every=2)
    stop_at(3)
    with pytest.raises(StoppedError):
        run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
    stop_at(None)
    folder = tmp_path / "parts" / "stage1"
    (folder / "last.ckpt").rename(folder / "previous.ckpt")
    resumed, _ = run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
    assert resumed_from(folder) == [2]
    assert equal(resumed, run(tmp_path / "whole", make_model(), corpus, chosen, cpu)[0])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_said_and_the_stage_begins_anew(
    damage, make_model, corpus, settings, cpu, stop_at, tmp_path, caplog
):
    chosen = settings(kind="full", checkpoint_every=2)
    stop_at(3)
    with pytest.raises(StoppedError):
        run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
    stop_at(None)
    checkpoint = tmp_path / "parts" / "stage1" / "last.ckpt"
    checkpoint.write_bytes(DAMAGES[damage](checkpoint.read_bytes()))
    resumed, _ = run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
    whole, _ = run(tmp_path / "whole", make_model(), corpus, chosen, cpu)
    assert equal(whole, resumed)
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "parts")
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning == f"The checkpoint {checkpoint} is damaged: the stage begins anew."


@pytest.mark.parametrize("name", ["stage.json", "record.json", "trained.safetensors"])
def test_a_damaged_result_is_said_and_made_again(name, make_model, corpus, settings, cpu, tmp_path, caplog):
    chosen = settings(kind="full")
    whole, record = run(tmp_path, make_model(), corpus, chosen, cpu)
    path = tmp_path / "stage1" / name
    path.write_bytes(path.read_bytes()[:20])
    again, again_record = run(tmp_path, make_model(), corpus, chosen, cpu)
    assert equal(whole, again)
    assert same_record(record, again_record)
    assert "is damaged: the stage begins anew" in caplog.text


@pytest.mark.parametrize("kind", ["tables", "full"])
def test_a_stage_goes_on_with_a_smaller_micro_batch(kind, make_model, corpus, settings, cpu, stop_at, tmp_path):
    """The same sequences in the same steps: all but rounding is as if it had run so from its beginning."""
    chosen = settings(kind=kind, steps=9, batch_size=4, checkpoint_every=2)
    stop_at(5)
    with pytest.raises(StoppedError):
        run(tmp_path / "parts", without_dropout(make_model), corpus, chosen, cpu)
    stop_at(None)
    smaller = settings(kind=kind, steps=9, batch_size=1, gradient_accumulation=4, checkpoint_every=2)
    resumed, _ = run(tmp_path / "parts", without_dropout(make_model), corpus, smaller, cpu)
    whole, _ = run(tmp_path / "whole", without_dropout(make_model), corpus, smaller, cpu)
    assert resumed_from(tmp_path / "parts" / "stage1") == [4]
    assert [line["step"] for line in lines_of(tmp_path / "parts")] == list(range(1, 10))
    for key in ("loss", "lr", "grad_norm", "tokens"):
        values = [[line[key] for line in lines_of(tmp_path / name)] for name in ("parts", "whole")]
        assert values[0] == pytest.approx(values[1], rel=1e-5)
    for (name, p), (_, q) in zip(resumed.named_parameters(), whole.named_parameters(), strict=True):
        torch.testing.assert_close(p, q, msg=name, rtol=1e-4, atol=2e-5)


# --- the last k and the best


def step_of(path: Path) -> int:
    return torch.load(path, weights_only=True)["global_step"]


@pytest.mark.parametrize("keep_last", [1, 2, 4])
def test_the_last_ones_are_kept(keep_last, make_model, corpus, settings, cpu, stop_at, tmp_path):
    chosen = settings(steps=13, checkpoint_every=2, keep_last=keep_last)
    stop_at(11)
    with pytest.raises(StoppedError):
        run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
    stop_at(None)
    folder = tmp_path / "parts" / "stage1"
    names = ["last.ckpt", "previous.ckpt", "previous-2.ckpt", "previous-3.ckpt"][:keep_last]
    assert {path.name for path in folder.glob("*.ckpt")} == set(names)
    assert [step_of(folder / name) for name in names] == [10, 8, 6, 4][:keep_last]
    for name in names[:-1]:  # all but the earliest are damaged
        (folder / name).write_bytes(b"")
    resumed, _ = run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
    whole, _ = run(tmp_path / "whole", make_model(), corpus, chosen, cpu)
    assert resumed_from(folder) == [12 - 2 * keep_last]
    assert equal(whole, resumed)
    assert not list(folder.glob("*.ckpt"))


@pytest.fixture
def losses(monkeypatch):
    """losses(function): what is logged as the loss of a step is function(step) instead."""
    original = StageMetrics._line

    def arm(function):
        monkeypatch.setattr(
            StageMetrics, "_line", lambda self, done, loss, norm: original(self, done, function(done.step), norm)
        )

    return arm


def test_the_best_is_kept_through_a_stop_and_beyond_a_worse_end(
    make_model, corpus, settings, cpu, stop_at, losses, tmp_path, caplog
):
    """The mean of ten losses, 5 in the first steps, then 1 in ten of them, then 9: it is lowest at step 14."""
    losses(lambda step: 5.0 if step <= 4 else 1.0 if step <= 14 else 9.0)
    chosen = settings(steps=20, checkpoint_every=2, keep_best=True)
    folder = tmp_path / "parts" / "stage1"
    for stop, best in ((11, 10), (17, 14), (19, 14)):
        stop_at(stop)
        with pytest.raises(StoppedError):
            run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
        assert step_of(folder / "best.ckpt") == best
    assert {path.name for path in folder.glob("*.ckpt")} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    assert [step_of(folder / f"{name}.ckpt") for name in ("last", "previous")] == [18, 16]
    stop_at(None)
    resumed, record = run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
    assert equal(resumed, run(tmp_path / "whole", make_model(), corpus, settings(steps=20), cpu)[0])
    assert [path.name for path in folder.glob("*.ckpt")] == ["best.ckpt"]
    assert record.checkpoint_bytes >= 3 * (folder / "best.ckpt").stat().st_size * 0.9
    (warning,) = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert "ended at a loss of 5.8000, above the 1.0000 of" in warning
    again, _ = run(tmp_path / "parts", make_model(), corpus, chosen, cpu)
    assert equal(again, resumed)


def test_a_best_that_is_the_end_is_not_kept_and_takes_no_room(make_model, corpus, settings, cpu, losses, tmp_path):
    losses(lambda step: 5.0 - 0.1 * step)
    sizes = {}
    for keep_best in (False, True):
        chosen = settings(steps=20, checkpoint_every=2, keep_best=keep_best)
        _, record = run(tmp_path / str(keep_best), make_model(), corpus, chosen, cpu)
        assert not list((tmp_path / str(keep_best) / "stage1").glob("*.ckpt"))
        sizes[keep_best] = record.checkpoint_bytes
    assert sizes[True] == sizes[False]


def test_a_damaged_best_is_left_out(make_model, corpus, settings, cpu, stop_at, losses, tmp_path, caplog):
    losses(lambda step: float(step))
    chosen = settings(steps=9, checkpoint_every=2, keep_best=True)
    stop_at(7)
    with pytest.raises(StoppedError):
        run(tmp_path, make_model(), corpus, chosen, cpu)
    stop_at(None)
    best = tmp_path / "stage1" / "best.ckpt"
    assert step_of(best) == 2
    best.write_bytes(best.read_bytes()[:100])
    run(tmp_path, make_model(), corpus, chosen, cpu)
    assert f"{best} is damaged and left out" in caplog.text
    assert step_of(best) == 8, "the best of those that can be read"


def test_a_disk_without_second_names_gets_a_copy(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").samefile(tmp_path / "b")

    def refuse(*_):
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr("revocab.training.checkpoints.os.link", refuse)
    (tmp_path / "c").write_text("third")
    link(tmp_path / "c", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "third"
    assert not (tmp_path / "c").samefile(tmp_path / "b")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c"}


def without_dropout(make_model):
    """Dropout draws anew for each micro-batch, so other micro-batches draw otherwise."""
    model = make_model()
    model.config.attention_dropout = 0.0
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.0
    return model
