"""Domain terms: words and short phrases that a corpus uses often and that a tokenizer cuts into several tokens.

A word is a run of letters, or several joined by hyphens, with a space before it and nothing of a word after it; a
phrase is up to three words with one space between each. Forms are counted as they occur: `Heart` is not `heart`.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from revocab.runtime.progress import track
from revocab.vocabulary.encoding import encode_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORD = re.compile(r"(?<= )[^\W\d_]+(?:-[^\W\d_]+)*(?!\w)")
MAX_WORDS = 3
MAX_ENTRIES = 2_000_000  # distinct terms counted at a time: about 0.6 GB
COMMON = 0.1  # share of the documents from which on a word is of the language, not of the domain
RANKED_AT_A_TIME = 4096


@dataclass(frozen=True, kw_only=True)
class Term:
    """One mined term."""

    text: str  # without the space before it
    occurrences: int
    documents: int  # that hold it
    score: float  # what it was ranked by
    pieces: int  # tokens that the tokenizer makes of it and the space before it, in running text


@dataclass(frozen=True, kw_only=True)
class MinedTerms:
    """The best terms of a corpus, best first."""

    terms: tuple[Term, ...]
    candidates: int  # words and phrases that occur often enough
    already_single: int  # candidates passed over on the way to the last of `terms`: they are one token as it is
    undercount: int  # occurrences that a count may lack: 0 unless the counts outgrew the memory given to them


@dataclass(frozen=True, kw_only=True)
class TermCounts:
    """How often words and phrases occur."""

    occurrences: Counter[str]
    documents: Counter[str]
    num_documents: int
    undercount: int


def mine_terms(
    documents: Iterable[str],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    top_k: int,
    min_frequency: int,
    use_tfidf: bool = True,
    max_entries: int = MAX_ENTRIES,
) -> MinedTerms:
    """The `top_k` terms with the highest score that the tokenizer cuts into more than one token.

    The score of a term is its TF-IDF summed over the corpus, tf * log(D / df), with tf its occurrences, df the
    documents that hold it and D all documents (Sparck Jones 1972; Salton and Buckley 1988, weighting `ntn` in SMART's
    letters); without `use_tfidf` it is tf alone. tf leaves out the occurrences inside the commonest longer candidate
    (as the C-value does, Frantzi et al. 2000): `congestive heart` is no term where it is always `congestive heart
    failure`. With `use_tfidf` phrases do not begin or end with a word that a tenth of the documents hold.

    Args:
        documents: read once, one at a time.
        tokenizer: the tokenizer that the terms are to be added to.
        top_k: terms at most.
        min_frequency: occurrences that a term must have.
        use_tfidf: false ranks by frequency.
        max_entries: words and phrases counted at a time, which bounds memory.
    """
    counts = count_terms(documents, max_entries=max_entries)
    scores = rank_terms(counts, min_frequency=min_frequency, use_tfidf=use_tfidf)
    ranked = sorted(scores, key=lambda term: (-scores[term], term))
    chosen: list[Term] = []
    single = 0
    for term, pieces in _with_pieces(ranked, tokenizer):
        if len(chosen) == top_k:
            break
        if pieces <= 1:
            single += 1
            continue
        found = {"occurrences": counts.occurrences[term], "documents": counts.documents[term]}
        chosen.append(Term(text=term, score=scores[term], pieces=pieces, **found))
    return MinedTerms(terms=tuple(chosen), candidates=len(scores), already_single=single, undercount=counts.undercount)


def rank_terms(counts: TermCounts, *, min_frequency: int, use_tfidf: bool = True) -> dict[str, float]:
    """The score of every candidate, as `mine_terms` defines them."""
    candidates = {term: count for term, count in counts.occurrences.items() if count >= min_frequency}
    if use_tfidf:
        candidates = {term: count for term, count in candidates.items() if not _has_common_edge(term, counts)}
    scores: dict[str, float] = {}
    for term, count in _outside_of_longer(candidates).items():
        idf = math.log(counts.num_documents / counts.documents[term]) if use_tfidf else 1.0
        if count >= min_frequency and idf > 0:
            scores[term] = count * idf
    return scores


def count_terms(documents: Iterable[str], *, max_entries: int = MAX_ENTRIES) -> TermCounts:
    """Occurrences and documents of every word and phrase.

    Where there are more than `max_entries` of them, all counts are lowered by one until half as many are left (Misra
    and Gries 1982): a count then lacks at most as many occurrences as it was lowered by, frequent terms stay.
    """
    occurrences: Counter[str] = Counter()
    holding: Counter[str] = Counter()
    num_documents = undercount = 0
    for document in track(documents, "mining terms"):
        num_documents += 1
        found = list(terms_of(document))
        occurrences.update(found)
        holding.update(set(found))
        if len(occurrences) > max_entries:
            while len(occurrences) > max_entries // 2:
                undercount += 1
                occurrences = Counter({term: count - 1 for term, count in occurrences.items() if count > 1})
            holding = Counter({term: holding[term] for term in occurrences})
    return TermCounts(occurrences=occurrences, documents=holding, num_documents=num_documents, undercount=undercount)


def terms_of(text: str) -> Iterator[str]:
    """Every word, and every phrase that ends with it."""
    starts: list[int] = []  # of the words that the phrase may begin with
    last = -1
    for match in WORD.finditer(text):
        start, end = match.span()
        starts = [*starts[1 - MAX_WORDS :], start] if start == last + 1 else [start]
        for first in starts:
            yield text[first:end]
        last = end


def _has_common_edge(term: str, counts: TermCounts) -> bool:
    words = term.split(" ")
    limit = COMMON * counts.num_documents
    return len(words) > 1 and any(counts.documents[word] > limit for word in (words[0], words[-1]))


def _outside_of_longer(candidates: dict[str, int]) -> dict[str, int]:
    """Occurrences of each candidate without those in the commonest candidate that is one word longer."""
    inside: dict[str, int] = {}
    for term, count in candidates.items():
        if " " in term:
            for part in (term.split(" ", 1)[1], term.rsplit(" ", 1)[0]):
                inside[part] = max(inside.get(part, 0), count)
    return {term: count - inside.get(term, 0) for term, count in candidates.items()}


def _with_pieces(ranked: Sequence[str], tokenizer: "PreTrainedTokenizerBase") -> Iterator[tuple[str, int]]:
    """Terms with the number of their tokens, encoded some thousand at a time."""
    for first in range(0, len(ranked), RANKED_AT_A_TIME):
        terms = ranked[first : first + RANKED_AT_A_TIME]
        yield from zip(terms, count_pieces(terms, tokenizer), strict=True)


def count_pieces(terms: Sequence[str], tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Tokens of each term in running text, with the space before it."""
    alone, *lengths = map(len, encode_texts(tokenizer, ["(", *(f"( {term}" for term in terms)]))
    return [length - alone for length in lengths]
