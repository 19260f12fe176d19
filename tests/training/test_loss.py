"""The loss against a sum worked out token by token."""

import pytest
import torch
from torch.nn import functional

from revocab.training import loss as losses
from revocab.training.loss import next_token_loss
from revocab.training.trainables import prepare

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.mark.parametrize("vocabulary", [29, 23])
def test_mean_of_next_token_losses(vocabulary, make_model):
    """With 23 tokens in a table of 29 rows, the other 6 take no probability."""
    model = make_model()
    ids = torch.randint(0, vocabulary, (2, 7), generator=torch.Generator().manual_seed(0))
    logits = model(input_ids=ids).logits.double()
    expected = [
        torch.logsumexp(logits[b, t, :vocabulary], 0) - logits[b, t, ids[b, t + 1]] for b in range(2) for t in range(6)
    ]
    loss = next_token_loss(model, ids, vocabulary)
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def test_equals_the_loss_of_transformers(make_model):
    model = make_model("GPTNeoX")
    ids = torch.randint(0, 29, (3, 9), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(next_token_loss(model, ids, 29), model(input_ids=ids, labels=ids).loss)


def test_masked_rows_get_no_gradient(make_model):
    model = make_model()
    next_token_loss(model, torch.tensor([[1, 2, 3, 4]]), 23).backward()
    gradient = model.get_output_embeddings().weight.grad
    assert gradient[:23].any()
    assert not gradient[23:].any()


def by_torch(logits_PV, labels_P, losses_P, count, softcap):
    """What the Triton kernel does, in float64 and out of place."""
    with torch.enable_grad():
        free = logits_PV.detach().double().requires_grad_()
        capped = free if softcap is None else softcap * torch.tanh(free / softcap)
        each = functional.cross_entropy(capped, labels_P, ignore_index=losses.NO_LABEL, reduction="none") / count
        each.sum().backward()
    losses_P.copy_(each.detach())
    logits_PV.copy_(free.grad)


@pytest.mark.parametrize("at_once", [29, 29 * 5, 2**28])
@pytest.mark.parametrize(
    ("family", "kind", "tied"),
    [("Llama", "tables", False), ("Llama", "full", True), ("Llama", "lora", False), ("GPTNeoX", "lora_tables", False),
     ("Gemma3", "full", True), ("Gemma3", "lora", True)],
)  # fmt: skip
def test_the_loss_without_all_logits_has_the_same_value_and_gradients(
    family, kind, tied, at_once, make_model, settings, monkeypatch
):
    """Rows of the table beyond the tokens are padding; a piece may be of one position, or of all."""
    monkeypatch.setattr(losses, "_cross_entropy_in_place", by_torch)
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", at_once)
    model = make_model(family, tied=tied, rows=32).double()
    module = prepare(model, settings(kind=kind, name="stage2")).module.double().eval()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    ids = torch.randint(0, 29, (3, 7), generator=torch.Generator().manual_seed(0))
    found = [each(module, ids, 29) for each in (losses.next_token_loss, losses.fused_next_token_loss)]
    gradients = [torch.autograd.grad(3 * value, trained) for value in found]  # as behind gradient accumulation
    torch.testing.assert_close(found[1].double(), found[0].double(), rtol=1e-5, atol=0)
    for mine, other in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-7)
    assert any(bool(each.any()) for each in gradients[0])


def test_capped_logits_are_capped(make_model, monkeypatch):
    """As of Gemma 2: the loss must know, for it never calls the model's own head."""
    monkeypatch.setattr(losses, "_cross_entropy_in_place", by_torch)
    model = make_model("Gemma3").double()
    with torch.no_grad():
        model.lm_head.weight.mul_(100)
    ids = torch.arange(14).view(2, 7)
    free = losses.fused_next_token_loss(model, ids, 29)
    model.config.final_logit_softcapping = 0.5
    capped = losses.fused_next_token_loss(model, ids, 29)
    torch.testing.assert_close(capped.double(), losses.next_token_loss(model, ids, 29).double(), rtol=1e-5, atol=0)
    assert abs(float(free - capped)) > 0.01


def test_the_gradient_cannot_be_asked_for_twice(make_model, monkeypatch):
    """It is multiplied in place; a second time would give another one."""
    monkeypatch.setattr(losses, "_cross_entropy_in_place", by_torch)
    model = make_model()
    loss = losses.fused_next_token_loss(model, torch.arange(14).view(2, 7), 29)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("at_once", [29 * 5, 2**28])
def test_a_table_in_float32_gets_its_gradient_in_float32(at_once, monkeypatch):
    """Of hidden states in bfloat16, as a stage has them; rows beyond the tokens get none."""
    monkeypatch.setattr(losses, "_cross_entropy_in_place", by_torch)
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(12, 8, generator=generator).bfloat16().requires_grad_()
    table = torch.randn(32, 8, generator=generator).bfloat16().float().requires_grad_()
    labels = torch.randint(0, 29, (12,), generator=generator)
    losses.LinearCrossEntropy.apply(hidden, table, 29, labels, 12, None).backward()
    exact = [each.detach().double().requires_grad_() for each in (hidden, table)]
    functional.cross_entropy(exact[0] @ exact[1][:29].t(), labels).backward()
    for mine, true in zip((hidden.grad, table.grad), (exact[0].grad, exact[1].grad), strict=True):
        torch.testing.assert_close(mine.double(), true, rtol=2e-2, atol=2e-3)
    assert (hidden.grad.dtype, table.grad.dtype) == (torch.bfloat16, torch.float32)
    assert not table.grad[29:].any()
