"""What rows without evidence become: the mean of the source table, their pieces, a random token, or nothing.

T target tokens, S source tokens.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from revocab.alignment.pieces import mean_of_pieces, telling_pieces
from revocab.alignment.problem import Problem
from revocab.alignment.proposal import weights_from_entries
from revocab.artifacts import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Filling:
    """What the fallback adds to W."""

    weights: sparse.csr_matrix  # (T, S) float64
    background: np.ndarray  # (S,) float32, sums to 1
    background_share: np.ndarray  # (T,) float32, 1 where a row is the background
    by_pieces: np.ndarray  # (T,) bool rows that fallback=subtoken found pieces for: evidence after all
    kept: np.ndarray  # (T,) bool rows that the fallback leaves to the method


def fill(problem: Problem, fallback: str, seed: int, empty_T: np.ndarray) -> Filling:
    """Fill the rows where `empty_T` is true.

    - mean: the background, a uniform mean over all source tokens that stand for text.
    - subtoken: the mean of the row's pieces; the background where it has none but single bytes.
    - random: one source token that stands for text, drawn with the seed.
    - zero: nothing; these rows of W sum to 0.
    """
    weights = sparse.csr_matrix(problem.shape, dtype=np.float64)
    by_pieces_T = np.zeros_like(empty_T)
    share_T = np.zeros(len(empty_T), dtype=np.float32)
    if fallback == "subtoken":
        by_pieces_T = empty_T & telling_pieces(problem)
        weights = mean_of_pieces(problem, by_pieces_T)
    if fallback == "random":
        weights = random_tokens(problem, empty_T, seed)
    elif fallback != "zero":
        share_T[empty_T & ~by_pieces_T] = 1.0
    return Filling(
        weights=weights,
        background=text_tokens_mean(problem.source),
        background_share=share_T,
        by_pieces=by_pieces_T,
        kept=~empty_T,
    )


def text_tokens(vocabulary: Vocabulary) -> np.ndarray:
    """Return the ids of tokens that stand for text: not special, not unused. All ids where there are none."""
    stands_V = np.fromiter((bool(surface) for surface in vocabulary.surfaces), dtype=bool) & ~vocabulary.special
    return np.flatnonzero(stands_V) if stands_V.any() else np.arange(len(vocabulary))


def text_tokens_mean(vocabulary: Vocabulary) -> np.ndarray:
    """(S,) float32 uniform weights over the tokens that stand for text."""
    ids = text_tokens(vocabulary)
    background_S = np.zeros(len(vocabulary), dtype=np.float32)
    background_S[ids] = 1.0 / len(ids)
    return background_S


def random_tokens(problem: Problem, rows_T: np.ndarray, seed: int) -> sparse.csr_matrix:
    """Give each row where `rows_T` is true one source token that stands for text; what a row gets depends on its id."""
    drawn_T = np.random.default_rng(seed).choice(text_tokens(problem.source), size=len(problem.target))
    rows = np.flatnonzero(rows_T)
    return weights_from_entries(rows, drawn_T[rows], np.ones(len(rows)), problem.shape)
