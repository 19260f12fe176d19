"""Added terms are emitted, and nothing else about a tokenizer changes."""

import json
import os
import random
import re
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, decoders, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from revocab.corpus import read_documents
from revocab.errors import ModelError
from revocab.vocabulary import (
    cut_into_pieces,
    exact_pairs,
    extend_tokenizer,
    load_tokenizer,
    mine_terms,
    read_vocabulary,
)
from revocab.vocabulary.extending import GPT2_PATTERN

ASSETS = Path(__file__).parents[2] / "src" / "revocab" / "assets"
SHIPPED = {"source": ASSETS / "source_model", "target": ASSETS / "target_tokenizer"}
REAL = ["mistral_v3", "llama3"]
TERMS = [
    "zebrafish", "Zebrafish", "congestive heart failure", "heart", "heart failure", "β-lactamase", "naïve zygote",
    "acyl-CoA hydrolase", "cardiomyopathies",
]  # fmt: skip
WORDS = [
    "the", "heart", "hearts", "liver", "failure", "ofen", "zebra", "zebrafishes", "naïve", "β", "中文", "🧬", "12",
    "x2", "<0x41>", "<0x0A>", "Heart", "cardio", "heart_rate", "don't", "(", "</", ".", ",", "-", "e\u0301", "\u00a0",
]  # fmt: skip
GAPS = [" ", " ", " ", " ", "", "  ", "\n", "\n\n", "\t", "   ", " \n"]


@pytest.fixture(scope="module")
def other_byte_level(byte_level):
    """As tiktoken's are written down: a split by pattern, then bytes without one; control tokens outside the model."""
    copy = PreTrainedTokenizerFast(
        tokenizer_object=byte_level.backend_tokenizer.from_str(byte_level.backend_tokenizer.to_str())
    )
    copy.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(GPT2_PATTERN), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    copy.add_special_tokens({"eos_token": "<|end|>"})
    copy.add_tokens([AddedToken("<think>", normalized=False)])
    return copy


@pytest.fixture(scope="module")
def metaspace(sentencepiece):
    """As newer Llama tokenizers are written down: no normaliser, the word start is the pre-tokenizer's."""
    backend = sentencepiece.backend_tokenizer
    definition = json.loads(backend.to_str())
    definition["normalizer"] = None
    copy = backend.from_str(json.dumps(definition))
    copy.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    copy.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=copy, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


KINDS = ["byte_level", "other_byte_level", "sentencepiece", "sentencepiece_shifted", "metaspace", *SHIPPED]


@pytest.fixture(scope="module", params=[*KINDS, *(pytest.param(name, marks=pytest.mark.slow) for name in REAL)])
def pair(request, tmp_path_factory):
    """(tokenizer, the same with terms, terms)."""
    name = request.param
    if name in SHIPPED:
        before = load_tokenizer(str(SHIPPED[name]))
    elif name in REAL:
        data = os.environ.get("REVOCAB_DATA")
        if not data:
            pytest.skip("REVOCAB_DATA names no folder")
        before = load_tokenizer(str(Path(data) / "tokenizers" / name))
    else:
        before = request.getfixturevalue(name)
    folder = tmp_path_factory.mktemp(name)
    known = {token for token, surface in zip(TERMS, TERMS, strict=True) if single(before, surface)}
    terms = [term for term in TERMS if term not in known]
    assert extend_tokenizer(before, terms, folder) == terms
    return before, load_tokenizer(str(folder)), terms


def ids(tokenizer, text):
    return tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids


def decode(tokenizer, tokens):
    return tokenizer.backend_tokenizer.decode(tokens, skip_special_tokens=False)


def single(tokenizer, term):
    return f" {term}".encode() in read_vocabulary(tokenizer).surfaces


def texts(count, words=WORDS, seed=0):
    generator = random.Random(seed)
    for _ in range(count):
        yield "".join(generator.choice(words) + generator.choice(GAPS) for _ in range(generator.randrange(1, 14)))


def test_every_term_is_one_token_within_a_sentence_and_before_punctuation(pair):
    before, after, terms = pair
    for rank, term in enumerate(terms):
        own = len(before) + rank
        for text in (f"the {term} of", f"the {term}.", f"the\n {term}", f"({term}, {term})", f"the {term}<0x41>"):
            found = ids(after, text)
            assert found.count(own) == text.count(f" {term}"), (term, text)
            assert decode(after, found) == decode(before, ids(before, text)), text


def test_text_before_a_term_is_cut_as_it_would_be_alone(pair):
    before, after, terms = pair
    for rank, term in enumerate(terms):
        found = ids(after, f"hearts of the {term}, liver")
        assert found[: found.index(len(before) + rank)] == ids(before, "hearts of the")


def test_a_term_is_a_whole_word_and_the_longest_that_fits(pair):
    before, after, terms = pair
    new = range(len(before), len(after))
    for text in ("the zebrafishes", "unzebrafish", "the ZEBRAFISH", "heartfailure"):
        assert not set(ids(after, text)) & set(new), text
    if before.backend_tokenizer.pre_tokenizer is None:  # others may end a word there themselves
        for text in ("the zebrafish2", "the zebrafish_x"):
            assert not set(ids(after, text)) & set(new), text
    longest = ids(after, "the congestive heart failure")
    assert longest.count(len(before) + terms.index("congestive heart failure")) == 1
    assert sum(each in new for each in longest) == 1


def test_text_without_a_term_is_cut_as_before(pair):
    before, after, terms = pair
    holds_term = re.compile("|".join(rf"(?:^|\s){re.escape(term)}" for term in terms))
    compared = 0
    for text in texts(1500):
        if not holds_term.search(text):
            assert ids(after, text) == ids(before, text), text
            compared += 1
    assert compared > 300
    for byte in range(256):  # literal names of byte pieces, alone and after a control token
        for text in (f"<0x{byte:02X}>", f"</s><0x{byte:02X}>", f"a <0x{byte:02X}>"):
            assert ids(after, text) == ids(before, text), text


def test_text_with_terms_decodes_as_before(pair):
    before, after, terms = pair
    emitted = 0
    for text in texts(1500, words=[*WORDS, *terms], seed=1):
        found = ids(after, text)
        assert decode(after, found) == decode(before, ids(before, text)), text
        emitted += sum(each >= len(before) for each in found)
    assert emitted > 500


def test_old_ids_stay_and_terms_follow_them_with_their_bytes(pair):
    before, after, terms = pair
    old, new = read_vocabulary(before), read_vocabulary(after)
    assert len(after) == len(new) == len(before) + len(terms)
    assert new.tokens[: len(old)] == old.tokens
    assert new.surfaces[: len(old)] == old.surfaces
    assert new.surfaces[len(old) :] == tuple(f" {term}".encode() for term in terms)
    assert new.special[: len(old)].tolist() == old.special.tolist()
    assert not new.special[len(old) :].any()
    assert not new.single_byte[len(old) :].any()
    assert new.roles == old.roles


def test_terms_are_cut_into_pieces_and_found_as_exact_pairs(pair, byte_level):
    before, after, terms = pair
    source, target = read_vocabulary(byte_level), read_vocabulary(after)
    pieces = cut_into_pieces(byte_level, source, target)
    for rank, term in enumerate(terms):
        cut = pieces[len(before) + rank]
        assert b"".join(source.surfaces[piece] for piece in cut) == f" {term}".encode()
    found = exact_pairs(target, target)
    assert set(range(len(before), len(after))) <= set(found.target_ids.tolist())
    assert all(
        target.surfaces[t] == target.surfaces[s] for t, s in zip(found.target_ids, found.source_ids, strict=True)
    )


def test_saving_and_loading_again_keeps_it_all(pair, tmp_path):
    before, after, terms = pair
    after.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert json.loads(again.backend_tokenizer.to_str()) == json.loads(after.backend_tokenizer.to_str())
    assert len(again) == len(after)
    assert again.special_tokens_map == before.special_tokens_map
    for text in texts(200, words=[*WORDS, *terms], seed=2):
        assert again(text)["input_ids"] == after(text)["input_ids"]


def test_the_post_processor_still_works(pair):
    before, after, _ = pair
    assert after("the liver")["input_ids"] == before("the liver")["input_ids"]


def test_no_terms_change_nothing_and_a_token_that_is_there_is_no_new_one(byte_level, tmp_path):
    assert extend_tokenizer(byte_level, [], tmp_path) == []
    unchanged = load_tokenizer(str(tmp_path)).backend_tokenizer
    assert json.loads(unchanged.to_str()) == json.loads(byte_level.backend_tokenizer.to_str())
    assert single(byte_level, "heart")
    assert extend_tokenizer(byte_level, ["zygote", "heart", "zygote"], tmp_path) == ["zygote"]
    assert len(load_tokenizer(str(tmp_path))) == len(byte_level) + 1


def test_phrases_that_a_pre_tokenizer_cuts_are_left_out(byte_level, tmp_path):
    copy = byte_level.backend_tokenizer.from_str(byte_level.backend_tokenizer.to_str())
    copy.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=copy)
    added = extend_tokenizer(wrapped, ["acyl-CoA", "zygote", "naïve zygote"], tmp_path)
    assert added == ["zygote", "naïve zygote"]
    after = load_tokenizer(str(tmp_path))
    assert len(after) == len(byte_level) + 2
    assert ids(after, "a naïve zygote")[-1] == len(byte_level) + 1


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
def test_other_kinds_are_refused_in_one_line(kind, request, tmp_path):
    with pytest.raises(ModelError, match=r"BPE tokenizers only.*terms=none"):
        extend_tokenizer(request.getfixturevalue(kind), ["zygote"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_terms_mined_from_real_text_are_emitted_in_it_and_in_other_text_nothing_changes(name, tmp_path):
    data = os.environ.get("REVOCAB_DATA")
    if not data:
        pytest.skip("REVOCAB_DATA names no folder")
    before = load_tokenizer(str(Path(data) / "tokenizers" / name))
    domain, general = (list(read_documents([f"{data}/{kind}.heldout.jsonl.zst"])) for kind in ("bio", "general"))
    mined = mine_terms(domain, before, top_k=500, min_frequency=3)
    terms = [term.text for term in mined.terms]
    assert extend_tokenizer(before, terms, tmp_path) == terms
    after = load_tokenizer(str(tmp_path))
    emitted = set()
    for text in [*domain, *general]:
        old, new = ids(before, text), ids(after, text)
        assert decode(after, new) == decode(before, old)
        emitted |= set(new)
        if not any(each >= len(before) for each in new):
            assert new == old
    unused = set(range(len(before), len(after))) - emitted
    assert len(unused) < 0.1 * len(terms)  # longer or overlapping terms cover these wherever they occur
