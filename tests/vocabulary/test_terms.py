"""Which terms are found, against counts made another way and cases worked by hand."""

import math
import random
import re
from collections import Counter

import pytest

from revocab.artifacts import Documents
from revocab.vocabulary import mine_terms
from revocab.vocabulary.terms import MAX_WORDS, count_pieces, count_terms

WORDS = ["the", "heart", "Heart", "of", "failure", "acyl-CoA", "β-cell", "naïve", "x2", "2", "cell_line", "a"]


def texts(count, seed=0):
    generator = random.Random(seed)
    for _ in range(count):
        length = generator.randrange(12)
        yield "".join(
            generator.choice(WORDS) + generator.choice([" ", " ", " ", "  ", ", ", "\n", ". "]) for _ in range(length)
        )


def by_brute_force(documents):
    """Every substring of the text that is a term, found by looking at each start and end."""
    occurrences, holding = Counter(), Counter()
    word = r"[^\W\d_]+(?:-[^\W\d_]+)*"
    for text in documents:
        words = [match.span() for match in re.finditer(rf"(?<= ){word}(?!\w)", text)]
        found = [
            text[start:end]
            for start, _ in words
            for _, end in words
            if re.fullmatch(rf"{word}(?: {word}){{0,{MAX_WORDS - 1}}}", text[start:end])
            and all((left, right) in words for left, right in inner(text, start, end))
        ]
        occurrences.update(found)
        holding.update(set(found))
    return occurrences, holding


def inner(text, start, end):
    return [(start + match.start(), start + match.end()) for match in re.finditer(r"[^ ]+", text[start:end])]


def test_counts_are_those_of_brute_force():
    documents = list(texts(300))
    occurrences, holding = by_brute_force(documents)
    counts = count_terms(documents)
    assert counts.occurrences == occurrences
    assert counts.documents == holding
    assert (counts.num_documents, counts.undercount) == (300, 0)
    assert {"heart", "Heart", "heart failure", "acyl-CoA", "naïve"} <= set(occurrences)
    assert not {"x2", "2", "cell_line", "cell"} & set(occurrences)


def test_bounded_memory_loses_at_most_what_it_says():
    documents = list(texts(300))
    whole, bounded = count_terms(documents), count_terms(documents, max_entries=100)
    assert len(whole.occurrences) > 100 >= len(bounded.occurrences)
    assert bounded.undercount > 0
    for term, count in whole.occurrences.items():
        assert count - bounded.undercount <= bounded.occurrences[term] <= count
        assert bounded.documents[term] <= whole.documents[term]


def test_the_score_is_tfidf_and_frequency_without_it(byte_level):
    documents = [" zygote zygote zygote", " zygote", " ketone", " ketone", " ketone", " ketone", " other", " other"]
    mined = mine_terms(documents, byte_level, top_k=2, min_frequency=2)
    found = {term.text: term for term in mined.terms}
    assert found["ketone"].score == pytest.approx(4 * math.log(8 / 4))
    assert (found["ketone"].occurrences, found["ketone"].documents) == (4, 4)
    assert found["zygote"].score == pytest.approx(4 * math.log(8 / 2))
    by_frequency = mine_terms(documents, byte_level, top_k=1, min_frequency=2, use_tfidf=False)
    assert [(term.text, term.score) for term in by_frequency.terms] == [("ketone", 4)]


def test_a_term_in_every_document_says_nothing(byte_level):
    documents = [" zygote ", " zygote ketone. ketone", " zygote ketone."]
    assert "zygote" not in {term.text for term in mine_terms(documents, byte_level, top_k=9, min_frequency=1).terms}
    assert "zygote" in {
        term.text for term in mine_terms(documents, byte_level, top_k=9, min_frequency=1, use_tfidf=False).terms
    }


def test_a_part_that_only_occurs_inside_a_longer_term_is_none(byte_level):
    documents = [" chronic ketone failure."] * 5 + [" failure,"] * 4 + [" nothing"] * 90
    terms = {term.text for term in mine_terms(documents, byte_level, top_k=50, min_frequency=3).terms}
    assert {"chronic ketone failure", "failure"} <= terms
    assert not {"chronic", "ketone", "chronic ketone", "ketone failure"} & terms


def test_a_phrase_does_not_begin_or_end_with_a_word_of_the_language(byte_level):
    documents = [" of the ketone."] * 20 + [" rate of ketone,"] * 5 + [" nothing"] * 75
    terms = {term.text for term in mine_terms(documents, byte_level, top_k=50, min_frequency=3).terms}
    assert not {"of the", "the ketone", "of ketone"} & terms


def test_tokens_already_are_counted_and_passed_over(byte_level):
    documents = [" heart", " heart", " ketone", " ketone", " x", ""]
    assert count_pieces(["heart"], byte_level) == [1]
    mined = mine_terms(documents, byte_level, top_k=5, min_frequency=2)
    assert [term.text for term in mined.terms] == ["ketone"]
    assert mined.already_single == 1
    assert mined.terms[0].pieces == len(byte_level.encode("x ketone", add_special_tokens=False)) - 1


def test_fewer_terms_than_asked_for_and_none_below_the_frequency(byte_level):
    assert (
        mine_terms([" ketone", " zygote", " zygote", ""], byte_level, top_k=5, min_frequency=2).terms[0].text
        == "zygote"
    )
    assert mine_terms([" ketone", "x"], byte_level, top_k=5, min_frequency=2).terms == ()
    assert mine_terms([], byte_level, top_k=5, min_frequency=1).terms == ()


def test_documents_of_the_corpus_are_read_one_at_a_time(byte_level):
    import numpy as np

    rows = [" ketone", " ketone", " x"]
    text = "".join(rows).encode()
    offsets = np.cumsum([0, *(len(row) for row in rows)])
    documents = Documents(text=np.frombuffer(text, dtype=np.uint8), offsets=offsets)
    found = mine_terms((documents[index] for index in range(3)), byte_level, top_k=3, min_frequency=2)
    assert [term.text for term in found.terms] == ["ketone"]
