"""The fused adapter against peft's own forward pass and against the formula, in float64."""

import copy

import pytest
import torch

from revocab.training.adapters import AdaptedLinear, fused_adapters
from revocab.training.frozen import AsItIs
from revocab.training.trainables import prepare

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def operands(rows=7, inputs=6, outputs=5, rank=2):
    generator = torch.Generator().manual_seed(0)
    shapes = ((rows, inputs), (outputs, inputs), (rank, inputs), (outputs, rank))
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]


def by_formula(x, w, a, b, scale, mask, dropout):
    dropped = x * mask / (1 - dropout)
    return x @ w.t() + scale * (dropped @ a.t()) @ b.t()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_value_and_gradients_follow_the_formula(dropout):
    ours, theirs = operands(), operands()
    torch.manual_seed(3)
    x, w, a, b = ours
    out = AdaptedLinear.apply(x, AsItIs(w.detach(), None), a, b, 0.7, dropout)
    torch.manual_seed(3)
    mask = torch.native_dropout(torch.ones_like(x), dropout, True)[1] if dropout else torch.ones_like(x)
    assert not dropout or 0 < mask.double().mean() < 1
    expected = by_formula(*theirs, 0.7, mask, dropout)
    torch.testing.assert_close(out, expected)
    upstream = torch.randn(out.shape, dtype=out.dtype)
    out.backward(upstream)
    expected.backward(upstream)
    assert w.grad is None
    for mine, other in ((ours[index], theirs[index]) for index in (0, 2, 3)):
        torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize("family", ["Llama", "GPTNeoX", "Gemma3", "Qwen2"])
def test_an_adapted_model_gives_what_peft_gives(family, make_model, settings):
    module = prepare(make_model(family).double(), settings(kind="lora", name="stage2")).module.double().eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    ids = torch.arange(10).view(2, 5)
    results = []
    for fuse in (False, True):
        twin = copy.deepcopy(module)
        if fuse:
            with fused_adapters(twin) as count:
                assert count == sum("lora_A" in name for name, _ in twin.named_parameters())
                out = twin(input_ids=ids).logits
        else:
            out = twin(input_ids=ids).logits
        out.square().sum().backward()
        results.append([out, *(p.grad for p in twin.parameters() if p.requires_grad)])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other)


def test_what_is_not_a_plain_adapter_stays(make_model, settings):
    prepared = prepare(make_model(), settings(kind="lora", name="stage2"))
    prepared.module.merge_adapter()
    with fused_adapters(prepared.module) as count:
        assert count == 0


def test_methods_are_put_back(make_model, settings):
    module = prepare(make_model(), settings(kind="lora", name="stage2")).module
    before = [dict(part.__dict__) for part in module.modules()]
    with fused_adapters(module):
        pass
    assert [part.__dict__.keys() for part in module.modules()] == [each.keys() for each in before]
