"""Terms of a text whatever the tokenizer, and what a tokenizer makes of them."""

import pytest

from revocab.runtime.embedded import locate
from revocab.vocabulary import domain_terms, load_tokenizer, split_by_terms, term_compression

TEXTS = [
    *["They saw the myocardial infarction. It was late!"] * 4,
    *["A myocardial infarction heals slowly\nand leaves a scar"] * 4,
    *["Rain fell on the town. Nobody was out?"] * 4,
]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(locate("embedded:source_model", "models.source_model"))


def test_terms_are_the_phrases_of_the_text_and_not_its_common_words():
    filler = [
        f"It is said of the town that word{'abcdefghij'[n % 10]} came {'late' * (1 + n // 10)}." for n in range(100)
    ]
    sick = [f"It is said of the {how} myocardial infarction" for how in ("first", "last", "old", "new")]
    terms = domain_terms([*filler, *sick], top_k=100)
    assert "myocardial infarction" in terms
    assert "myocardial" not in terms  # only ever inside the longer one
    assert "said" not in terms  # every document has it
    assert domain_terms([*filler, *sick], top_k=1) == terms[:1]
    assert domain_terms(sick[:2], top_k=100) == []  # nothing occurs three times


def test_sentences_with_and_without_a_term_are_all_sentences():
    with_term, without = split_by_terms(TEXTS[3:5], ["myocardial infarction", "They"])
    assert with_term == ["They saw the myocardial infarction.", "A myocardial infarction heals slowly"]
    assert without == ["It was late!", "and leaves a scar"]


def test_coverage_and_compression_are_what_the_tokenizer_gives(tokenizer):
    terms = ["the", "myocardial infarction", "protein"]
    counted = {term: len(tokenizer(f"x {term}")["input_ids"]) - len(tokenizer("x")["input_ids"]) for term in terms}
    row = term_compression(tokenizer, terms, ["the protein"], ["a town", "in thé rain"])
    assert row["single_token"] == sum(count == 1 for count in counted.values()) >= 1
    assert row["coverage"] == row["single_token"] / 3 < 1
    assert row["tokens_per_term"] == pytest.approx(sum(counted.values()) / 3)
    tokens = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in ("a town", "in thé rain")]
    assert row["bytes_per_token_without"] == pytest.approx(18 / sum(tokens))
    assert row["characters_per_token_without"] == pytest.approx(17 / sum(tokens))
    assert row["tokens_per_word_without"] == pytest.approx(sum(tokens) / 5)
    assert (row["sentences_with"], row["sentences_without"]) == (1, 2)


def test_without_terms_and_text_there_is_nothing_to_divide_by(tokenizer):
    row = term_compression(tokenizer, [], [], [])
    assert (
        row["coverage"] is row["tokens_per_term"] is row["bytes_per_token_with"] is row["tokens_per_word_with"] is None
    )
