"""The loss against a sum worked out token by token."""

import pytest
import torch

from revocab.training.loss import next_token_loss


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
