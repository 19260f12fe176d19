"""Positive pointwise mutual information of window counts, with a smoothed context distribution.

Levy, Goldberg & Dagan 2015, sections 3.1 and 3.2: PMI(w, c) = log(P(w, c) / (P(w) * P_a(c))) where
P_a(c) is proportional to count(c)^a; a = 0.75 keeps rare contexts from looking more telling than they are.

K tokens that are counted, V tokens of the vocabulary.
"""

import numpy as np
from scipy import sparse

ENTRIES_AT_ONCE = 1 << 22  # entries worked in float64 at a time


def ppmi(
    counts_KK: sparse.csr_matrix, context_exponent: float, totals_K: np.ndarray | None = None
) -> sparse.csr_matrix:
    """Return max(0, PMI) of symmetric counts: (K, K) float32, zeros not stored.

    The unit of the counts cancels. Logarithms are taken in float64.

    Args:
        counts_KK: symmetric counts, canonical CSR, any number type.
        context_exponent: 1 is plain PMI; below 1 raises the share of rare contexts.
        totals_K: what each token counts with all others, where `counts_KK` does not hold every pair; null: its rows'
            sums.
    """
    if totals_K is None:
        totals_K = np.asarray(counts_KK.sum(axis=1), dtype=np.float64).ravel()
    smoothed_K = np.zeros_like(totals_K)
    np.power(totals_K, context_exponent, out=smoothed_K, where=totals_K > 0)
    with np.errstate(divide="ignore"):  # a token without neighbours has no entries
        log_totals_K = np.log(totals_K)
        log_context_K = np.log(smoothed_K / max(smoothed_K.sum(), 1.0))
    values = np.empty(counts_KK.nnz, dtype=np.float32)
    row_of_entry = np.repeat(np.arange(counts_KK.shape[0], dtype=np.int32), np.diff(counts_KK.indptr))
    for start in range(0, len(values), ENTRIES_AT_ONCE):
        some = slice(start, start + ENTRIES_AT_ONCE)
        information = np.log(counts_KK.data[some].astype(np.float64))
        information -= log_totals_K[row_of_entry[some]]
        information -= log_context_K[counts_KK.indices[some]]
        values[some] = np.maximum(information, 0.0)
    result = sparse.csr_matrix((values, counts_KK.indices.copy(), counts_KK.indptr.copy()), shape=counts_KK.shape)
    result.eliminate_zeros()
    return result
