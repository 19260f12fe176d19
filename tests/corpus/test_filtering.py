"""What is left out of a corpus because of other documents: near copies, and texts that models are evaluated on."""

import json
import random
import sys
from hashlib import sha256

import pytest

from revocab.artifacts import Corpus
from revocab.corpus import STOCK_PHRASE, build_corpus
from revocab.corpus.building import fraction_of
from revocab.errors import MissingDependencyError

SETTINGS = {
    "text_field": None, "size_gb": None, "byte_budget": 0, "deduplicate": True, "hash_name": "sha256",
    "min_line_length": 0, "heldout_fraction": 0.0,
}  # fmt: skip


def build(folder, texts, more=(), **options):
    (folder / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    inputs = [str(folder / name) for name in ("in.jsonl", *more)]
    counts = build_corpus(folder / "corpus", inputs, **{**SETTINGS, **options})
    lines = (folder / "corpus" / "removed.jsonl").read_text().splitlines()
    return list(Corpus.load(folder / "corpus").train), counts, [json.loads(line) for line in lines]


def prose(seed, length=120):
    generator = random.Random(seed)
    return [f"w{generator.randrange(5000)}" for _ in range(length)]


def test_documents_that_share_words_with_an_evaluation_text_are_counted_and_listed(tmp_path):
    texts = [" ".join(prose(seed)) for seed in range(50)]
    quoting = " ".join([*prose(100), *prose(7)[30:43], *prose(101)])  # 13 words of document 7
    nearly = " ".join([*prose(102), *prose(8)[30:42], *prose(103)])  # 12 words of document 8
    evaluated = {"pubmedqa": [texts[7], texts[8]], "other": []}
    kept, counts, removed = build(tmp_path, [*texts, quoting, nearly], evaluated=evaluated, overlap_words=13)
    assert set(kept) == {*texts, nearly} - {texts[7], texts[8]}
    assert (counts["excluded"], counts["contaminated"]) == (2, 1)
    assert [line["reason"] for line in removed] == ["excluded", "excluded", "contaminated"]
    source = str(tmp_path / "in.jsonl")
    words = " ".join(prose(7)[30:43])
    assert removed[-1] == {
        "reason": "contaminated", "dataset": "pubmedqa", "words": words, "input": source, "text": quoting[:200],
    }  # fmt: skip
    kept, counts, _ = build(tmp_path, [*texts, quoting], evaluated=evaluated, overlap_words=0)
    assert quoting in kept
    assert counts["contaminated"] == 0


def test_training_documents_that_quote_the_held_out_part_are_counted_and_listed(tmp_path):
    texts = [" ".join(prose(seed)) for seed in range(60)]
    held = [number for number, text in enumerate(texts) if fraction_of(sha256(text.encode()).digest()) < 0.2]
    assert 5 < len(held) < 20
    quoted = prose(held[0])[40:53]
    quoting = [text for text in (" ".join([*prose(seed), *quoted]) for seed in range(200, 220)) if is_training(text)][
        :2
    ]
    twelve = next(
        text for text in (" ".join([*prose(seed), *quoted[1:]]) for seed in range(300, 320)) if is_training(text)
    )
    (tmp_path / "other.jsonl").write_text(json.dumps({"text": quoting[1]}) + "\n")
    given = [quoting[0], *texts, twelve]
    kept, counts, removed = build(tmp_path, given, overlap_words=13, heldout_fraction=0.2, more=["other.jsonl"])
    assert kept == [text for number, text in enumerate(texts) if number not in held] + [twelve]
    assert [line["text"] for line in removed] == [text[:200] for text in quoting]
    assert [line["input"] for line in removed] == [str(tmp_path / name) for name in ("in.jsonl", "other.jsonl")]
    assert {line["dataset"] for line in removed} == {"heldout"}
    assert {line["words"] for line in removed} == {" ".join(quoted)}
    assert (counts["contaminated"], counts["kept"], counts["held_out"]) == (2, 61, len(held))
    assert counts["read"] == counts["kept"] + counts["contaminated"]
    assert counts["bytes"] == sum(len(text.encode()) for text in [*texts, twelve])
    by_input = json.loads((tmp_path / "corpus" / "sources.json").read_text())
    assert [each["counts"]["contaminated"] for each in by_input] == [1, 1]
    assert [each["counts"]["kept"] for each in by_input] == [61, 0]


def test_a_stock_phrase_of_the_corpus_is_no_quotation(tmp_path):
    phrase = "a p value of less than 0 05 was considered to be statistically significant in all tests"
    texts = [" ".join([*prose(seed), phrase]) for seed in range(40)]
    training = [text for text in texts if is_training(text)]
    assert STOCK_PHRASE < len(training) < 40
    assert build(tmp_path, texts, overlap_words=13, heldout_fraction=0.2)[0] == training
    few = [text for text in texts if not is_training(text)] + training[:STOCK_PHRASE]  # now it tells of those few
    assert build(tmp_path, [*few, " ".join(prose(99))], overlap_words=13, heldout_fraction=0.2)[0] == [
        " ".join(prose(99))
    ]


def is_training(text):
    return fraction_of(sha256(text.encode()).digest()) >= 0.2


def test_near_copies_are_left_out_and_others_stay(tmp_path):
    originals = [prose(seed) for seed in range(300)]
    copies, different = [], []
    for words in originals:
        copies.append(" ".join(["Copy:", *words[:-1]]))  # a heading and a word less: similarity 0.97
        different.append(" ".join("x" if place % 9 == 0 else word for place, word in enumerate(words)))  # 0.3
    texts = [" ".join(words) for words in originals]
    kept, counts, _ = build(tmp_path, texts + copies + different, near_duplicates=0.8)
    assert counts["near_duplicates"] == 300
    assert kept == texts + different
    assert build(tmp_path, texts + copies)[1]["near_duplicates"] == 0


def test_near_copies_need_their_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(MissingDependencyError, match=r"near_duplicates needs .* rensa.*revocab\[dedup\]"):
        build(tmp_path, ["a text"], near_duplicates=0.8)
