"""A tokenizer's whole vocabulary in the common form that everything downstream works on."""

from typing import TYPE_CHECKING

import numpy as np

from revocab.artifacts import Vocabulary
from revocab.vocabulary.spelling import Spelling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("eos", "bos", "unk", "pad")


def read_vocabulary(tokenizer: "PreTrainedTokenizerBase") -> Vocabulary:
    """Every token with the bytes that it stands for (see `Vocabulary`), indexed by id.

    The length is `len(tokenizer)`, or the largest id + 1 where ids have gaps. Special, with the empty surface, are the
    added tokens that are marked so (SentencePiece control pieces are), the unknown token, and ids that no token uses.
    Added tokens that are not special, such as domain terms, stand for their own text.

    Raises:
        ModelError: a kind of tokenizer whose tokens cannot be read as bytes.
    """
    spelling = Spelling.of(tokenizer.backend_tokenizer)
    vocabulary = tokenizer.get_vocab()
    size = _rows(tokenizer, vocabulary)
    tokens, surfaces = [""] * size, [b""] * size
    special, single_byte = np.ones(size, dtype=bool), np.zeros(size, dtype=bool)
    special_ids, added_ids = _added_ids(tokenizer)
    for token, token_id in vocabulary.items():
        tokens[token_id] = token
        if token_id in special_ids:
            continue
        surface = token.encode() if token_id in added_ids else spelling.surface(token)
        surfaces[token_id] = surface
        special[token_id] = False
        is_part_of_character = len(surface) == 1 and surface[0] >= 0x80
        single_byte[token_id] = is_part_of_character or spelling.is_byte_piece(token)
    return Vocabulary(
        tokens=tuple(tokens),
        surfaces=tuple(surfaces),
        special=special,
        single_byte=single_byte,
        roles=role_ids(tokenizer),
    )


def vocabulary_size(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Rows that an embedding table for this tokenizer needs."""
    return _rows(tokenizer, tokenizer.get_vocab())


def _rows(tokenizer: "PreTrainedTokenizerBase", vocabulary: dict[str, int]) -> int:
    return max(len(tokenizer), max(vocabulary.values()) + 1)


def role_ids(tokenizer: "PreTrainedTokenizerBase") -> dict[str, int]:
    """Id of each role that the tokenizer has."""
    ids = {role: getattr(tokenizer, f"{role}_token_id") for role in ROLES}
    return {role: token_id for role, token_id in ids.items() if token_id is not None}


def _added_ids(tokenizer: "PreTrainedTokenizerBase") -> tuple[set[int], set[int]]:
    """Ids of special tokens, and of added tokens that are plain text unknown to the tokenizer's model."""
    backend = tokenizer.backend_tokenizer
    in_model = backend.model.token_to_id
    added = tokenizer.added_tokens_decoder
    special = {token_id for token_id, token in added.items() if token.special} | set(role_ids(tokenizer).values())
    unknown = backend.token_to_id(getattr(backend.model, "unk_token", None) or "")
    if unknown is not None:
        special.add(unknown)
    return special, {token_id for token_id, token in added.items() if in_model(token.content) is None}
