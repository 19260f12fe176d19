"""Rows blended with what the source tokenizer cuts at the same places of the same text.

A target token's row of the input table should make the model act as after what it would have read up to there, the
source tokens that end where it ends; its row of the output table should be wanted when the source tokens that begin
where it begins are. This concerns exact tokens too: ` ac` is one token in both vocabularies, but only the target begins
"acetyl" with it, where the source has ` acet`. T target tokens, S source tokens.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse

from revocab.alignment.problem import Problem
from revocab.artifacts import Alignment, Boundaries

CAUTION = 5.0  # occurrences at which the counts get half of their share


def blended(
    weights: sparse.csr_matrix, counts: sparse.csr_matrix, share: float, kept_T: np.ndarray
) -> sparse.csr_matrix:
    """(T, S) float32: every row but the kept ones gives up to `share` of its weight to its counts.

    With n counted occurrences a row gives share * n / (n + CAUTION): a token met twice says little.
    """
    seen_T = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    given_T = np.where(kept_T, 0.0, share * seen_T / (seen_T + CAUTION))
    by_counts = sparse.diags_array(given_T / np.maximum(seen_T, 1.0)) @ counts
    return sparse.csr_matrix(sparse.diags_array(1.0 - given_T) @ weights + by_counts, dtype=np.float32)


def blend_boundaries(alignment: Alignment, boundaries: Boundaries, share: float, kept_T: np.ndarray) -> Alignment:
    """Return the alignment with input rows blended with `boundaries.ends`, output rows with `boundaries.starts`.

    Args:
        alignment: rows that sum to 1.
        boundaries: counts of this pair of vocabularies.
        share: of a row's weight, in [0, 1].
        kept_T: rows that stay as they are.
    """
    output = alignment.weights if alignment.output_weights is None else alignment.output_weights
    return replace(
        alignment,
        weights=blended(alignment.weights, boundaries.ends, share, kept_T),
        output_weights=blended(output, boundaries.starts, share, kept_T),
    )


def agreement(problem: Problem) -> dict[str, Any]:
    """How far both tokenizers cut text at the same places: shares of the occurrences of target tokens, in [0, 1].

    `exact_as_themselves`: among exact tokens that begin where a source token does, how often that is their twin.
    """
    boundaries = problem.boundaries
    if boundaries is None:
        return {}
    exact = problem.exact
    begun_exact = boundaries.starts[exact.target_ids].sum()
    twins = np.asarray(boundaries.starts[exact.target_ids, exact.source_ids]).sum()
    occurrences = max(boundaries.target_tokens, 1)
    return {
        "start_together": float(boundaries.starts.sum() / occurrences),
        "end_together": float(boundaries.ends.sum() / occurrences),
        "exact_as_themselves": float(twins / begun_exact) if begun_exact else None,
    }
