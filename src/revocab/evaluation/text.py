"""Bits per byte of held-out text: negative log-likelihood in bits over UTF-8 bytes, document by document.

Legend of tensor names: B windows of a batch, L tokens of the longest window, V ids of the tokenizer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from revocab.artifacts import TextScore
from revocab.errors import ConfigError, DataError
from revocab.evaluation.likelihood import cross_entropy_in_slices, evaluating, num_ids, token_ids
from revocab.evaluation.windows import Window, batches_of, windows_of
from revocab.runtime.progress import bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHORTEST_WINDOW = 4
SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
SENTENCE_CHARACTERS = (60, 240)  # that a sentence should have to be worth showing


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
    ids = token_ids(tokenizer, texts)
    vocabulary_size = num_ids(tokenizer, model)
    bits = np.zeros(len(texts))
    model.to(torch.device(device))
    with evaluating(model), bar("Scoring", total=len(texts), unit="document") as progress:
        for window, nats in _window_nats(model, ids, vocabulary_size, max_length, batch_tokens, bf16):
            bits[window.document] += float(nats.sum()) / math.log(2)
            # A long document moves the bar a part at a time.
            progress.update((window.end - window.first) / (len(ids[window.document]) - 1))
    return TextScore(bits=bits, bytes=sizes, tokens=np.array([len(row) - 1 for row in ids], dtype=np.int64))


def sentences(documents: Sequence[str], count: int) -> list[str]:
    """A sentence of each of the first `count` documents: its first one of a good length, or what it begins with."""
    shortest, longest = SENTENCE_CHARACTERS
    found = []
    for document in documents[:count]:
        parts = [part.strip() for part in SENTENCE_END.split(document)]
        good = (part for part in parts if shortest <= len(part) <= longest)
        found.append(next(good, document.strip()[:longest].strip()))
    return [text for text in found if text]


def _byte_counts(texts: Sequence[str]) -> np.ndarray:
    """(D,) int64 UTF-8 bytes of each document."""
    if not texts:
        raise DataError("The held-out set has no documents. Give a file with at least one.")
    sizes = np.array([len(text.encode("utf-8")) for text in texts], dtype=np.int64)
    if not sizes.all():
        raise DataError(f"Held-out document {int(sizes.argmin())} (counted from 0) is empty. Remove empty documents.")
    return sizes


def token_bits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[str],
    *,
    max_length: int,
    batch_tokens: int,
    device: str,
) -> list[tuple[list[int], list[float]]]:
    """Each document's ids and the bits of each, which add up to those of `score_text`; arguments as there."""
    ids = token_ids(tokenizer, documents)
    bits = [np.zeros(len(row) - 1) for row in ids]
    model.to(torch.device(device))
    with evaluating(model):
        for window, nats in _window_nats(model, ids, num_ids(tokenizer, model), max_length, batch_tokens, False):
            bits[window.document][window.first - 1 : window.end - 1] = nats / math.log(2)
    return [(row[1:], values.tolist()) for row, values in zip(ids, bits, strict=True)]


def _window_nats(
    model: torch.nn.Module,
    ids: Sequence[Sequence[int]],
    vocabulary_size: int,
    max_length: int,
    batch_tokens: int,
    bf16: bool,
) -> Iterator[tuple[Window, np.ndarray]]:
    """Every window and the float64 negative log-likelihood of each token that it scores, first ... end - 1."""
    windows = [window for number, row in enumerate(ids) for window in windows_of(number, len(row), max_length)]
    for batch in batches_of(windows, batch_tokens):
        nats_BL = _token_nats(model, batch, ids, vocabulary_size, bf16)
        for window, nats_L in zip(batch, nats_BL, strict=True):
            # nats_L[k] belongs to the token at start + k + 1, so scoring from `first` on means from first - start - 1.
            yield window, nats_L[window.first - window.start - 1 : len(window) - 1]


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
    nats_BL = cross_entropy_in_slices(logits_BLV[:, :-1, :vocabulary_size], ids_BL[:, 1:])
    return nats_BL.double().cpu().numpy()
