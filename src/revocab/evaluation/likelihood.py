"""What every likelihood needs: ids behind one prefix, the ids that may take probability, exact cross-entropy.

Legend of tensor names: B rows of a batch, L tokens of the longest row, V ids of the tokenizer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, cast

import torch

from revocab.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Logits turned to float32 at a time: 2**25 of them are 128 MiB, a few times that with the softmax's intermediates.
LOGITS_AT_ONCE = 2**25


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each document behind the prefix."""
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if prefix is None:
        raise ModelError("The tokenizer has neither a bos nor an eos token: nothing can stand before a document.")
    with _marks_read_as_text(tokenizer):
        encoded = tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,  # longer than the model's window is fine: documents are cut into windows
        )
    return [[prefix, *row] for row in encoded["input_ids"]]


@contextlib.contextmanager
def _marks_read_as_text(tokenizer: PreTrainedTokenizerBase) -> Generator[None]:
    """Puts back the backend's own switch, which `split_special_tokens` leaves turned."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    before = getattr(backend, "encode_special_tokens", False)
    try:
        yield
    finally:
        if backend is not None:
            backend.encode_special_tokens = before


def num_ids(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """Ids that may take probability: all of the tokenizer's, also where they have gaps."""
    size = max(len(tokenizer), max(tokenizer.get_vocab().values()) + 1)
    rows = len(cast(torch.nn.Embedding, model.get_input_embeddings()).weight)
    if size > rows:
        raise ModelError(
            f"The tokenizer has {size} ids, the model's embedding table only {rows} rows: they do not belong together."
        )
    return size


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Generator[None]:
    """No dropout and no gradients; the mode the model was in comes back afterwards.

    Not `inference_mode`: tensors made there and kept by the model, such as rotary tables, cannot be trained with later.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def cross_entropy_in_slices(logits_BLV: torch.Tensor, ids_BL: torch.Tensor) -> torch.Tensor:
    """(B, L) negative log-likelihood in nats, at least float32, a slice of positions at a time.

    V stays the last axis: softmax over one in the middle is many times slower on a GPU.
    """
    precision = torch.promote_types(logits_BLV.dtype, torch.float32)
    rows, vocabulary_size = logits_BLV.shape[0], logits_BLV.shape[2]
    positions = max(1, LOGITS_AT_ONCE // (rows * vocabulary_size))
    slices = [
        torch.nn.functional.cross_entropy(
            logits.reshape(-1, vocabulary_size).to(precision), ids.reshape(-1), reduction="none"
        ).view(rows, -1)
        for logits, ids in zip(logits_BLV.split(positions, 1), ids_BL.split(positions, 1), strict=True)
    ]
    return torch.cat(slices, dim=1)
