"""Mixtures keep their shares at every place, and no chance is involved."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revocab.artifacts import Corpus
from revocab.corpus import build_corpus
from revocab.corpus.mixing import in_proportion
from revocab.errors import ConfigError

SETTINGS = {
    "text_field": None, "size_gb": None, "byte_budget": 0, "deduplicate": True, "hash_name": "sha256",
    "min_line_length": 0, "heldout_fraction": 0.0,
}  # fmt: skip


def write(path, texts) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


@settings(max_examples=100, deadline=None)
@given(
    weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=4),
    lengths=st.lists(st.integers(1, 50), min_size=50, max_size=50),
)
def test_shares_hold_to_within_one_document_at_every_place(weights, lengths):
    taken = [0] * len(weights)
    streams = [iter(["x" * length for length in lengths]) for _ in weights]
    for number, text in in_proportion(streams, weights, taken):
        taken[number] += len(text)
        scaled = [size / weight for size, weight in zip(taken, weights, strict=True)]
        slack = max(lengths) / min(weights)
        assert max(scaled) - min(scaled) <= slack * (1 + 1e-9)


def test_a_corpus_is_mixed_by_the_bytes_that_are_kept(tmp_path):
    domain = write(tmp_path / "domain.jsonl", [f"domain {number:04d} " + "d" * 88 for number in range(900)])
    twice = [f"general {number:04d}" + "g" * 88 for number in range(300) for _ in range(3)]  # 2 of 3 are dropped
    general = write(tmp_path / "general.jsonl", twice)
    counts = build_corpus(tmp_path / "corpus", [domain, general], weights=[3, 1], **SETTINGS)
    texts = list(Corpus.load(tmp_path / "corpus").train)
    for end in range(100, len(texts), 100):
        share = sum(text[0] == "g" for text in texts[:end]) / end
        assert share == pytest.approx(0.25, abs=0.01)
    assert sum(text[0] == "d" for text in texts) == 900  # ends with the first input that does
    sources = json.loads((tmp_path / "corpus" / "sources.json").read_text())
    assert [source["input"] for source in sources] == [domain, general]
    assert [source["counts"]["kept"] for source in sources] == [900, 300]
    for name, value in counts.items():
        assert value == sum(source["counts"][name] for source in sources)
    again = build_corpus(tmp_path / "again", [domain, general], weights=[3, 1], **SETTINGS)
    assert again == counts
    assert Path(tmp_path / "again" / "train.text").read_bytes() == (tmp_path / "corpus" / "train.text").read_bytes()


def test_a_budget_keeps_the_shares(tmp_path):
    inputs = [write(tmp_path / f"{name}.jsonl", [f"{name}{n:08d}" for n in range(500)]) for name in "ab"]
    build_corpus(tmp_path / "corpus", inputs, weights=[0.9, 0.1], **{**SETTINGS, "byte_budget": 900})
    texts = list(Corpus.load(tmp_path / "corpus").train)
    assert (len(texts), sum(text[0] == "a" for text in texts)) == (100, 90)


def test_as_many_weights_as_inputs(tmp_path):
    with pytest.raises(ConfigError, match=r"corpus\.weights must be one weight for each of the 1"):
        build_corpus(tmp_path / "corpus", [write(tmp_path / "a.jsonl", "ab")], weights=[1, 2], **SETTINGS)
