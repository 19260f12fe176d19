"""Rows of several models and the table that is made of them."""

import numpy as np
import pytest

from revocab.artifacts import TextScore
from revocab.evaluation import scores_table, text_row


@pytest.fixture
def scores():
    """Two models on 50 documents; the second needs 0.1 bits per byte more of each, and half the tokens."""
    generator = np.random.default_rng(0)
    sizes = generator.integers(50, 200, 50)
    bits = sizes * generator.normal(1.0, 0.2, 50)
    first = TextScore(bits=bits, bytes=sizes, tokens=sizes // 2)
    return first, TextScore(bits=bits + 0.1 * sizes, bytes=sizes, tokens=sizes // 4)


def test_a_row_has_the_difference_on_the_same_documents(scores):
    first, second = scores
    texts = ["wörd " * 3] * 50  # 15 characters each, three words
    row = text_row(second, texts, first=first, seed=0)
    assert row["difference"]["value"] == pytest.approx(0.1)
    assert row["difference"]["low"] == pytest.approx(0.1)  # every document differs by as much
    assert row["low"] < row["value"] < row["high"]
    assert row["high"] - row["low"] > 0.05
    assert row["perplexity_low"] < row["perplexity"] < row["perplexity_high"]
    assert row["characters_per_token"] == pytest.approx(750 / second.tokens.sum())
    assert row["tokens_per_word"] == pytest.approx(second.tokens.sum() / 150)
    assert "difference" not in text_row(first, texts, first=None, seed=0)


def test_the_table_has_a_line_for_each_model(scores):
    first, second = scores
    texts = ["words"] * 50
    rows = {"a": text_row(first, texts, first=None, seed=0), "b": text_row(second, texts, first=first, seed=0)}
    terms = {"coverage": 0.25, "terms": 8, "bytes_per_token_with": 3.0, "bytes_per_token_without": None}
    speed = {"bytes_per_second": 120.4, "tokens_per_second": 30.0, "device": "cpu", "dtype": "float32", "threads": 1}
    written = {"bpb": {"bio": rows}, "qa": {}, "terms": {"bio": {"a": terms, "b": terms}}, "speed": {"a": speed}}
    lines = scores_table(written).splitlines()
    assert len({len(line) for line in lines[:4]}) == 1
    assert [line.split("|")[1].strip() for line in lines[:4] if "--" not in line] == ["bio", "a", "b"]
    assert "+0.1000 [+0.1000, +0.1000]" in lines[3]
    assert "25.0 % of 8" in lines[2]
    assert lines[-1].split("|")[2].strip() == "120"
