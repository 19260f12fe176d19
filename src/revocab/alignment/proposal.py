"""What a method proposes: weights for the rows that it has evidence for, and why the others have none.

T target tokens, S source tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from revocab.alignment.problem import Problem
from revocab.artifacts import Origin, Pairs

NO_PAIRS = Pairs(target_ids=np.empty(0, dtype=np.int64), source_ids=np.empty(0, dtype=np.int64))


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Rows of W from evidence. Rows that `exact` or the roles cover are ignored."""

    weights: sparse.csr_matrix  # (T, S) float64; rows sum to 1, or are empty where there is no evidence
    output_weights: sparse.csr_matrix | None = None  # (T, S) the same rows for the output table; None: the same
    origin: np.ndarray  # (T,) int8: an aligned origin where the row has weights, else one of the fallback origins
    similarity: np.ndarray  # (T,) float32 score of the best match; nan where nothing was compared
    exact: Pairs  # tokens that stand for themselves
    fallback: str | None = None  # of a method that is itself a fallback, whatever the settings say
    counts: Mapping[str, Any] = field(default_factory=dict)  # what the method counted, for the report


def no_evidence(
    problem: Problem, *, exact: Pairs, origin: Origin = Origin.UNSEEN, fallback: str | None = None
) -> Proposal:
    """A proposal without a single row: all that is not in `exact` goes to the fallback."""
    num_targets = len(problem.target)
    return Proposal(
        weights=sparse.csr_matrix(problem.shape, dtype=np.float64),
        origin=np.full(num_targets, origin, dtype=np.int8),
        similarity=np.full(num_targets, np.nan, dtype=np.float32),
        exact=exact,
        fallback=fallback,
    )


def weights_from_entries(
    rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, shape: tuple[int, int]
) -> sparse.csr_matrix:
    """Return the (T, S) float64 matrix with these entries; equal places add up."""
    matrix = sparse.csr_matrix((np.asarray(weights, dtype=np.float64), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    return matrix


def needs_match(problem: Problem, exact: Pairs) -> np.ndarray:
    """(T,) bool: tokens with text behind them that stand neither for themselves nor for a role."""
    surfaces_T = np.fromiter((bool(surface) for surface in problem.target.surfaces), dtype=bool)
    needs_T = surfaces_T & ~problem.target.special
    needs_T[exact.target_ids] = False
    needs_T[problem.roles.target_ids] = False
    return needs_T
