"""A corpus as ids: those that the tokenizer itself gives, with marks around each document."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, processors
from transformers import PreTrainedTokenizerFast

from revocab.artifacts import Documents, TokenizedCorpus
from revocab.corpus import read_documents
from revocab.errors import ResourceError
from revocab.vocabulary import document_marks, load_tokenizer, tokenize_corpus, tokenizing

TEXTS = ["the heart", "naïve  β-cells\n中文 🧬", "", "patients <s> with </s> cardiomyopathy " * 3]


def documents_of(texts: list[str]) -> Documents:
    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return Documents(text=np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets=offsets)


def tokenized(texts: list[str], tokenizer) -> tuple[list[list[int]], TokenizedCorpus, dict[str, int]]:
    with TemporaryDirectory() as folder:
        facts = tokenize_corpus(Path(folder), documents_of(texts), tokenizer)
        corpus = TokenizedCorpus.load(Path(folder))
        spans = zip(corpus.offsets, corpus.offsets[1:], strict=False)
        return [corpus.tokens[start:end].tolist() for start, end in spans], corpus, facts


def own_ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece", "unigram", "wordpiece"])
def test_documents_are_the_tokenizers_own_ids_between_marks(kind, request):
    tokenizer = request.getfixturevalue(kind)
    rows, corpus, facts = tokenized(TEXTS, tokenizer)
    before, after = document_marks(tokenizer)
    assert rows == [before + own_ids(tokenizer, text) + after for text in TEXTS]
    assert facts == {
        "documents": len(TEXTS),
        "tokens": len(corpus.tokens),
        "text_bytes": sum(len(text.encode()) for text in TEXTS),
    }
    assert corpus.vocabulary_size == len(tokenizer)
    assert corpus.special_ids == tuple(sorted(before + after))
    assert corpus.tokens.dtype == np.uint16


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(st.characters(codec="utf-8")).filter(lambda text: "<" not in text), max_size=6))
def test_any_text_comes_back_from_its_ids(byte_level, texts):
    rows, corpus, _ = tokenized(texts, byte_level)
    assert len(corpus) == len(texts)
    assert [byte_level.decode(row[1:-1], clean_up_tokenization_spaces=False) for row in rows] == texts


@pytest.mark.parametrize("batch_bytes", [1, 30, 10**6])
def test_batches_change_nothing(byte_level, monkeypatch, batch_bytes):
    texts = [text * (1 + index % 3) for index, text in enumerate(TEXTS * 5)]
    expected, _, _ = tokenized(texts, byte_level)
    monkeypatch.setattr(tokenizing, "BATCH_BYTES", batch_bytes)
    assert tokenized(texts, byte_level)[0] == expected


def test_marks_come_from_roles_and_not_from_the_post_processor(byte_level):
    backend = Tokenizer.from_str(byte_level.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(single="<s> <s> $A", special_tokens=[("<s>", 0)])
    assert document_marks(PreTrainedTokenizerFast(tokenizer_object=backend)) == ([], [])
    only_end = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    assert document_marks(only_end) == ([], [1])
    rows, corpus, _ = tokenized(["heart"], only_end)
    assert rows == [[*own_ids(byte_level, "heart"), 1]]
    assert corpus.special_ids == (1,)


def test_truncation_and_padding_of_a_saved_tokenizer_do_not_apply_and_are_kept(byte_level):
    backend = Tokenizer.from_str(byte_level.backend_tokenizer.to_str())
    backend.enable_truncation(2)
    backend.enable_padding(length=50, pad_id=1, pad_token="</s>")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    settings_before = (tokenizer.backend_tokenizer.truncation, tokenizer.backend_tokenizer.padding)
    assert settings_before[0]["max_length"] == 2
    assert tokenized(TEXTS, tokenizer)[0] == tokenized(TEXTS, byte_level)[0]
    assert (tokenizer.backend_tokenizer.truncation, tokenizer.backend_tokenizer.padding) == settings_before


@pytest.mark.parametrize(("size", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_ids_take_16_bits_where_they_fit(size, dtype):
    backend = Tokenizer(models.WordLevel({str(index): index for index in range(size)}, unk_token="0"))
    rows, corpus, _ = tokenized([str(size - 1)], PreTrainedTokenizerFast(tokenizer_object=backend))
    assert corpus.tokens.dtype == dtype
    assert rows == [[size - 1]]


def test_no_documents_are_no_tokens(byte_level):
    rows, corpus, facts = tokenized([], byte_level)
    assert rows == []
    assert len(corpus) == facts["tokens"] == 0


def test_a_full_disk_is_one_line_that_names_the_folder(tmp_path, byte_level):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    (tmp_path / "tokens.bin").symlink_to("/dev/full")
    with pytest.raises(ResourceError, match="disk is full") as caught:
        tokenize_corpus(tmp_path, documents_of(TEXTS), byte_level)
    assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "tokens.json").exists()


@pytest.mark.slow
def test_mistral_v1_and_v3_cut_real_text_alike():
    data = os.environ.get("REVOCAB_DATA")
    if not data:
        pytest.skip("REVOCAB_DATA names no folder")
    texts = list(read_documents([f"{data}/bio.heldout.jsonl.zst", f"{data}/general.heldout.jsonl.zst"]))
    v1, v3 = (tokenized(texts, load_tokenizer(f"{data}/tokenizers/mistral_{each}"))[1] for each in ("v1", "v3"))
    assert np.array_equal(v1.offsets, v3.offsets)
    shifted = np.where(v1.tokens < 3, v1.tokens, v1.tokens + 768)
    assert np.array_equal(shifted, v3.tokens)
    assert len(v3.tokens) > 800_000
