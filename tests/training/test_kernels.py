"""Fused kernels are put in and taken out again, whatever happens on the way; a stand-in takes liger-kernel's place."""

import importlib
import weakref
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from revocab.errors import ModelError
from revocab.training import Hardware, kernels, train_stage
from revocab.training.kernels import Kernels, why_plain
from revocab.training.memory import ways_of
from revocab.training.module import StageModule
from revocab.training.trainables import prepare

CPU = torch.device("cpu")
FUSED = Hardware(accelerator="cpu", devices=1, strategy="auto", kernels="fused", num_workers=0)
VOCABULARY = 29


@pytest.fixture
def liger(monkeypatch):
    """liger(then=...): what is put in changes a method and a name as liger-kernel does; `then` runs behind that."""
    code = importlib.import_module("transformers.models.llama.modeling_llama")

    def arm(then=lambda: None, factor=1.0):
        def apply(model, **_):
            norm = model.model.norm
            plain = norm.forward
            norm.__dict__["forward"] = lambda hidden: plain(hidden) * factor
            code.apply_rotary_pos_emb = lambda q, k, cos, sin: code.__dict__["original"](q, k, cos, sin)
            then()

        monkeypatch.setitem(code.__dict__, "original", code.apply_rotary_pos_emb)
        monkeypatch.setattr(kernels, "_patches", lambda: SimpleNamespace(_apply_liger_kernel_to_instance=apply))
        monkeypatch.setattr(kernels, "why_plain", lambda model, device, *, sharded: None)
        monkeypatch.setattr(kernels, "fused_next_token_loss", kernels.next_token_loss)
        return code

    return arm


def kernels_of(model, module=None, **changes):
    usual = {"wanted": "fused", "shape": (2, 8), "bf16": False, "graphs": False, "sharded": False}
    return Kernels(model, module or model, **(usual | changes))


def state_of(model, code):
    return [dict(part.__dict__) for part in model.modules()], dict(code.__dict__)


def test_they_are_in_until_they_are_taken_out(make_model, liger, caplog):
    model, code = make_model(), liger()
    before, ids = state_of(model, code), torch.arange(8).view(1, 8)
    logits = model(input_ids=ids).logits
    with caplog.at_level("INFO"):
        each = kernels_of(model)
        each.put_in(CPU, VOCABULARY)
    assert each.name == "liger"
    assert "forward" in model.model.norm.__dict__
    assert code.apply_rotary_pos_emb is not before[1]["apply_rotary_pos_emb"]
    torch.testing.assert_close(model(input_ids=ids).logits, logits)
    each.take_out()
    assert state_of(model, code) == before
    assert each.name == "liger"  # what the stage was trained with
    assert "Kernels: liger" in caplog.text


def test_frozen_layers_share_their_input_until_then(make_model, liger, settings):
    model, code = make_model(), liger()
    prepare(model, settings())
    before, layer = state_of(model, code), model.model.layers[0]
    each = kernels_of(model)
    each.put_in(CPU, VOCABULARY)
    assert each.name == "liger"
    assert all("forward" in part.__dict__ for part in (layer.self_attn.q_proj, layer.mlp.up_proj))
    assert "forward" not in layer.mlp.down_proj.__dict__
    each.take_out()
    assert state_of(model, code) == before


def test_those_of_another_formula_are_taken_out(make_model, liger, caplog):
    model, code = make_model(), liger(factor=1.5)
    before = state_of(model, code)
    each = kernels_of(model)
    each.put_in(CPU, VOCABULARY)
    assert (each.name, each.loss) == ("plain", kernels.next_token_loss)
    assert state_of(model, code) == before
    assert "plain ones are used" in caplog.text


@pytest.mark.parametrize("memory", [True, False])
def test_a_graph_that_cannot_be_recorded_is_done_without(memory, make_model, liger, monkeypatch, caplog):
    liger()
    error = torch.OutOfMemoryError("CUDA out of memory.") if not memory else RuntimeError("operation not permitted\nat")
    forgotten = []
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda *_: raises(error)())
    monkeypatch.setattr(kernels, "_forget_recording", forgotten.append)
    each = kernels_of(make_model(), wanted="auto", graphs=True)
    with caplog.at_level("INFO"), nullcontext() if memory else pytest.raises(torch.OutOfMemoryError):
        each.put_in(CPU, VOCABULARY)
    assert forgotten == [CPU]
    assert (each.name, each.static_gradients) == ("liger", False)
    assert ("Not recorded as a CUDA graph: operation not permitted\n" in caplog.text) is memory
    each.take_out()


def test_what_a_graph_holds_is_let_go(make_model, liger, monkeypatch):
    """torch's recorded modules are parts of cycles: they would stay until Python happens to look for these."""
    liger()
    held = []

    def record(module, _):
        gradient = torch.zeros(1)
        held.append(weakref.ref(gradient))
        module.forward = lambda _ids, whole=module: (whole, gradient)
        return module

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    each = kernels_of(make_model(), wanted="auto", graphs=True)
    each.put_in(CPU, VOCABULARY)
    assert (each.name, each.static_gradients) == ("liger, CUDA graph", True)
    each.take_out()
    assert held[0]() is None


def raises(error):
    def then():
        raise error

    return then


def test_what_does_not_run_leaves_nothing_behind(make_model, liger, caplog):
    """Half of it is put in when liger-kernel finds a part that it has no kernel for."""
    model, code = make_model(), liger(then=raises(NotImplementedError("no rope for Glm4 models.\nat length")))
    before = state_of(model, code)
    each = kernels_of(model)
    each.put_in(CPU, VOCABULARY)
    assert (each.name, each.loss) == ("plain", kernels.next_token_loss)
    assert state_of(model, code) == before
    assert "Fused kernels fail (NotImplementedError: no rope for Glm4 models.): the plain ones are used." in caplog.text


def test_memory_that_runs_out_passes_and_leaves_nothing_behind(make_model, liger):
    model, code = make_model(), liger(then=raises(torch.OutOfMemoryError("CUDA out of memory.")))
    before = state_of(model, code)
    with pytest.raises(torch.OutOfMemoryError):
        kernels_of(model).put_in(CPU, VOCABULARY)
    assert state_of(model, code) == before


@pytest.mark.parametrize("kind", ["tables", "lora"])
def test_a_stage_that_is_stopped_takes_them_out(kind, make_model, liger, corpus, settings, monkeypatch):
    model, code = make_model(), liger()
    names = dict(code.__dict__)

    def broken(*_):
        raise ModelError("stopped")

    monkeypatch.setattr("revocab.training.module.StageModule.optimizer_zero_grad", broken)
    with pytest.raises(ModelError):
        train_stage(model, corpus, settings(kind=kind, bf16=True), FUSED, folder=None, metrics_path=None)
    assert dict(code.__dict__) == names
    assert "forward" not in model.model.norm.__dict__


def test_a_stage_by_them_ends_as_a_plain_one(make_model, liger, corpus, settings, cpu):
    plain, record = train_stage(make_model(), corpus, settings(), cpu, folder=None, metrics_path=None)
    liger()
    fused, other = train_stage(make_model(), corpus, settings(), FUSED, folder=None, metrics_path=None)
    assert (record.kernels, other.kernels) == ("plain", "liger")
    for (name, value), (_, expected) in zip(fused.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(value, expected, msg=name)


def test_a_parameter_that_no_text_reaches_is_no_obstacle(make_model, liger, settings):
    model, _ = make_model(), liger()
    model.tower = torch.nn.Linear(2, 2)
    each = kernels_of(model, prepare(model, settings(kind="full", name="stage2")).module)
    each.put_in(CPU, VOCABULARY)
    assert each.name == "liger"
    each.take_out()


def test_weights_that_are_shared_out_are_trained_by_plain_kernels(make_model, monkeypatch):
    """A sharded layer's weights are whole inside the layer alone; neither loss nor sample could be computed."""
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: name)
    known = SimpleNamespace(MODEL_TYPE_TO_APPLY_LIGER_FN={"llama": None})
    monkeypatch.setattr(kernels, "_patches", lambda: known)
    assert why_plain(make_model(), "cuda", sharded=False) is None
    assert "shared out" in (why_plain(make_model(), "cuda", sharded=True) or "")
    for strategy, fused in (("ddp", True), ("fsdp", False)):
        hardware = Hardware(accelerator="gpu", devices=2, strategy=strategy, num_workers=0)
        assert ways_of(hardware, make_model()).fused is fused


@pytest.mark.parametrize("kind", ["tables", "lora_tables", "full"])
def test_gradients_that_are_added_in_place_change_no_bit(
    kind, make_model, corpus, settings, cpu, tmp_path, monkeypatch
):
    """As behind a CUDA graph; with a step that is skipped, and a stop in the step behind it."""
    chosen = settings(kind=kind, name="stage2", gradient_accumulation=2, checkpoint_every=2, skip_nonfinite=True)
    original = StageModule.training_step

    def step(self, batch, batch_idx):
        loss = original(self, batch, batch_idx)
        if stops and batch_idx == stops[0]:
            raise KeyboardInterrupt(stops.pop())
        return loss * float("nan") if batch_idx == 5 else loss

    def ends(name):
        model, record = train_stage(make_model(), corpus, chosen, cpu, folder=tmp_path / name, metrics_path=None)
        assert record.skipped_steps == 1
        return list(model.parameters())

    stops: list[int] = []
    monkeypatch.setattr(StageModule, "training_step", step)
    expected = ends("plain")
    monkeypatch.setattr(Kernels, "static_gradients", property(lambda self: True))
    assert all(map(torch.equal, ends("static"), expected))
    stops.append(7)
    with pytest.raises(KeyboardInterrupt):
        ends("stopped")
    assert all(map(torch.equal, ends("stopped"), expected))


def recorded_on_cpu(whole, sample):
    """What a CUDA graph gives: gradients in the same tensors each time, which the next forward pass overwrites."""
    parameters = [parameter for parameter in whole.parameters() if parameter.requires_grad]
    static = [torch.zeros_like(parameter) for parameter in parameters]

    class Replayed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, ids, *_):
            for each in static:
                each.fill_(float("nan"))
            with torch.enable_grad():
                loss = whole(ids)
                ctx.found = torch.autograd.grad(loss, parameters)
            return loss.detach()

        @staticmethod
        def backward(ctx, grad):
            for each, found in zip(static, ctx.found, strict=True):
                torch.mul(found, grad, out=each)
            return None, *(each.detach() for each in static)

    return lambda ids: Replayed.apply(ids, *parameters)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_stage_by_a_graph_ends_as_one_without(accumulation, make_model, liger, corpus, settings, monkeypatch):
    liger()
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda whole, sample: recorded_on_cpu(whole, sample))
    chosen = settings(gradient_accumulation=accumulation)
    ends = {}
    for wanted in ("fused", "auto"):
        hardware = replace(FUSED, kernels=wanted)
        model, record = train_stage(make_model(), corpus, chosen, hardware, folder=None, metrics_path=None)
        ends[record.kernels] = list(model.parameters())
    assert list(ends) == ["liger", "liger, CUDA graph"]
    assert all(map(torch.equal, *ends.values()))


def test_a_liger_kernel_of_other_versions_is_done_without(make_model, monkeypatch):
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(kernels, "_patches", raises(ImportError("liger-kernel requires transformers >= 6")))
    reason = why_plain(make_model(), "cuda", sharded=False)
    assert reason == "liger-kernel cannot be imported: liger-kernel requires transformers >= 6"
