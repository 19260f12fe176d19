"""The search for the fastest micro-batch: what is tried, what is chosen, what stays as it was."""

import json

import pytest
import torch

from revocab.errors import ResourceError
from revocab.training import Hardware, batch_search, memory, memory_check, train_stage, with_best_batch
from revocab.training.module import StageModule

TWO = Hardware(accelerator="cpu", devices=2, strategy="ddp", num_workers=0)


@pytest.fixture
def memory_for(monkeypatch):
    """memory_for(n): micro-batches of more than n sequences do not fit."""
    original = StageModule.training_step

    def arm(largest):
        def step(self, batch, batch_idx):
            if len(batch) > largest:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            return original(self, batch, batch_idx)

        monkeypatch.setattr(StageModule, "training_step", step)

    return arm


def state_of(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", ["tables", "full", "lora"])
def test_sizes_are_tried_until_memory_ends_and_nothing_is_changed(
    kind, make_model, corpus, settings, cpu, memory_for, tmp_path
):
    memory_for(4)
    model = make_model()
    before = state_of(model)
    chosen = settings(kind=kind, batch_size=3, gradient_accumulation=8, max_seq_length=4)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    found, entry = with_best_batch(model, corpus, chosen, cpu, path=tmp_path / "batch_sizes.json")
    assert torch.equal(torch.rand(2), expected)
    tried = {int(size): speed for size, speed in entry["tokens_per_second"].items()}
    assert tried.pop(8, None) is None
    assert set(tried) <= {1, 2, 4}
    assert all(speed > 0 for speed in tried.values())
    assert found.batch_size == batch_search.choose(tried)
    assert found.sequences_per_step == chosen.sequences_per_step == 24
    assert state_of(model).keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in state_of(model).items())
    assert all(parameter.grad is None for parameter in model.parameters())
    train_stage(model, corpus, found, cpu, folder=None, metrics_path=None)  # the model can still be trained


def test_what_was_found_is_not_searched_again(make_model, corpus, settings, cpu, tmp_path, monkeypatch):
    path = tmp_path / "batch_sizes.json"
    path.write_text(json.dumps({"stage2": {"batch_size": 1}}))
    speeds = {1: 5.0, 2: 9.0, 4: 20.0, 8: None}
    monkeypatch.setattr(batch_search, "measure_speeds", lambda *_: speeds)
    chosen = settings(batch_size=2, gradient_accumulation=8)
    found, entry = with_best_batch(make_model(), corpus, chosen, cpu, path=path)
    assert (found.batch_size, found.gradient_accumulation) == (4, 4)
    assert entry["tokens_per_second"]["8"] is None
    assert json.loads(path.read_text()) == {"stage2": {"batch_size": 1}, "stage1": entry}
    monkeypatch.setattr(batch_search, "measure_speeds", lambda *_: pytest.fail("searched again"))
    assert with_best_batch(make_model(), corpus, chosen, cpu, path=path) == (found, entry)
    two = Hardware(accelerator="cpu", devices=2, strategy="ddp", num_workers=0)
    assert with_best_batch(make_model(), corpus, chosen, two, path=path)[0] == found, "4 a step for two devices"
    monkeypatch.setattr(batch_search, "measure_speeds", lambda *_: {1: 1.0})
    other = settings(batch_size=2, gradient_accumulation=3)
    assert with_best_batch(make_model(), corpus, other, cpu, path=path)[0].gradient_accumulation == 6


def test_nothing_is_searched_for_a_stage_that_is_done(make_model, corpus, settings, cpu, tmp_path, monkeypatch):
    monkeypatch.setattr(batch_search, "measure_speeds", lambda *_: pytest.fail("searched"))
    path, chosen = tmp_path / "batch_sizes.json", settings()
    assert with_best_batch(make_model(), corpus, chosen, cpu, path=path, done=True) == (chosen, None)
    assert not path.exists()
    path.write_text(json.dumps({"stage1": {"batch_size": 1, "gradient_accumulation": 2, "tokens_per_second": {}}}))
    found, entry = with_best_batch(make_model(), corpus, chosen, cpu, path=path, done=True)
    assert entry is not None
    assert found.batch_size == 1


def test_memory_for_nothing_is_one_line(make_model, corpus, settings, cpu, memory_for, tmp_path):
    memory_for(0)
    with pytest.raises(ResourceError, match=r"stage1: a micro-batch of 1 x 8 tokens .*gradient_checkpointing=true"):
        with_best_batch(make_model(), corpus, settings(), cpu, path=tmp_path / "batch_sizes.json")
    assert not (tmp_path / "batch_sizes.json").exists()


def test_other_errors_pass(make_model, corpus, settings, cpu, tmp_path, monkeypatch):
    def broken(self, batch, batch_idx):
        raise ZeroDivisionError

    monkeypatch.setattr(StageModule, "training_step", broken)
    with pytest.raises(ZeroDivisionError):
        with_best_batch(make_model(), corpus, settings(), cpu, path=tmp_path / "batch_sizes.json")


def test_main_memory_is_not_tried_beyond_the_estimate(make_model, corpus, settings, cpu, monkeypatch):
    monkeypatch.setattr(batch_search, "copy_fits", lambda model, trial, hardware, **_: trial.batch_size < 2)
    monkeypatch.setattr(batch_search, "measure", lambda load, tokens, trial, hardware: 7.0)
    assert batch_search.measure_speeds(make_model(), corpus, settings(batch_size=8), cpu) == {1: 7.0, 2: None}


def test_a_trial_needs_memory_for_its_copy_of_the_model(make_model, corpus, settings, cpu, monkeypatch):
    model, chosen = make_model(), settings(batch_size=1)
    arguments = {"vocabulary_size": 29, "ways": memory.ways_of(cpu, model)}
    total = memory.estimate_memory(model, chosen, **arguments).total
    for free, enough in ((total / 0.9 - 100, False), (total / 0.9 + 100, True)):
        monkeypatch.setattr(memory_check, "free_memory_bytes", lambda device, free=free: free)
        assert memory_check.copy_fits(model, chosen, cpu, vocabulary_size=29) is enough


def test_the_search_ends_where_larger_is_much_slower(make_model, corpus, settings, cpu, monkeypatch):
    speeds = {1: 10.0, 2: 20.0, 4: 17.0, 8: 15.9, 16: 100.0}
    monkeypatch.setattr(batch_search, "measure", lambda load, tokens, trial, hardware: speeds[trial.batch_size])
    found = batch_search.measure_speeds(make_model(), corpus, settings(batch_size=16), cpu)
    assert found == {1: 10.0, 2: 20.0, 4: 17.0, 8: 15.9}


@pytest.mark.parametrize(
    ("speeds", "size"),
    [
        ({1: 10.0, 2: 20.0, 4: 30.0}, 4),
        ({1: 10.0, 2: 29.5, 4: 30.0}, 2),
        ({1: 30.0, 2: 20.0}, 1),
        ({1: 10.0, 2: None}, 1),
        ({1: None}, None),
    ],
)
def test_the_smallest_of_the_fastest_is_chosen(speeds, size):
    assert batch_search.choose(speeds) == size


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "expected", "of_two"),
    [(4, 8, [1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16]), (3, 4, [1, 2, 4], [1, 2]), (5, 1, [1], [])],
)
def test_sizes_divide_the_sequences_of_a_step(batch_size, accumulation, expected, of_two, settings, cpu):
    chosen = settings(batch_size=batch_size, gradient_accumulation=accumulation)
    assert list(batch_search.sizes(chosen, cpu)) == expected
    assert list(batch_search.sizes(chosen, TWO)) == of_two
