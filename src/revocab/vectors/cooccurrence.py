"""Token vectors from what stands near what: window counts, PPMI, truncated SVD.

Levy, Goldberg & Dagan 2015 ("Improving distributional similarity with lessons learned from word embeddings") show
that this equals skip-gram when both are tuned alike, and it needs one pass over the corpus instead of thirty.
"""

import logging
from time import perf_counter

import numpy as np

from revocab.artifacts import TokenizedCorpus, TokenVectors
from revocab.vectors.counting import count_neighbours
from revocab.vectors.factorise import leading_singular_vectors
from revocab.vectors.occurrences import frequent_tokens, token_counts
from revocab.vectors.ppmi import ppmi

log = logging.getLogger(__name__)

SINGULAR_VALUE_POWER = 0.5  # U * S^0.5. Powers 0.25 to 1 align equally well; 0 (U alone) finds 1 % fewer exact pairs


def cooccurrence_vectors(
    tokens: TokenizedCorpus,
    *,
    dim: int = 300,
    window: int = 5,
    context_exponent: float = 0.75,
    min_count: int = 5,
    seed: int = 0,
    device: str = "cpu",
) -> TokenVectors:
    """Return vectors (V, dim) of all tokens that occur `min_count` times; other rows are zero.

    Counting is exact and streams over the corpus; its memory grows with the distinct pairs of tokens, not with the
    text. Where fewer than `dim` tokens are that frequent, the dimensions beyond are zero.

    Args:
        tokens: the corpus in one vocabulary.
        dim: width of the vectors.
        window: neighbours to either side, in 1..20; one at distance d weighs 1/d.
        context_exponent: smoothing of the contexts' distribution, in (0, 1]; 1 is none.
        min_count: tokens rarer than this have no vector and are nobody's context.
        seed: of the randomised SVD.
        device: where the SVD runs, `cpu` or `cuda`.

    Raises:
        ConfigError: a window outside 1..20.
        DataError: no token occurs `min_count` times.
    """
    counts_V = token_counts(tokens)
    kept = frequent_tokens(tokens, counts_V, min_count)
    started = perf_counter()
    neighbours_VV = count_neighbours(tokens, window)
    counted = perf_counter()
    information_KK = ppmi(neighbours_VV[kept][:, kept], context_exponent)
    del neighbours_VV
    left_KR, values_R = leading_singular_vectors(information_KK, dim, seed=seed, device=device)
    log.info(
        "%d tokens have vectors: %.1f s counting %d pairs, %.1f s factorising",
        len(kept),
        counted - started,
        information_KK.nnz,
        perf_counter() - counted,
    )
    vectors = np.zeros((tokens.vocabulary_size, dim), dtype=np.float32)
    vectors[kept, : len(values_R)] = left_KR * values_R**SINGULAR_VALUE_POWER
    return TokenVectors(vectors=vectors, counts=counts_V)
