"""Counts of shared cuts, against a loop over the offsets that the tokenizers themselves report."""

import json
from collections import Counter

import numpy as np
import pytest

from revocab.artifacts import Corpus, TokenizedCorpus
from revocab.corpus import build_corpus
from revocab.vocabulary import boundaries, count_boundaries, read_vocabulary, tokenize_corpus

TEXTS = ["the heart of the patient was enlarged", "hepatic  findings: naïve β-cells 中文 🧬", "cardiomyopathy\nhearts"]


@pytest.fixture
def cut(tmp_path):
    """Texts as a corpus, cut by a tokenizer."""

    def make(texts, tokenizer, name):
        given = tmp_path / "given.jsonl"
        given.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
        folder = tmp_path / "corpus"
        if not folder.exists():
            build_corpus(folder, [str(given)], **CORPUS)
        tokenize_corpus(tmp_path / name, Corpus.load(folder).train, tokenizer)
        return TokenizedCorpus.load(tmp_path / name)

    return make


CORPUS = {
    "text_field": "text",
    "size_gb": None,
    "byte_budget": 0,
    "deduplicate": False,
    "hash_name": "sha256",
    "min_line_length": 0,
    "heldout_fraction": 0.0,
}


def by_offsets(texts, source, target, side):
    """(target id, source id): count, from the character offsets of `tokenizers`."""
    found = Counter()
    for text in texts:
        cuts = []
        for tokenizer in (source, target):
            encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
            spans = list(zip(encoding.ids, encoding.offsets, strict=True))
            # characters of several byte tokens share one span: only tokens that are whole characters can be told apart
            spans = [(i, span) for i, span in spans if sum(other == span for _, other in spans) == 1]
            cuts.append({span[side]: i for i, span in spans})
        found.update((cuts[1][at], cuts[0][at]) for at in cuts[1] if at in cuts[0])
    return found


@pytest.mark.parametrize(("side", "name"), [(0, "starts"), (1, "ends")])
def test_counts_are_those_of_the_tokenizers_own_offsets(cut, byte_level, sentencepiece, side, name):
    texts = [text for text in TEXTS if text.isascii()]
    counted = count_boundaries(
        cut(texts, byte_level, "source"),
        cut(texts, sentencepiece, "target"),
        read_vocabulary(byte_level),
        read_vocabulary(sentencepiece),
    )
    matrix = getattr(counted, name).tocoo()
    ours = dict(zip(zip(matrix.row.tolist(), matrix.col.tolist(), strict=True), matrix.data.tolist(), strict=True))
    expected = dict(by_offsets(texts, byte_level, sentencepiece, side))
    if side == 0:  # offsets put the first character, not the space before it, at a token's start
        first = {pair for pair in expected if pair not in ours}
        assert len(first) <= len(texts)
        expected = {pair: count for pair, count in expected.items() if pair not in first}
    assert ours == expected


def test_the_same_tokenizer_twice_agrees_everywhere(cut, byte_level):
    corpus, vocabulary = cut(TEXTS, byte_level, "both"), read_vocabulary(byte_level)
    counted = count_boundaries(corpus, corpus, vocabulary, vocabulary)
    counts = np.bincount(corpus.tokens, minlength=len(vocabulary))
    counts[list(corpus.special_ids)] = 0
    for matrix in (counted.starts, counted.ends):
        np.testing.assert_array_equal(matrix.toarray(), np.diag(counts))
    assert counted.target_tokens == counts.sum()
    assert (counted.documents, counted.documents_left_out) == (3, 0)


def test_the_size_of_a_chunk_changes_nothing(cut, byte_level, sentencepiece, monkeypatch):
    pair = cut(TEXTS, byte_level, "source"), cut(TEXTS, sentencepiece, "target")
    vocabularies = read_vocabulary(byte_level), read_vocabulary(sentencepiece)
    whole = count_boundaries(*pair, *vocabularies)
    monkeypatch.setattr(boundaries, "CHUNK_TOKENS", 7)
    parts = count_boundaries(*pair, *vocabularies)
    assert (whole.starts != parts.starts).nnz == 0
    assert (whole.ends != parts.ends).nnz == 0
    assert whole.documents == parts.documents


def test_a_document_that_one_tokenizer_changes_is_left_out(cut, byte_level, sentencepiece):
    source, target = cut(TEXTS, byte_level, "source"), cut(TEXTS, sentencepiece, "target")
    vocabulary = read_vocabulary(byte_level)
    spaces = np.array(source.tokens)
    longest = max(range(len(vocabulary)), key=lambda i: len(vocabulary.surfaces[i]))
    spaces[source.offsets[1] + 1] = longest  # as if the second text had been another
    changed = TokenizedCorpus(
        tokens=spaces,
        offsets=source.offsets,
        vocabulary_size=source.vocabulary_size,
        text_bytes=source.text_bytes,
        special_ids=source.special_ids,
    )
    counted = count_boundaries(changed, target, vocabulary, read_vocabulary(sentencepiece))
    assert (counted.documents, counted.documents_left_out) == (2, 1)
