"""How often each token occurs in a corpus, and which tokens occur often enough to be described by their neighbours."""

from collections.abc import Sequence

import numpy as np

from revocab.artifacts import TokenizedCorpus
from revocab.errors import DataError

TOKENS_AT_ONCE = 1 << 22  # ids read from the memory map at a time


def token_counts(tokens: TokenizedCorpus) -> np.ndarray:
    """Return the occurrences of every token, special ones included: (V,) int64."""
    counts = np.zeros(tokens.vocabulary_size, dtype=np.int64)
    for start in range(0, len(tokens.tokens), TOKENS_AT_ONCE):
        part = tokens.read(start, start + TOKENS_AT_ONCE)
        counts += np.bincount(part, minlength=tokens.vocabulary_size)
    return counts


def frequent_tokens(counts_V: np.ndarray, special_ids: Sequence[int], min_count: int) -> np.ndarray:
    """Return the ids of tokens that occur at least `min_count` times and are not marks between documents, ascending.

    Raises:
        DataError: no token is that frequent.
    """
    frequent_V = counts_V >= max(min_count, 1)
    frequent_V[list(special_ids)] = False
    if not frequent_V.any():
        raise DataError(
            f"no token occurs {min_count} times in a corpus of {int(counts_V.sum()):,} tokens: "
            "use a larger corpus or a smaller min_count in the config node embedding"
        )
    return np.flatnonzero(frequent_V)
