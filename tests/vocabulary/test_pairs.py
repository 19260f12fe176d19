"""Which tokens two vocabularies share."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revocab.artifacts import Pairs, Vocabulary
from revocab.vocabulary import exact_pairs, load_tokenizer, read_vocabulary, role_pairs


def vocabulary_of(*entries: tuple[str, bytes], single_byte=(), roles=None) -> Vocabulary:
    """(token, surface) by id; a token with the empty surface is special."""
    tokens, surfaces = zip(*entries, strict=True)
    return Vocabulary(
        tokens=tokens,
        surfaces=surfaces,
        special=np.array([not surface for surface in surfaces]),
        single_byte=np.isin(np.arange(len(tokens)), single_byte),
        roles=roles or {},
    )


def as_dict(pairs: Pairs) -> dict[int, int]:
    return dict(zip(pairs.target_ids.tolist(), pairs.source_ids.tolist(), strict=True))


def test_spellings_do_not_matter_by_surface_and_do_by_string():
    source = vocabulary_of(("Ġthe", b" the"), ("a", b"a"), ("Ċ", b"\n"))
    target = vocabulary_of(("▁the", b" the"), ("<0x0A>", b"\n"), ("b", b"b"), ("a", b"a"), single_byte=[1])
    assert as_dict(exact_pairs(source, target)) == {0: 0, 1: 2, 3: 1}
    assert as_dict(exact_pairs(source, target, by="string")) == {3: 1}


def test_a_byte_piece_pairs_with_a_byte_piece_and_a_letter_with_the_letter():
    with_both = vocabulary_of(("<0x41>", b"A"), ("A", b"A"), single_byte=[0])
    letter_only = vocabulary_of(("A", b"A"))
    assert as_dict(exact_pairs(with_both, with_both)) == {0: 0, 1: 1}
    assert as_dict(exact_pairs(letter_only, with_both)) == {0: 0, 1: 0}  # two target tokens share one source token
    assert as_dict(exact_pairs(with_both, letter_only)) == {0: 1}


def test_a_regular_token_gets_the_regular_one_however_it_is_spelled():
    source = vocabulary_of(("<0x20>", b" "), ("▁", b" "), single_byte=[0])
    assert as_dict(exact_pairs(source, vocabulary_of(("Ġ", b" ")))) == {0: 1}


def test_among_equals_the_same_string_wins_then_the_lowest_id():
    source = vocabulary_of(("x", b"a"), ("y", b"a"), ("z", b"a"))
    assert as_dict(exact_pairs(source, vocabulary_of(("z", b"a"), ("w", b"a")))) == {0: 2, 1: 0}


def test_special_and_unused_tokens_pair_by_string_at_most():
    source = vocabulary_of(("<s>", b""), ("", b""), ("a", b"a"))
    target = vocabulary_of(("", b""), ("<s>", b""))
    assert len(exact_pairs(source, target)) == 0
    assert as_dict(exact_pairs(source, target, by="string")) == {1: 0}


def test_another_way_to_compare_is_refused():
    vocabulary = vocabulary_of(("a", b"a"))
    with pytest.raises(ValueError, match="surface"):
        exact_pairs(vocabulary, vocabulary, by="sound")


entries = st.lists(st.tuples(st.text("abc▁", max_size=2), st.sampled_from([b"", b"a", b"b", b" a", b"ab"])), min_size=1)


@settings(max_examples=60, deadline=None)
@given(source=entries, target=entries)
def test_pairs_are_all_and_only_the_tokens_with_a_common_surface(source, target):
    pairs = as_dict(exact_pairs(vocabulary_of(*source), vocabulary_of(*target)))
    surfaces = {surface for _, surface in source if surface}
    assert set(pairs) == {row for row, (_, surface) in enumerate(target) if surface in surfaces}
    assert list(pairs) == sorted(pairs)
    assert all(target[row][1] == source[column][1] for row, column in pairs.items())


def test_a_vocabulary_is_its_own_pairs(byte_level, sentencepiece, wordpiece, unigram):
    for tokenizer in (byte_level, sentencepiece, wordpiece, unigram):
        vocabulary = read_vocabulary(tokenizer)
        pairs = exact_pairs(vocabulary, vocabulary)
        assert np.array_equal(pairs.target_ids, pairs.source_ids)
        assert np.array_equal(pairs.target_ids, np.flatnonzero(~vocabulary.special))


def test_pieces_that_moved_by_some_ids_are_found_there(sentencepiece, sentencepiece_shifted):
    source, target = read_vocabulary(sentencepiece), read_vocabulary(sentencepiece_shifted)
    pairs = exact_pairs(source, target)
    assert np.array_equal(pairs.source_ids, np.arange(3, len(source)))
    assert np.array_equal(pairs.target_ids, pairs.source_ids + 40)


def test_roles_pair_whatever_the_tokens_are_called():
    source = vocabulary_of(("<|im_start|>", b""), ("<|im_end|>", b""), roles={"bos": 0, "eos": 1, "pad": 1})
    target = vocabulary_of(("<unk>", b""), ("<s>", b""), ("</s>", b""), roles={"unk": 0, "bos": 1, "eos": 2})
    assert as_dict(role_pairs(source, target)) == {1: 0, 2: 1}


def test_a_token_of_several_roles_pairs_once_and_as_the_end_first():
    source = vocabulary_of(("<s>", b""), ("</s>", b""), ("<unk>", b""), roles={"bos": 0, "eos": 1, "unk": 2})
    target = vocabulary_of(("<|endoftext|>", b""), roles={"bos": 0, "eos": 0, "unk": 0})
    assert as_dict(role_pairs(source, target)) == {0: 1}
    assert len(role_pairs(source, vocabulary_of(("a", b"a")))) == 0


@pytest.fixture(scope="session")
def shared_data():
    folder = os.environ.get("REVOCAB_DATA")
    if not folder:
        pytest.skip("REVOCAB_DATA names no folder")
    return f"{folder}/tokenizers"


@pytest.mark.slow
def test_smollm2_and_mistral_share_the_known_number_of_tokens(shared_data, smollm2):
    """Of Mistral v3's 32,768 tokens 21,876 are exact: 21,873 by surface, and bos, eos and unk by role."""
    source, target = read_vocabulary(smollm2), read_vocabulary(load_tokenizer(f"{shared_data}/mistral_v3"))
    assert len(target) == 32_768
    assert len(exact_pairs(source, target, by="string")) == 8_440
    by_surface, by_role = exact_pairs(source, target), role_pairs(source, target)
    assert len(by_surface) == 21_873
    assert len(np.union1d(by_surface.target_ids, by_role.target_ids)) == 21_876


@pytest.mark.slow
def test_mistral_v3_is_v1_moved_by_768_ids(shared_data):
    v1, v3 = (read_vocabulary(load_tokenizer(f"{shared_data}/mistral_{version}")) for version in ("v1", "v3"))
    pairs = exact_pairs(v1, v3)
    assert np.array_equal(pairs.source_ids, np.arange(3, 32_000))
    assert np.array_equal(pairs.target_ids, pairs.source_ids + 768)
    assert as_dict(role_pairs(v1, v3)) == {0: 0, 1: 1, 2: 2}
