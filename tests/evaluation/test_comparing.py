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
    written |= {"groups": {"bio": "domain"}, "harness": {}}
    lines = scores_table(written).splitlines()
    assert len({len(line) for line in lines[:4]}) == 1
    assert [line.split("|")[1].strip() for line in lines[:4] if "--" not in line] == ["bio", "a", "b"]
    assert "+0.1000 [+0.1000, +0.1000]" in lines[3]
    assert "25.0 % of 8" in lines[2]
    assert lines[-1].split("|")[2].strip() == "120"


def test_the_table_has_differences_of_answers_and_general_sets_last(scores):
    row = text_row(scores[0], ["words"] * 50, first=None, seed=0)
    answers = {"accuracy": 0.5, "low": 0.4, "high": 0.6, "accuracy_per_byte": 0.25, "n": 80}
    difference = {"value": 0.1, "low": -0.02, "high": 0.2, "gained": 9, "lost": 1}
    compared = answers | {"difference": difference | {"per_byte": difference | {"value": 0.05}}}
    written = {
        "bpb": {"wiki": {"a": row}, "bio": {"a": row}},
        "qa": {"arc_easy": {"a": answers}, "medqa": {"a": answers, "b": compared}},
        "terms": {}, "speed": {}, "harness": {},
        "groups": {"wiki": "general", "bio": "domain", "arc_easy": "general", "medqa": "domain"},
    }  # fmt: skip
    tables = [table.splitlines() for table in scores_table(written).split("\n\n")]
    titles = [table[0].split("|")[1].strip() for table in tables]
    assert titles == ["bio", "wiki (general)", "medqa", "arc_easy (general)"]
    cells = [cell.strip() for cell in tables[2][3].split("|")[1:-1]]
    assert cells == ["b", "50.0 % [40.0, 60.0]", "+10.0 [-2.0, +20.0]", "9 / 1", "25.0 %", "+5.0 [-2.0, +20.0]", "80"]
    assert [cell.strip() for cell in tables[2][2].split("|")[3:5]] == ["", ""]
