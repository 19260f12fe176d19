"""metrics.jsonl, loggers and the record of a stage."""

import json
import math
import time
from dataclasses import replace

import pytest
from pytorch_lightning.loggers import Logger

from revocab.errors import TrainingError
from revocab.training import batch_search, train_stage
from revocab.training.metrics import LAG, StageMetrics, drop_lines


class Recorder(Logger):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict]] = []

    name = "recorder"
    version = 0

    def log_metrics(self, metrics: dict, step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params, *args, **kwargs) -> None:
        raise AssertionError("the pipeline logs the config")


def test_lines_of_a_stage(make_model, corpus, settings, cpu, tmp_path):
    path, logger = tmp_path / "deep" / "metrics.jsonl", Recorder()
    chosen = settings(gradient_accumulation=3, log_every=4, steps=10)
    _, record = train_stage(make_model(), corpus, chosen, cpu, folder=None, metrics_path=path, loggers=[logger])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 4, 8, 10]
    assert set(lines[0]) == {"stage", "step", "loss", "lr", "grad_norm", "tokens", "seconds"}
    assert [line["tokens"] for line in lines] == [step * 2 * 3 * 8 for step in (1, 4, 8, 10)]
    assert lines[0]["loss"] == pytest.approx(math.log(29), rel=0.05)
    assert lines[0]["lr"] == pytest.approx(1e-2 / 3)
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)
    assert [step for step, _ in logger.rows] == [1, 4, 8, 10]
    for line, (_, row) in zip(lines, logger.rows, strict=True):
        assert row == {f"stage1/{key}": line[key] for key in ("loss", "lr", "grad_norm", "tokens", "seconds")}
    losses = [line["loss"] for line in lines]
    assert (record.loss_first, record.loss_last, record.loss_max) == (losses[0], losses[-1], max(losses))
    assert record.grad_norm_max == max(line["grad_norm"] for line in lines)
    assert (record.kind, record.steps, record.tokens, record.spikes) == ("tables", 10, 480, 0)
    assert record.tokens_per_second == pytest.approx(480 / record.seconds)
    assert record.peak_memory_bytes > 10_000_000


def test_norm_is_the_one_before_clipping(make_model, corpus, settings, cpu, tmp_path):
    norms = []
    for clip in (0.0, 1e-3):
        path = tmp_path / f"{clip}.jsonl"
        chosen = settings(gradient_clip=clip, steps=1)
        train_stage(make_model(), corpus, chosen, cpu, folder=None, metrics_path=path)
        norms.append(json.loads(path.read_text())["grad_norm"])
    assert norms[0] == norms[1] > 1e-2


def test_loss_last_is_the_mean_of_the_last_tenth(make_model, corpus, settings, cpu, tmp_path):
    path = tmp_path / "metrics.jsonl"
    _, record = train_stage(make_model(), corpus, settings(steps=25), cpu, folder=None, metrics_path=path)
    losses = [json.loads(line)["loss"] for line in path.read_text().splitlines()]
    assert record.loss_last == pytest.approx(sum(losses[-3:]) / 3)


def test_stages_share_one_file(make_model, corpus, settings, cpu, tmp_path):
    path = tmp_path / "metrics.jsonl"
    for name in ("stage1", "stage2"):
        train_stage(make_model(), corpus, settings(name=name, steps=2), cpu, folder=None, metrics_path=path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [
        ("stage1", 1),
        ("stage1", 2),
        ("stage2", 1),
        ("stage2", 2),
    ]


def test_dropped_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [("stage1", 1), ("stage1", 2), ("stage2", 1), ("stage2", 2), ("stage2", 3)]
    written = [json.dumps({"stage": stage, "step": step}) for stage, step in rows]
    path.write_text("\n".join([*written, '{"stage": "stage2", "st']))
    drop_lines(path, "stage2", after=2)
    assert path.read_text().splitlines() == written[:4]
    assert path.read_text().endswith("\n")
    drop_lines(path, "stage2", after=0)
    assert path.read_text().splitlines() == written[:2]
    drop_lines(tmp_path / "missing.jsonl", "stage2", after=0)


def test_the_share_of_waiting_for_data_is_measured(make_model, corpus, settings, cpu, monkeypatch):
    """Reading is slowed down by 20 ms a micro-batch, twelve of them."""
    from revocab.training.data import PackedSequences

    _, usual = train_stage(make_model(), corpus, settings(), cpu, folder=None, metrics_path=None)
    original = PackedSequences.__getitem__

    def slow(self, index):
        time.sleep(0.02)
        return original(self, index)

    monkeypatch.setattr(PackedSequences, "__getitem__", slow)
    chosen = settings(gradient_accumulation=2)
    _, waiting = train_stage(make_model(), corpus, chosen, cpu, folder=None, metrics_path=None)
    assert 0.24 <= waiting.data_share * waiting.seconds < waiting.seconds
    assert 0 < usual.data_share < waiting.data_share < 1


@pytest.mark.parametrize("log_every", [1, 4])
def test_lines_that_follow_one_step_later_are_the_same(
    log_every, make_model, corpus, settings, cpu, tmp_path, monkeypatch
):
    """As on a GPU, where a line is written when the device has been given the next step."""
    chosen = settings(steps=9, log_every=log_every, checkpoint_every=4)

    def lines(name):
        folder = tmp_path / name
        train_stage(make_model(), corpus, chosen, cpu, folder=folder / "s", metrics_path=folder / "metrics.jsonl")
        found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert all(found[n]["seconds"] <= found[n + 1]["seconds"] for n in range(len(found) - 1))
        return [{key: value for key, value in line.items() if key != "seconds"} for line in found]

    written = []
    original = StageMetrics.on_train_batch_end

    def count(self, trainer, *others):
        original(self, trainer, *others)
        written.append((trainer.global_step, [line["step"] for line in self.lines]))

    at_once = lines("at once")
    monkeypatch.setitem(LAG, "cpu", 1)
    monkeypatch.setattr(StageMetrics, "on_train_batch_end", count)
    assert lines("later") == at_once
    if log_every == 1:
        assert written[:4] == [(1, []), (2, [1]), (3, [1, 2]), (4, [1, 2, 3])]
        assert written[-1] == (9, list(range(1, 9)))
    else:
        assert written[:5] == [(1, []), (2, [1]), (3, [1]), (4, [1]), (5, [1, 4])]
        assert written[-1] == (9, [1, 4, 8])


def test_a_loss_that_is_not_finite_is_found_one_step_later_with_its_own_step(
    make_model, corpus, settings, cpu, tmp_path, monkeypatch
):
    monkeypatch.setitem(LAG, "cpu", 1)
    model = make_model()
    chosen = settings(steps=9, learning_rate=1e30, gradient_clip=0.0, checkpoint_every=3)
    with pytest.raises(TrainingError, match=r"in step 2 of 9"):
        train_stage(model, corpus, chosen, cpu, folder=tmp_path / "s", metrics_path=None)
    assert not list((tmp_path / "s").glob("*.ckpt"))


class Device:
    """Works for `seconds` at each step that it was given, one behind the other, while the processor goes on."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.free_at = seconds, 0.0

    def event(self) -> "Device.Event":
        self.free_at = max(self.free_at, time.perf_counter()) + self.seconds
        return Device.Event(self.free_at)

    class Event:
        def __init__(self, at: float) -> None:
            self.at = at

        def query(self) -> bool:
            return time.perf_counter() >= self.at

        def synchronize(self) -> None:
            time.sleep(max(0.0, self.at - time.perf_counter()))


@pytest.fixture
def device(monkeypatch):
    """device(seconds): training as on a GPU that takes so long for a step."""
    original = StageMetrics._finished

    def arm(seconds):
        slow = Device(seconds)
        monkeypatch.setitem(LAG, "cpu", 1)
        monkeypatch.setattr(
            StageMetrics, "_finished", lambda self, *others: replace(original(self, *others), arrived=slow.event())
        )

    return arm


def test_a_line_has_the_time_at_which_the_device_was_done(make_model, corpus, settings, cpu, tmp_path, device):
    """Not the one at which the processor had handed the step over: the device is then steps behind."""
    device(0.1)
    path = tmp_path / "metrics.jsonl"
    train_stage(make_model(), corpus, settings(steps=6, log_every=2), cpu, folder=None, metrics_path=path)
    seconds = {line["step"]: line["seconds"] for line in map(json.loads, path.read_text().splitlines())}
    assert list(seconds) == [1, 2, 4, 6]
    first = seconds[1] - 0.1
    assert seconds == {step: pytest.approx(first + 0.1 * step, abs=0.05) for step in seconds}


def test_the_speed_of_a_trial_is_the_device_s(make_model, corpus, settings, cpu, device):
    device(0.1)
    chosen = settings(steps=batch_search.STEPS, batch_size=2, max_seq_length=8)
    assert batch_search.measure(make_model, corpus, chosen, cpu) == pytest.approx(2 * 8 / 0.1, rel=0.15)
