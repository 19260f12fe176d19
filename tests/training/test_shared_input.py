"""Layers that share an input against the same layers apart: values, gradients, and that nothing is kept or left."""

import copy
import gc
import weakref
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from revocab.training import float8
from revocab.training.float8 import in_float8
from revocab.training.frozen import AsItIs
from revocab.training.loss import next_token_loss
from revocab.training.shared_input import SharedInput, shared_inputs
from revocab.training.trainables import prepare, training_mode

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


class Attention(nn.Module):
    """The layers alone; `order` says which are called, as a model's code would."""

    def __init__(self, bias=True, kind=torch.float64):
        super().__init__()
        for seed, (name, size) in enumerate((("q_proj", 32), ("k_proj", 16), ("v_proj", 16))):
            torch.manual_seed(seed)
            self.add_module(name, nn.Linear(32, size, bias=bias).to(kind).requires_grad_(False))

    def forward(self, x, order="qkv"):
        return [getattr(self, f"{name}_proj")(x) for name in order]


@pytest.fixture
def computed(monkeypatch):
    """Counts how often all layers of a group are computed together."""
    calls = []
    original = SharedInput.forward
    monkeypatch.setattr(SharedInput, "forward", lambda *args: calls.append(1) or original(*args))
    return calls


def an_input(kind=torch.float64, seed=9):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 5, 32, generator=generator, dtype=torch.float64).to(kind).requires_grad_()


def backward(outs):
    """A loss that is no sum, so that every output has a gradient of its own."""
    sum((out.double() * out.double().cos()).sum() for out in outs).backward()


@pytest.mark.parametrize("order", ["qkv", "vkq", "kvq", "qk", "v", "qqkkv", "qkvqkv"])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradient_are_those_of_the_layers_apart(order, bias, computed):
    module, ours, theirs = Attention(bias), an_input(), an_input()
    expected = module(theirs, order)
    with shared_inputs(module) as count:
        outs = module(ours, order)
    assert count == 1
    assert len(computed) >= 1
    for mine, other in zip(outs, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-14, atol=1e-14)
    backward(outs)
    backward(expected)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)


def test_one_call_computes_all_of_them(computed):
    module = Attention()
    with shared_inputs(module):
        for _ in range(4):
            module(an_input())
    assert len(computed) == 4


def test_an_output_without_a_gradient_adds_nothing():
    module, ours, theirs = Attention(), an_input(), an_input()
    with shared_inputs(module):
        backward(module(ours)[1:2])
    backward(module(theirs)[1:2])
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_another_input_for_each_is_computed_alone(computed):
    module = Attention()
    xs, twins = ([an_input(seed=seed) for seed in range(3)] for _ in range(2))
    layers = module.q_proj, module.k_proj, module.v_proj
    expected = [layer(x) for layer, x in zip(layers, twins, strict=True)]
    with shared_inputs(module):
        outs = [layer(x) for layer, x in zip(layers, xs, strict=True)]
        assert len(computed) == 1
        torch.testing.assert_close(outs, expected)
        again = module(xs[0])  # parts of another input that nobody took are not handed out now
    torch.testing.assert_close(again, module(xs[0]))
    backward(outs)
    backward(expected)
    for mine, other in zip(xs, twins, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_an_input_changed_in_place_is_another_one():
    module, leaf = Attention(), an_input()
    with shared_inputs(module):
        x = leaf * 1.0
        module.q_proj(x)
        with torch.no_grad():
            x.add_(1.0)
        found = module.k_proj(x)
    torch.testing.assert_close(found, module.k_proj(leaf + 1.0))


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_layers_compute_as_ever(without, computed):
    module = Attention()
    x = an_input()
    with shared_inputs(module), without():
        inside = [*module(x), *module(x.detach())]
    with torch.no_grad():
        expected = module(x) * 2
    assert not computed
    assert not any(out.requires_grad for out in inside)
    assert all(map(torch.equal, inside, expected))


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_types_under_autocast_are_those_of_a_linear_layer(weights, given):
    module, ours, theirs = Attention(kind=weights), an_input(given), an_input(given)
    with torch.autocast("cpu", torch.bfloat16):
        expected = module(theirs)
        with shared_inputs(module):
            outs = module(ours)
    for mine, other in zip(outs, expected, strict=True):
        assert mine.dtype == other.dtype == torch.bfloat16
        torch.testing.assert_close(mine, other)
    backward(outs)
    backward(expected)
    assert ours.grad.dtype == theirs.grad.dtype == given
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activations_may_be_computed_again(reentrant, computed):
    module, ours, theirs = Attention(), an_input(), an_input()
    with shared_inputs(module):
        outs = checkpoint(lambda x: tuple(out.sin() for out in module(x.sin())), ours, use_reentrant=reentrant)
        backward(outs)
    assert len(computed) >= 1
    backward([out.sin() for out in module(theirs.sin())])
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("order", ["qkv", "qk", "v"])
def test_nothing_is_kept(order):
    """Neither the input, though the graph lives, nor parts that were not handed out."""
    module, leaf = Attention(), an_input()
    with shared_inputs(module):
        x = leaf * 1.0  # whose own graph does not need it
        outs = module(x, order)
        kept = [weakref.ref(x), *(weakref.ref(out) for out in outs)]
        del x
        gc.collect()
        assert kept[0]() is None
        assert all(each() is not None for each in kept[1:])
        del outs
        gc.collect()
        assert all(each() is None for each in kept)


def test_nothing_is_kept_of_a_call_that_failed():
    module, leaf = Attention(), an_input()
    with shared_inputs(module):
        x = leaf * 1.0
        with pytest.raises(AttributeError):
            module(x, "qz")
        kept = weakref.ref(x)
        del x
        gc.collect()
        assert kept() is None


def has_rows_on_cpu():
    """Whether torch's CPU multiplies 8-bit floats with a scale per row (2.13 does, 2.11 does not)."""
    operand, scales = torch.zeros(16, 16).to(float8.E4M3), torch.ones(16, 1)
    try:
        torch._scaled_mm(operand, operand.t(), scale_a=scales, scale_b=scales.t(), out_dtype=torch.bfloat16)
    except RuntimeError:
        return False
    return True


def in_8_bits_on_cpu(monkeypatch):
    monkeypatch.setattr(float8, "require_float8", lambda: None)
    quantised = []

    def quantise(x):
        quantised.append(x.shape)
        return float8.quantise(x.detach())

    monkeypatch.setattr(float8, "_quantise_fast", quantise)
    return quantised


@pytest.mark.skipif(not has_rows_on_cpu(), reason="no 8-bit products with scales per row on this CPU")
@pytest.mark.parametrize("bias", [True, False])
def test_in_8_bits_the_input_is_quantised_once(bias, monkeypatch):
    quantised = in_8_bits_on_cpu(monkeypatch)
    module, ours, theirs = Attention(bias, torch.bfloat16), an_input(torch.bfloat16), an_input(torch.bfloat16)
    exact = copy.deepcopy(module).double()(theirs.double())
    module.get_output_embeddings = lambda: None
    with in_float8(module):
        apart = module(theirs)
        assert len(quantised) == 3
        with shared_inputs(module):
            outs = module(ours)
        assert len(quantised) == 4
        for mine, other, true in zip(outs, apart, exact, strict=True):
            assert mine.dtype == torch.bfloat16
            assert torch.equal(mine, other)
            torch.testing.assert_close(mine.double(), true, rtol=0.1, atol=0.15)
        backward(outs)
        backward(apart)
        assert len(quantised) == 4 + 6
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=2e-2, atol=2e-2)
    assert "forward" not in module.q_proj.__dict__


def test_a_layer_in_8_bits_and_one_that_is_not_stay_apart(monkeypatch):
    in_8_bits_on_cpu(monkeypatch)
    module = Attention()
    module.k_proj = nn.Linear(32, 8).requires_grad_(False)  # too small a side
    module.get_output_embeddings = lambda: None
    with in_float8(module), shared_inputs(module) as count:
        assert count == 0


def test_layers_that_are_trained_or_wrapped_stay_apart(make_model, settings):
    for kind, groups in (("tables", 4), ("full", 0), ("first_last", 0), ("lora", 0), ("lora_tables", 0)):
        module = prepare(make_model(), settings(kind=kind, name="stage2")).module
        with shared_inputs(module) as count:
            assert count == groups, kind


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2", "Gemma3"])
def test_a_model_has_the_same_loss_and_the_same_gradients_of_its_tables(family, checkpointing, make_model, settings):
    model = make_model(family).double()
    prepare(model, settings())
    ids = torch.randint(0, 29, (2, 9), generator=torch.Generator().manual_seed(0))
    tables = [parameter for parameter in model.parameters() if parameter.requires_grad]
    results = []
    for put_in in (nullcontext, shared_inputs):
        torch.manual_seed(1)  # of dropout
        with training_mode(model, gradient_checkpointing=checkpointing), put_in(model):
            loss = next_token_loss(model, ids, 29)
            results.append([loss, *torch.autograd.grad(loss, tables)])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6 if mine.dtype == torch.float32 else 1e-9, atol=1e-12)


def test_methods_and_hooks_are_put_back(make_model, settings):
    model = make_model()
    prepare(model, settings())
    before = [(dict(part.__dict__), dict(part._forward_hooks)) for part in model.modules()]
    with shared_inputs(model):
        assert "forward" in model.model.layers[0].mlp.up_proj.__dict__
    assert [(part.__dict__, part._forward_hooks) for part in model.modules()] == before


def test_a_gradient_is_added_up_by_products():
    """By hand: y1 = 2 x, y2 = 3 x, so that dx = 2 dy1 + 3 dy2."""
    x = torch.tensor([[1.0]], requires_grad=True)
    first, second = SharedInput.apply(x, [AsItIs(torch.tensor([[2.0]]), None), AsItIs(torch.tensor([[3.0]]), None)])
    assert (first.item(), second.item()) == (2.0, 3.0)
    (5 * first + 7 * second).backward()
    assert x.grad.item() == 2 * 5 + 3 * 7
