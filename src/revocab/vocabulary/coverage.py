"""How a tokenizer copes with the terms of a text: which are one token, and how long tokens are around them."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from revocab.vocabulary.encoding import encode_texts
from revocab.vocabulary.terms import count_pieces, count_terms, rank_terms, terms_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def domain_terms(documents: Iterable[str], *, top_k: int, min_frequency: int = 3) -> list[str]:
    """The terms with the highest TF-IDF (see `mine_terms`), best first, whatever any tokenizer makes of them."""
    ranked = rank_terms(count_terms(documents), min_frequency=min_frequency)
    return sorted(ranked, key=lambda term: (-ranked[term], term))[:top_k]


def split_by_terms(texts: Iterable[str], terms: Iterable[str]) -> tuple[list[str], list[str]]:
    """Sentences that hold a term, and those that hold none.

    A sentence ends with a full stop, an exclamation or a question mark before white space, or with its line.
    """
    wanted = set(terms)
    with_term: list[str] = []
    without: list[str] = []
    for text in texts:
        for sentence in filter(None, map(str.strip, SENTENCE_END.split(text))):
            # The space lets the first word count: terms stand behind one.
            holds = not wanted.isdisjoint(terms_of(f" {sentence}"))
            (with_term if holds else without).append(sentence)
    return with_term, without


def term_compression(
    tokenizer: "PreTrainedTokenizerBase", terms: Sequence[str], with_term: Sequence[str], without: Sequence[str]
) -> dict[str, float | int | None]:
    """Share of the terms that are one token, and how sentences with and without a term are cut.

    Returns:
        terms, single_token (how many), coverage (their share), tokens_per_term; then once with `_with` and once with
        `_without` behind it bytes_per_token, characters_per_token, tokens_per_word (of what white space separates) and
        sentences. Null where there is nothing to divide by.
    """
    pieces = count_pieces(terms, tokenizer) if terms else []
    single = sum(count == 1 for count in pieces)
    return {
        "terms": len(terms),
        "single_token": single,
        "coverage": single / len(terms) if terms else None,
        "tokens_per_term": sum(pieces) / len(terms) if terms else None,
        **{f"{name}_with": value for name, value in _rates(tokenizer, with_term).items()},
        **{f"{name}_without": value for name, value in _rates(tokenizer, without).items()},
    }


def _rates(tokenizer: "PreTrainedTokenizerBase", sentences: Sequence[str]) -> dict[str, float | int | None]:
    tokens = sum(map(len, encode_texts(tokenizer, sentences)))
    words = sum(len(sentence.split()) for sentence in sentences)
    return {
        "bytes_per_token": sum(len(sentence.encode()) for sentence in sentences) / tokens if tokens else None,
        "characters_per_token": sum(map(len, sentences)) / tokens if tokens else None,
        "tokens_per_word": tokens / words if words else None,
        "sentences": len(sentences),
    }
