"""Rows moved to where the source table has tokens as frequent as they are in the corpus.

A model says a token as often as its output row asks for, and tables hold how frequent a token is: embeddings change
with it along one direction, the slope of a regression of rows on log counts. Two tokenizers use one token differently
often (` ac` more often by one that has no ` acet`), a mixture of tokens is asked for as often as its parts, and a token
that the target never emits here should not be said at all. So each row is moved along the slope by the log of how much
more frequent the token is than its weights make it. Being a regression on rows of the table, the slope is a row over
source tokens itself, and the moved row is still W @ table. T target tokens, S source tokens.
"""

import numpy as np

from revocab.alignment.problem import Problem
from revocab.artifacts import FrequencyShift

UNSEEN = 0.5  # occurrences of a token that does not occur
LIMIT = 3.0  # e^3 = 20 times more or less frequent: beyond, the slope is no longer known to be straight


def frequency_shift(problem: Problem, strength: float, min_count: int) -> FrequencyShift:
    """Regress source rows on the log counts of tokens that stand for text and occur at least `min_count` times.

    Args:
        problem: with the counts of both vocabularies, made on one text.
        strength: 0 moves nothing, 1 all the way.
        min_count: rarer tokens tell nothing of the slope.

    Raises:
        ValueError: the problem has no counts.
    """
    source_S, target_T = problem.source_counts, problem.target_counts
    if source_S is None or target_T is None:
        raise ValueError(f"frequency_shift={strength} needs the counts of both tokenizers")
    source_log = np.log(source_S + UNSEEN)
    known_S = (source_S >= min_count) & ~problem.source.special
    centred_S = np.where(known_S, source_log - source_log[known_S].mean() if known_S.any() else 0.0, 0.0)
    spread = (centred_S**2).sum()
    target_log = np.log(target_T + UNSEEN)
    target_log[problem.roles.target_ids] = np.nan  # how often a text ends is no matter of its words
    return FrequencyShift(
        slope=(centred_S / spread if spread else centred_S).astype(np.float32),
        source_log=source_log.astype(np.float32),
        target_log=target_log.astype(np.float32),
        strength=strength,
        limit=LIMIT,
    )
