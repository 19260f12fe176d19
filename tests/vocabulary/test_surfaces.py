"""Every token by the bytes it stands for, checked against what the tokenizers themselves decode."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from revocab.errors import ModelError
from revocab.vocabulary import read_vocabulary
from revocab.vocabulary.spelling import BYTE_TO_CHARACTER, Kind, Spelling

KINDS = {
    "byte_level": Kind.BYTE_LEVEL,
    "sentencepiece": Kind.SENTENCEPIECE,
    "unigram": Kind.SENTENCEPIECE,
    "wordpiece": Kind.WORDPIECE,
}


@pytest.fixture(params=KINDS)
def named(request):
    return request.param, request.getfixturevalue(request.param)


def test_the_kind_is_read_off_the_tokenizer(named):
    name, tokenizer = named
    assert Spelling.of(tokenizer.backend_tokenizer).kind is KINDS[name]


def test_the_byte_alphabet_is_the_librarys():
    assert set(BYTE_TO_CHARACTER.values()) == set(pre_tokenizers.ByteLevel.alphabet())
    encoder = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in ("".join(map(chr, range(0x250))), "中文🧬\uffff"):
        spelled = "".join(BYTE_TO_CHARACTER[byte] for byte in text.encode())
        assert encoder.pre_tokenize_str(text)[0][0] == spelled


BYTE_LEVEL = Spelling(kind=Kind.BYTE_LEVEL, mark="", byte_pieces=False, continuing="", backend=Tokenizer(models.BPE()))
ALPHABET = {character: byte for byte, character in BYTE_TO_CHARACTER.items()}


@given(st.text(st.characters(max_codepoint=0x180, exclude_categories=[])) | st.text(st.sampled_from(sorted(ALPHABET))))
def test_a_byte_level_token_is_read_by_character_or_where_one_is_none_as_text(token):
    spelled = all(character in ALPHABET for character in token)
    expected = bytes(ALPHABET[character] for character in token) if spelled else token.encode()
    assert BYTE_LEVEL.surface(token) == expected


def test_surfaces_are_what_the_tokenizer_decodes(named):
    """After a token of one letter, so that no decoder strips a leading space; parts of characters do not decode."""
    name, tokenizer = named
    vocabulary = read_vocabulary(tokenizer)
    letter = next(index for index, surface in enumerate(vocabulary.surfaces) if surface.strip() == b"a")
    strip = str.lstrip if name == "wordpiece" else str  # its decoder writes a space before punctuation too
    compared = 0
    for token_id, surface in enumerate(vocabulary.surfaces):
        try:
            text = surface.decode()
        except UnicodeDecodeError:
            continue
        if vocabulary.special[token_id] or vocabulary.single_byte[token_id]:
            continue
        decoded = tokenizer.backend_tokenizer.decode([letter, token_id], skip_special_tokens=False)
        tail = decoded[decoded.index("a") + 1 :]
        assert strip(tail) == strip(text), vocabulary.tokens[token_id]
        compared += 1
    assert compared > 0.3 * (~vocabulary.special).sum()


def test_every_id_has_its_token_and_special_tokens_have_no_surface(named):
    _, tokenizer = named
    vocabulary = read_vocabulary(tokenizer)
    assert len(vocabulary) == len(tokenizer) == len(vocabulary.surfaces) == len(vocabulary.special)
    assert list(vocabulary.tokens) == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert {index for index in range(len(vocabulary)) if vocabulary.special[index]} == set(tokenizer.all_special_ids)
    assert all(
        bool(surface) != special for surface, special in zip(vocabulary.surfaces, vocabulary.special, strict=True)
    )


def test_single_bytes_are_byte_pieces_and_parts_of_characters(byte_level, sentencepiece):
    vocabulary = read_vocabulary(byte_level)
    found = {vocabulary.surfaces[index] for index in np.flatnonzero(vocabulary.single_byte)}
    assert found == {bytes([byte]) for byte in range(0x80, 0x100)}
    vocabulary = read_vocabulary(sentencepiece)
    found = [vocabulary.tokens[index] for index in np.flatnonzero(vocabulary.single_byte)]
    assert found == [f"<0x{byte:02X}>" for byte in range(256)]
    assert vocabulary.surfaces[vocabulary.tokens.index("<0x0A>")] == b"\n"


def test_a_byte_piece_without_byte_fallback_is_plain_text():
    backend = Tokenizer(models.BPE({"<0x0A>": 0, "▁a": 1}, []))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    vocabulary = read_vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert vocabulary.surfaces == (b"<0x0A>", b" a")
    assert not vocabulary.single_byte.any()


def test_wordpiece_words_begin_with_a_space_and_punctuation_does_not(wordpiece):
    vocabulary = read_vocabulary(wordpiece)
    surfaces = dict(zip(vocabulary.tokens, vocabulary.surfaces, strict=True))
    assert surfaces["the"] == b" the"
    assert surfaces["a"] == b" a"
    assert surfaces["##myo"] == b"myo"
    assert surfaces[","] == b","
    assert surfaces["中"] == "中".encode()


def test_domain_terms_stand_for_their_text_and_new_marks_for_nothing(byte_level):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(byte_level.backend_tokenizer.to_str()))
    size = len(tokenizer)
    tokenizer.add_tokens(["cardiomyopathy", " naïve β"])
    tokenizer.add_tokens([AddedToken("<mark>", special=True)])
    vocabulary = read_vocabulary(tokenizer)
    assert len(vocabulary) == size + 3
    assert vocabulary.surfaces[size:] == (b"cardiomyopathy", " naïve β".encode(), b"")
    assert vocabulary.special[size:].tolist() == [False, False, True]


def test_gaps_between_ids_are_special_and_count_as_rows():
    backend = Tokenizer(models.BPE({"a": 0, "b": 5}, []))
    backend.decoder = decoders.ByteLevel()
    vocabulary = read_vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert len(vocabulary) == 6
    assert vocabulary.tokens == ("a", "", "", "", "", "b")
    assert vocabulary.special.tolist() == [False, True, True, True, True, False]


def test_roles_are_those_that_the_tokenizer_has(byte_level, sentencepiece):
    assert read_vocabulary(byte_level).roles == {"bos": 0, "eos": 1}
    assert read_vocabulary(sentencepiece).roles == {"unk": 0, "bos": 1, "eos": 2}


@pytest.mark.parametrize(
    "model",
    [
        models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"),
        models.BPE({"a</w>": 0}, [], end_of_word_suffix="</w>"),
    ],
)
def test_other_kinds_are_refused(model):
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ModelError, match="cannot be read as bytes"):
        read_vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend))
