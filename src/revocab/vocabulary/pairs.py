"""Tokens that two vocabularies share: their rows need no alignment, and they are what alignments are fitted on."""

from collections import defaultdict
from typing import Literal

import numpy as np

from revocab.artifacts import Pairs, Vocabulary
from revocab.vocabulary.surfaces import ROLES


def exact_pairs(source: Vocabulary, target: Vocabulary, *, by: Literal["surface", "string"] = "surface") -> Pairs:
    """Target tokens that the source vocabulary has too.

    By `surface`: tokens that stand for the same bytes, single-byte pieces among them; special tokens never (their
    pairs are found by role). Where several source tokens share a surface (`A` and the byte piece `<0x41>`), a regular
    target token gets the regular one and a byte piece the byte piece, if there is one; among equals the same string
    wins, then the lowest id. Several target tokens may share one source token.

    By `string`: tokens whose raw strings are equal, special or not, as the published TokAlign code (ZNLP/TokAlign,
    cal_trans_matrix.py) compares them: `▁the` and `Ġthe` differ then.
    """
    if by == "string":
        ids = {token: token_id for token_id, token in enumerate(source.tokens) if token}
        return _pairs({row: ids[token] for row, token in enumerate(target.tokens) if token in ids})
    if by != "surface":
        raise ValueError(f'by must be "surface" or "string", got {by!r}')
    candidates: dict[bytes, list[int]] = defaultdict(list)
    for token_id, surface in enumerate(source.surfaces):
        if surface:
            candidates[surface].append(token_id)
    return _pairs(
        {
            row: _best(candidates[surface], source, target, row)
            for row, surface in enumerate(target.surfaces)
            if surface and surface in candidates
        }
    )


def role_pairs(source: Vocabulary, target: Vocabulary) -> Pairs:
    """Target tokens with a special role (eos, bos, unk, pad) that the source has a token for too.

    A target token that has several roles takes the first that the source knows, in the order above: what ends a text
    is what generation stops at.
    """
    found: dict[int, int] = {}
    for role in ROLES:
        if role in source.roles and role in target.roles:
            found.setdefault(target.roles[role], source.roles[role])
    return _pairs(found)


def _best(ids: list[int], source: Vocabulary, target: Vocabulary, row: int) -> int:
    if len(ids) == 1:
        return ids[0]
    wanted = bool(target.single_byte[row])
    return min(
        ids, key=lambda each: (source.single_byte[each] != wanted, source.tokens[each] != target.tokens[row], each)
    )


def _pairs(source_of: dict[int, int]) -> Pairs:
    rows = sorted(source_of)
    return Pairs(
        target_ids=np.array(rows, dtype=np.int64), source_ids=np.array([source_of[row] for row in rows], dtype=np.int64)
    )
