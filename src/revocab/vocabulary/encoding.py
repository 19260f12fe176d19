"""Texts as ids and back, without the marks that a tokenizer would add."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from revocab.vocabulary.spelling import undisturbed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_texts(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[list[int]]:
    """The ids of every text alone; truncation and padding that the tokenizer was saved with do not apply."""
    with undisturbed(tokenizer.backend_tokenizer) as backend:
        encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def decode_texts(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[Sequence[int]]) -> list[str]:
    """The text of every list of ids, special tokens left out."""
    return tokenizer.backend_tokenizer.decode_batch([list(each) for each in ids], skip_special_tokens=True)
