"""Bits per byte of held-out text: negative log-likelihood in bits over UTF-8 bytes, document by document.

Legend of tensor names: B windows of a batch, L tokens of the longest window, V ids of the tokenizer.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from revocab.artifacts import TextScore
from revocab.errors import ConfigError, DataError, ModelError
from revocab.evaluation.windows import Window, batches_of, windows_of
from revocab.runtime.progress import bar

if TYPE_CHECKING:
    from tqdm import tqdm
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Logits turned to float32 at a time: 2**25 of them are 128 MiB, a few times that with the softmax's intermediates.
LOGITS_AT_ONCE = 2**25
SHORTEST_WINDOW = 4


def score_text(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[str],
    *,
    max_length: int,
    batch_tokens: int,
    device: str,
    bf16: bool = False,
) -> TextScore:
    """Score every document under the model, in the order given.

    A document is tokenised without special tokens (marks that stand in its text are text) behind one prefix, the
    tokenizer's bos or, without one, its eos. The prefix is context only and no end mark is counted, so the bits are
    those of the document's own tokens, whatever the vocabulary. Documents of more than `max_length` tokens are scored
    in overlapping windows, see `windows_of`. Rows of the output table beyond the tokenizer's ids are padding and take
    no probability. Lone surrogates, which UTF-8 cannot hold, are read as question marks.

    The score assumes a tokenizer that can spell every text; one that maps rare characters to `unk` or folds case looks
    better than it is.

    Args:
        max_length: tokens of a window, prefix included; at least 4.
        batch_tokens: tokens of a padded batch; memory grows with batch_tokens x V.
        device: where the model is moved to (and stays).
        bf16: compute under bfloat16 autocast; log-likelihoods are float32 and sums float64 in any case.

    Raises:
        DataError: no documents, or one without a single byte.
        ModelError: no bos and no eos token, or a model with fewer rows than the tokenizer has ids.
        ConfigError: a window too short to hold context.
    """
    if max_length < SHORTEST_WINDOW:
        raise ConfigError("evaluation.max_length", max_length, f"at least {SHORTEST_WINDOW} tokens")
    texts = [text.encode("utf-8", errors="replace").decode("utf-8") for text in documents]
    sizes = _byte_counts(texts)
    ids = _token_ids(tokenizer, texts)
    vocabulary_size = _vocabulary_size(tokenizer, model)
    bits = np.zeros(len(texts))
    model.to(torch.device(device))
    with _evaluating(model), bar("Scoring", total=len(texts), unit="document") as progress:
        for document, value in _window_bits(model, ids, vocabulary_size, max_length, batch_tokens, bf16, progress):
            bits[document] += value
    return TextScore(bits=bits, bytes=sizes, tokens=np.array([len(row) - 1 for row in ids], dtype=np.int64))


def _byte_counts(texts: Sequence[str]) -> np.ndarray:
    """(D,) int64 UTF-8 bytes of each document."""
    if not texts:
        raise DataError("The held-out set has no documents. Give a file with at least one.")
    sizes = np.array([len(text.encode("utf-8")) for text in texts], dtype=np.int64)
    if not sizes.all():
        raise DataError(f"Held-out document {int(sizes.argmin())} (counted from 0) is empty. Remove empty documents.")
    return sizes


def _token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
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


def _vocabulary_size(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """Ids that may take probability: all of the tokenizer's, also where they have gaps."""
    size = max(len(tokenizer), max(tokenizer.get_vocab().values()) + 1)
    rows = len(cast(torch.nn.Embedding, model.get_input_embeddings()).weight)
    if size > rows:
        raise ModelError(
            f"The tokenizer has {size} ids, the model's embedding table only {rows} rows: they do not belong together."
        )
    return size


@contextlib.contextmanager
def _evaluating(model: torch.nn.Module) -> Generator[None]:
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


def _window_bits(
    model: torch.nn.Module,
    ids: Sequence[Sequence[int]],
    vocabulary_size: int,
    max_length: int,
    batch_tokens: int,
    bf16: bool,
    progress: tqdm,
) -> Iterator[tuple[int, float]]:
    """(document, bits of its scored tokens) for every window; a long document moves the bar a part at a time."""
    windows = [window for number, row in enumerate(ids) for window in windows_of(number, len(row), max_length)]
    for batch in batches_of(windows, batch_tokens):
        nats_BL = _token_nats(model, batch, ids, vocabulary_size, bf16)
        for window, nats_L in zip(batch, nats_BL, strict=True):
            # nats_L[k] belongs to the token at start + k + 1, so scoring from `first` on means from first - start - 1.
            scored = nats_L[window.first - window.start - 1 : len(window) - 1]
            yield window.document, float(scored.sum()) / math.log(2)
            progress.update((window.end - window.first) / (len(ids[window.document]) - 1))


def _token_nats(
    model: torch.nn.Module, batch: Sequence[Window], ids: Sequence[Sequence[int]], vocabulary_size: int, bf16: bool
) -> np.ndarray:
    """(B, L - 1) float64 negative log-likelihood of each token but the first; arbitrary in the padding."""
    device = next(model.parameters()).device
    longest = max(len(window) for window in batch)
    ids_BL = torch.zeros(len(batch), longest, dtype=torch.long)
    mask_BL = torch.zeros(len(batch), longest, dtype=torch.long)
    for row, window in enumerate(batch):
        ids_BL[row, : len(window)] = torch.tensor(ids[window.document][window.start : window.end])
        mask_BL[row, : len(window)] = 1
    ids_BL, mask_BL = ids_BL.to(device), mask_BL.to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        logits_BLV = model(input_ids=ids_BL, attention_mask=mask_BL, use_cache=False).logits
    nats_BL = _cross_entropy_in_slices(logits_BLV[:, :-1, :vocabulary_size], ids_BL[:, 1:])
    return nats_BL.double().cpu().numpy()


def _cross_entropy_in_slices(logits_BLV: torch.Tensor, ids_BL: torch.Tensor) -> torch.Tensor:
    """(B, L) negative log-likelihood in nats, at least float32, a slice of positions at a time."""
    precision = torch.promote_types(logits_BLV.dtype, torch.float32)
    positions = max(1, LOGITS_AT_ONCE // (logits_BLV.shape[0] * logits_BLV.shape[2]))
    slices = [
        torch.nn.functional.cross_entropy(logits.transpose(1, 2).to(precision), ids, reduction="none")
        for logits, ids in zip(logits_BLV.split(positions, 1), ids_BL.split(positions, 1), strict=True)
    ]
    return torch.cat(slices, dim=1)
