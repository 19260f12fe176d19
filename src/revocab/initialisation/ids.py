"""What a model's configs say about its vocabulary: its size, and the ids of special tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
# Settings of generation that name ids of the old vocabulary: in the new one they would name other tokens.
STALE = (
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
    "force_words_ids",
    "sequence_bias",
)


def tokenizer_length(tokenizer: PreTrainedTokenizerBase) -> int:
    """The number of table rows that a tokenizer needs: its highest id + 1, which counts added tokens and gaps."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def set_vocabulary_size(model: PreTrainedModel, rows: int) -> None:
    """In the config, in a nested text config, and in the modules that keep a copy for their loss."""
    for config in {id(c): c for c in (model.config, model.config.get_text_config(decoder=True))}.values():
        if hasattr(config, "vocab_size"):
            config.vocab_size = rows
    for module in model.modules():
        if "vocab_size" in module.__dict__:
            module.__dict__["vocab_size"] = rows


def set_special_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, padding_ids: Sequence[int]) -> None:
    """Carry bos, eos and pad of the tokenizer over to config and generation config; suppress ids without a token."""
    configs = [model.config, model.config.get_text_config(decoder=True)]
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        configs.append(generation)
        for key in STALE:
            if getattr(generation, key, None) is not None:
                setattr(generation, key, None)
        if len(padding_ids):
            generation.suppress_tokens = list(padding_ids)
    for config in configs:
        for key in SPECIAL:
            setattr(config, key, getattr(tokenizer, key))
