"""A tokenizer extended by the terms of a corpus, and what that saves."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from revocab.artifacts import Documents
from revocab.runtime.files import write_json
from revocab.vocabulary.encoding import encode_texts
from revocab.vocabulary.extending import extend_tokenizer
from revocab.vocabulary.terms import mine_terms

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def add_terms(
    folder: Path,
    documents: Documents,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    top_k: int,
    min_frequency: int,
    use_tfidf: bool,
) -> dict[str, int]:
    """Write the tokenizer with the corpus's terms into `folder`, and the terms themselves as `terms.json`.

    Returns:
        mined (terms chosen), added (of those, the ones that the new tokenizer emits), already_single (candidates passed
        over because they are one token as it is), candidates, undercount (see `MinedTerms`).

    Raises:
        ModelError: not a BPE tokenizer.
    """
    texts = (documents[index] for index in range(len(documents)))
    mined = mine_terms(texts, tokenizer, top_k=top_k, min_frequency=min_frequency, use_tfidf=use_tfidf)
    added = set(extend_tokenizer(tokenizer, [term.text for term in mined.terms], folder))
    counts = {
        "mined": len(mined.terms),
        "added": len(added),
        "already_single": mined.already_single,
        "candidates": mined.candidates,
        "undercount": mined.undercount,
    }
    rows = [{**asdict(term), "added": term.text in added} for term in mined.terms]
    write_json(folder / "terms.json", {"counts": counts, "terms": rows})
    return counts


def token_savings(
    before: "PreTrainedTokenizerBase", after: "PreTrainedTokenizerBase", texts: Mapping[str, Sequence[str]], added: int
) -> dict[str, float | dict[str, float]]:
    """What the terms save on held-out text, by its data sets: tokens_saved, tokens_saved_per_term (both over all sets)
    and the bytes per token before and after."""
    old = {name: _count(before, documents) for name, documents in texts.items()}
    new = {name: _count(after, documents) for name, documents in texts.items()}
    sizes = {name: sum(len(text.encode()) for text in documents) for name, documents in texts.items()}
    saved = sum(old.values()) - sum(new.values())
    return {
        "tokens_saved": saved,
        "tokens_saved_per_term": saved / added if added else 0.0,
        "bytes_per_token_before": {name: sizes[name] / max(1, old[name]) for name in texts},
        "bytes_per_token_after": {name: sizes[name] / max(1, new[name]) for name in texts},
    }


def _count(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> int:
    return sum(map(len, encode_texts(tokenizer, texts)))
