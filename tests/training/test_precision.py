"""What a stage computes in, and that nothing of it is left behind."""

import pytest
import torch

from revocab.errors import ConfigError
from revocab.training import float8, train_stage
from revocab.training.float8 import E4M3, frozen_linears, quantise
from revocab.training.precision import computing_in
from revocab.training.trainables import prepare

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.mark.parametrize("kind", ["tables", "lora", "lora_tables", "first_last", "full"])
def test_frozen_weights_are_low_inside_and_as_before_afterwards(kind, make_model, settings):
    model = make_model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    prepared = prepare(model, settings(kind=kind, bf16=True, name="stage2"))
    with computing_in(prepared.module, model.get_input_embeddings(), prepared_settings(settings, kind), sharded=False):
        for parameter in prepared.module.parameters():
            assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16)
        hidden = model.get_input_embeddings()(torch.tensor([1]))
        assert hidden.dtype == torch.bfloat16
    assert model.get_input_embeddings()(torch.tensor([1])).dtype == torch.float32
    after = dict(prepared.finish().named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())


def prepared_settings(settings, kind, **changes):
    return settings(kind=kind, bf16=True, name="stage2", **changes)


def test_without_bf16_nothing_is_changed(make_model, settings):
    model = make_model()
    prepare(model, settings())
    with computing_in(model, model.get_input_embeddings(), settings(), sharded=False):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert model.get_input_embeddings()(torch.tensor([1])).dtype == torch.float32


def test_a_stage_in_bf16_follows_one_in_fp32_and_leaves_the_body_exact(make_model, corpus, settings, cpu):
    losses = {}
    for bf16 in (False, True):
        model = make_model()
        body = model.model.layers[0].mlp.up_proj.weight.detach().clone()
        trained, record = train_stage(model, corpus, settings(bf16=bf16, steps=12), cpu, folder=None, metrics_path=None)
        assert torch.equal(trained.model.layers[0].mlp.up_proj.weight, body)
        assert {parameter.dtype for parameter in trained.parameters()} == {torch.float32}
        losses[bf16] = record.loss_last
    assert losses[True] == pytest.approx(losses[False], rel=5e-3)


def test_without_master_weights_small_steps_round_to_nothing(make_model, corpus, settings, cpu):
    """2e-5 moves a weight of 0.1 by less than a 256th of it: in bfloat16 it stays."""
    moved = {}
    for master in (True, False):
        model = make_model()
        with torch.no_grad():
            model.lm_head.weight.copy_(torch.full_like(model.lm_head.weight, 0.125))
        changes = {"bf16": True, "master_weights": master, "learning_rate": 2e-5, "weight_decay": 0.0}
        trained, _ = train_stage(model, corpus, settings(**changes), cpu, folder=None, metrics_path=None)
        moved[master] = int((trained.lm_head.weight != 0.125).sum())
        assert {parameter.dtype for parameter in trained.parameters()} == {torch.float32}
    assert moved[True] > 0
    assert moved[False] == 0


def test_rows_in_8_bits_are_as_exact_as_the_format():
    rows = torch.randn(50, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows *= torch.logspace(-6, 6, 50, dtype=torch.float64)[:, None]
    eight, scale = quantise(rows)
    assert eight.dtype == E4M3
    assert scale.shape == (50, 1)
    error = (eight.double() * scale.double() - rows).abs()
    assert bool((error <= rows.abs() / 16 + scale.double() / 512).all())  # 3 bits of mantissa; subnormals near 0
    assert error.max() > 0


@pytest.mark.parametrize("kind", ["tables", "lora", "lora_tables"])
def test_8_bits_are_for_frozen_layers_of_the_body_alone(kind, make_model, settings):
    """Not for the output table: the fused loss reads it as it is, and scores on the way would differ from it."""
    model = make_model(rows=32, hidden_size=16, intermediate_size=32)
    module = prepare(model, settings(kind=kind, name="stage2")).module
    assert model.lm_head.weight.requires_grad is (kind != "lora")
    found = frozen_linears(module)
    assert len(found) == 2 * 5  # q, o, gate, up, down of two layers; k and v have 8 rows
    assert model.lm_head not in found


def test_rows_of_nothing_stay_nothing():
    eight, scale = quantise(torch.zeros(2, 16))
    assert not eight.float().any()
    assert bool((scale > 0).all())


def test_quantising_is_compiled_once_for_a_width(monkeypatch):
    """With the width as a number, and not anew for another number of rows or another state of autograd."""
    compiled = []

    def backend(graph, inputs):
        compiled.append([tuple(each.shape) for each in inputs if isinstance(each, torch.Tensor) and each.ndim == 2])
        return graph.forward

    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: plain(function, **options, backend=backend))
    monkeypatch.setattr(float8, "_compiled", None)
    for rows in (3, 40):
        for width in (32, 64, 48):
            for gradient in (True, False):
                x = torch.randn(rows, width, requires_grad=gradient)
                with torch.set_grad_enabled(gradient), torch.autocast("cpu", torch.bfloat16, enabled=gradient):
                    eight, scale = float8._quantise_fast(x)
                assert torch.equal(eight.float(), quantise(x)[0].float())
                assert torch.equal(scale, quantise(x)[1])
                assert not scale.requires_grad
    assert [shape[1] for (shape,) in compiled] == [32, 64, 48]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_8_bits_are_refused_where_no_device_multiplies_them(settings):
    with pytest.raises(ConfigError, match=r"vocab\.fp8"):
        settings(bf16=True, fp8=True).check()


@pytest.mark.parametrize("change", [{"fp8": True}, {"master_weights": False}])
def test_they_need_bf16(change, settings):
    with pytest.raises(ConfigError, match=r"vocab\.bf16=false"):
        settings(bf16=False, **change).check()
