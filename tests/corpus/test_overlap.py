"""Runs of words shared with evaluation texts: as a comparison of all runs with all runs finds them."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revocab.corpus.overlap import Overlaps


def overlaps(length, **texts):
    made = Overlaps(length)
    for dataset, of_it in texts.items():
        for text in of_it:
            made.add(dataset, text)
    return made


def runs(text, length):
    words = re.findall(r"\w+", text.lower())
    return [" ".join(words[start : start + length]) for start in range(len(words) - length + 1)]


texts = st.lists(st.lists(st.sampled_from(["a", "B", "c,", "ä", "42"]), max_size=9).map(" ".join), max_size=4)


@settings(max_examples=200, deadline=None)
@given(first=texts, second=texts, document=texts.map(" ".join), length=st.integers(1, 5))
def test_the_first_shared_run_is_found_and_no_other(first, second, document, length):
    known = {run: name for name, of_it in (("y", second), ("x", first)) for text in of_it for run in runs(text, length)}
    expected = next(((known[run], run) for run in runs(document, length) if run in known), None)
    assert overlaps(length, x=first, y=second).find(document) == expected


@settings(max_examples=200, deadline=None)
@given(
    known=texts, documents=st.lists(texts.map(" ".join), max_size=6), length=st.integers(1, 4), most=st.integers(1, 3)
)
def test_what_many_documents_share_is_not_rare(known, documents, length, most):
    there = {run for text in known for run in runs(text, length)}
    sharing = {run: sum(run in runs(text, length) for text in documents) for run in there}
    expected = []
    for number, text in enumerate(documents):
        rare = [run for run in runs(text, length) if run in there and sharing[run] <= most]
        expected += [(number, ("x", rare[0]))] if rare else []
    assert list(overlaps(length, x=known).find_rare(documents, most)) == expected


def test_case_punctuation_and_line_ends_do_not_hide_a_text():
    question = "Does aspirin, taken daily, lower the risk of a second heart attack in women?"
    known = overlaps(13, medqa=[question])
    twelve = "Abstract.\nDoes ASPIRIN taken daily lower (the) risk of a second heart\nattack"
    assert known.find(twelve) is None
    assert known.find(f"{twelve} in") == (
        "medqa",
        "does aspirin taken daily lower the risk of a second heart attack in",
    )


def test_a_text_of_fewer_words_has_no_run():
    assert overlaps(13, set=["Is it so?"]).find("Is it so? " * 10) is None
    assert overlaps(13).find("Is it so? " * 10) is None


@pytest.mark.parametrize("length", [13])
def test_many_runs_are_told_apart(length):
    sets = {"known": [" ".join(f"w{(seed * 7919 + place) % 10007}" for place in range(200)) for seed in range(300)]}
    made = overlaps(length, **sets)
    assert all(made.find(text) for text in sets["known"])
    others = [" ".join(f"v{(seed * 7919 + place) % 10007}" for place in range(200)) for seed in range(300)]
    assert not any(made.find(text) for text in others)
