"""Tokens of one vocabulary cut by another tokenizer: nothing added, nothing lost, cut as the tokenizer would."""

import itertools
import json
import os
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from revocab.artifacts import Vocabulary
from revocab.vocabulary import cut_into_pieces, load_tokenizer, read_vocabulary
from revocab.vocabulary.spelling import BYTE_TO_CHARACTER


def target_of(*surfaces: bytes) -> Vocabulary:
    return Vocabulary(
        tokens=tuple(f"token {index}" for index in range(len(surfaces))),
        surfaces=surfaces,
        special=np.array([not surface for surface in surfaces]),
        single_byte=np.zeros(len(surfaces), dtype=bool),
        roles={},
    )


def cut(tokenizer, *surfaces: bytes) -> list[list[str]]:
    source = read_vocabulary(tokenizer)
    pieces = cut_into_pieces(tokenizer, source, target_of(*surfaces))
    assert len(pieces) == len(surfaces)
    return [[source.tokens[piece] for piece in pieces[row]] for row in range(len(surfaces))]


texts = st.text(st.characters(codec="utf-8"), min_size=1).map(str.encode)
words = st.lists(st.sampled_from(["the", "heart", " ", "  ", "\n", "β", "中文", "▁", "s"]), min_size=1).map(
    lambda parts: "".join(parts).encode()
)
surfaces = st.lists(texts | words | st.binary(min_size=1, max_size=12), min_size=1, max_size=8)
many = settings(max_examples=100, deadline=None)


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_joined_pieces_are_the_surface(kind, request):
    tokenizer = request.getfixturevalue(kind)
    source = read_vocabulary(tokenizer)

    @many
    @given(surfaces=surfaces)
    def check(surfaces):
        pieces = cut_into_pieces(tokenizer, source, target_of(*surfaces))
        joined = [b"".join(source.surfaces[piece] for piece in pieces[row]) for row in range(len(surfaces))]
        assert joined == surfaces
        assert not source.special[pieces.ids].any()

    check()


def merge_by_rank(symbols: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """BPE as Sennrich et al. 2016 define it, slowly: join the pair that was learned first, until none is left."""
    while True:
        pairs = [(ranks[pair], index) for index, pair in enumerate(itertools.pairwise(symbols)) if pair in ranks]
        if not pairs:
            return symbols
        _, index = min(pairs)
        symbols = [*symbols[:index], symbols[index] + symbols[index + 1], *symbols[index + 2 :]]


@many
@given(surface=texts | words)
def test_byte_level_pieces_are_those_of_plain_bpe(byte_level, surface):
    merges = json.loads(byte_level.backend_tokenizer.to_str())["model"]["merges"]
    ranks = {tuple(pair): rank for rank, pair in enumerate(merges)}
    assert cut(byte_level, surface) == [merge_by_rank([BYTE_TO_CHARACTER[byte] for byte in surface], ranks)]


@many
@given(surface=words)
def test_a_surface_that_begins_a_text_is_cut_as_the_tokenizer_cuts_it(sentencepiece, surface):
    """There the tokenizer itself writes the mark that stands for the leading space."""
    if "▁".encode() in surface:
        return
    ids = sentencepiece(surface.decode(), add_special_tokens=False).input_ids
    assert cut(sentencepiece, b" " + surface) == [sentencepiece.convert_ids_to_tokens(ids)]


def test_no_word_start_is_added_or_lost(sentencepiece, unigram):
    first, second, third = cut(sentencepiece, b"the", b" the", b"  the  ")
    assert "".join(first) == "the"
    assert "".join(second) == "▁the"
    assert "".join(third) == "▁▁the▁▁"
    assert cut(unigram, b"the", b" the", b"  the", b"hearts") == [["the"], ["▁the"], ["▁", "▁the"], [*"heart", "s"]]


def test_what_is_no_character_is_spelled_by_bytes(sentencepiece):
    half = "中".encode()[:2]
    assert cut(sentencepiece, half) == [["<0xE4>", "<0xB8>"]]
    assert cut(sentencepiece, half + b"a") == [["<0xE4>", "<0xB8>", "a"]]
    assert cut(sentencepiece, "Ж".encode()) == [["<0xD0>", "<0x96>"]]  # a character that is in no piece
    assert cut(sentencepiece, "▁".encode()) == [["<0xE2>", "<0x96>", "<0x81>"]]  # not a space


def test_what_cannot_be_spelled_is_left_out(unigram):
    assert cut(unigram, "the Ж".encode(), "Ж".encode(), b"\xff") == [["the", "▁"], [], []]


def test_special_tokens_have_no_pieces_and_are_none(byte_level):
    assert cut(byte_level, b"", b"<s>")[0] == []
    assert "<s>" not in cut(byte_level, b"<s>")[0]


def test_wordpiece_goes_on_unless_a_space_stands_before(wordpiece):
    assert cut(wordpiece, b" heart", b"heart", b" Cardiomyopathys", b"myopathy") == [
        ["heart"],
        ["##heart"],
        ["cardio", "##myo", "##pathy", "##s"],
        ["##myo", "##pathy"],
    ]
    assert cut(wordpiece, b", the heart", b"s, a", "中".encode()) == [[",", "the", "heart"], ["##s", ",", "a"], ["中"]]
    assert cut(wordpiece, b" unknown", b"\n", b"\xff") == [[], [], []]


def test_wordpiece_words_are_cut_as_by_the_model(wordpiece):
    for word in ("the", "cardiomyopathys", "hearts", "heartheart"):
        expected = [token.value for token in wordpiece.backend_tokenizer.model.tokenize(word)]
        assert cut(wordpiece, b" " + word.encode()) == [expected]


def test_dropout_and_truncation_of_a_saved_tokenizer_do_not_apply(byte_level):
    backend = Tokenizer.from_str(byte_level.backend_tokenizer.to_str())
    backend.model.dropout = 0.9
    backend.enable_truncation(1)
    tokenizer = type(byte_level)(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    dropout = tokenizer.backend_tokenizer.model.dropout
    assert cut(tokenizer, b" patients", b" heart") == cut(byte_level, b" patients", b" heart")
    assert tokenizer.backend_tokenizer.model.dropout == dropout == pytest.approx(0.9)
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("source_name", "target_name"), [("mistral_v3", "llama3"), ("llama3", "mistral_v3")])
def test_real_vocabularies_are_cut_without_loss_in_seconds(source_name, target_name):
    folder = os.environ.get("REVOCAB_DATA")
    if not folder:
        pytest.skip("REVOCAB_DATA names no folder")
    tokenizer = load_tokenizer(f"{folder}/tokenizers/{source_name}")
    source, target = read_vocabulary(tokenizer), read_vocabulary(load_tokenizer(f"{folder}/tokenizers/{target_name}"))
    start = time.process_time()
    pieces = cut_into_pieces(tokenizer, source, target)
    assert time.process_time() - start < 5
    for row, surface in enumerate(target.surfaces):
        assert b"".join(source.surfaces[piece] for piece in pieces[row]) == surface


@pytest.mark.slow
def test_smollm2_cannot_spell_21_bytes_and_all_else(smollm2):
    folder = os.environ.get("REVOCAB_DATA")
    if not folder:
        pytest.skip("REVOCAB_DATA names no folder")
    source, target = read_vocabulary(smollm2), read_vocabulary(load_tokenizer(f"{folder}/tokenizers/mistral_v3"))
    pieces = cut_into_pieces(smollm2, source, target)
    joined = [b"".join(source.surfaces[piece] for piece in pieces[row]) for row in range(len(target))]
    lost = [surface for surface, found in zip(target.surfaces, joined, strict=True) if surface != found]
    assert len(set(lost)) == 21
    assert {len(surface) for surface in lost} == {1}
