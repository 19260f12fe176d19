"""BLEU-1 of mapped text: how much of a text survives when each target token becomes the source token it is aligned to.

TokAlign's own measure of an alignment: a text is cut by the target tokenizer, every id is replaced by its source
token, and the result is compared with the ids that the source tokenizer makes of the same text. Identical tokenizers
give 100. Order does not count, length does (BLEU's brevity penalty): a vocabulary with longer tokens cannot reach 100,
so that numbers compare alignments of one pair of tokenizers, not pairs.

T target tokens, S source tokens, D documents.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from revocab.artifacts import Alignment


def best_source(alignment: Alignment) -> tuple[np.ndarray, np.ndarray]:
    """Return the source token with the largest weight, (T,) int64, and whether there is one, (T,) bool.

    Of equal weights the lower id wins. A row has none where it is zero, or where no weight of its own is above what
    the background (the mean of all tokens) gives a single token: the mean stands for nothing in particular.
    """
    weights, share_T, background_S = alignment.weights.tocoo(), alignment.background_share, alignment.background
    total = weights.data + share_T[weights.row] * background_S[weights.col]
    own = (weights.data > 0) & (total >= share_T[weights.row] * background_S.max(initial=0.0))
    rows, columns, total = weights.row[own], weights.col[own], total[own]
    order = np.lexsort((columns, -total, rows))
    found, first = np.unique(rows[order], return_index=True)
    best_T, has_T = np.zeros(alignment.shape[0], dtype=np.int64), np.zeros(alignment.shape[0], dtype=bool)
    best_T[found], has_T[found] = columns[order][first], True
    return best_T, has_T


def map_documents(alignment: Alignment, target_ids: Sequence[Sequence[int]]) -> list[list[int | None]]:
    """Return the documents with the best source id of every target id, None where it has none."""
    best_T, has_T = best_source(alignment)
    best = [source if found else None for source, found in zip(best_T.tolist(), has_T.tolist(), strict=True)]
    return [[best[token] for token in ids] for ids in target_ids]


def bleu1(mapped: Sequence[Sequence[int | None]], source_ids: Sequence[Sequence[int]]) -> dict[str, float | None]:
    """Return {bleu1, bleu1_document_mean}, each in 0..100; None where there is no document.

    `bleu1` is BLEU with unigrams alone over the whole corpus, as it is defined; `bleu1_document_mean` the mean of every
    document's own, which is what the published code of TokAlign averages. A token without a source token is a miss:
    it stays in the text, so that leaving tokens out is no way to a better score. Documents without tokens are skipped.

    Args:
        mapped: (D documents) source ids of the target tokens, None for a miss.
        source_ids: (D documents) what the source tokenizer makes of the same texts.
    """
    pairs = [(ours, theirs) for ours, theirs in zip(mapped, source_ids, strict=True) if ours and theirs]
    if not pairs:
        return {"bleu1": None, "bleu1_document_mean": None}
    counts_D3 = np.array([(_matches(ours, theirs), len(ours), len(theirs)) for ours, theirs in pairs])
    by_document = [_bleu1(*counts) for counts in counts_D3.tolist()]
    return {
        "bleu1": 100 * _bleu1(*counts_D3.sum(axis=0).tolist()),
        "bleu1_document_mean": 100 * float(np.mean(by_document)),
    }


def _matches(ours: Sequence[int | None], theirs: Sequence[int]) -> int:
    """Tokens of ours that are in theirs too, each no more often than it is there."""
    found, there = Counter(ours), Counter(theirs)
    return sum(min(number, found[token]) for token, number in there.items())


def _bleu1(matches: int, ours: int, theirs: int) -> float:
    """BLEU with unigrams alone, of numbers of tokens (Papineni et al. 2002, sections 2.1.1 and 2.2.2).

    Not nltk's: it gives the same number, and its import takes a second of every start.
    """
    brevity_penalty = 1.0 if ours > theirs else math.exp(1 - theirs / ours)
    return brevity_penalty * matches / ours
