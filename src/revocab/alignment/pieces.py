"""Rows from a target token's own pieces: the uniform mean of the source tokens that its text is cut into."""

import numpy as np
from scipy import sparse

from revocab.alignment.problem import Problem
from revocab.alignment.proposal import weights_from_entries
from revocab.artifacts import Vocabulary


def telling_pieces(problem: Problem) -> np.ndarray:
    """(T,) bool: tokens that have pieces which say something of them: not single bytes, and spaces only of spaces."""
    num_pieces_T = np.diff(problem.pieces.offsets)
    row_of_piece = np.repeat(np.arange(len(problem.target)), num_pieces_T)
    says_more = ~problem.source.single_byte[problem.pieces.ids]
    says_more &= (
        _more_than_spaces(problem.source)[problem.pieces.ids] | ~_more_than_spaces(problem.target)[row_of_piece]
    )
    telling_T = np.zeros(len(problem.target), dtype=bool)
    telling_T[row_of_piece[says_more]] = True
    return telling_T


def _more_than_spaces(vocabulary: Vocabulary) -> np.ndarray:
    return np.fromiter((bool(surface.strip(b" ")) for surface in vocabulary.surfaces), dtype=bool)


def mean_of_pieces(problem: Problem, rows_T: np.ndarray, kind: str = "uniform") -> sparse.csr_matrix:
    """Return (T, S) with the weighted mean of its pieces in every row where `rows_T` is true.

    `kind`: uniform; length, by the pieces' bytes; first or last, that piece alone. A piece met twice counts twice.
    """
    num_pieces_T = np.diff(problem.pieces.offsets)
    row_of_piece = np.repeat(np.arange(len(problem.target)), num_pieces_T)
    weights = _weights_of_pieces(problem, kind) * rows_T[row_of_piece]
    totals_T = np.bincount(row_of_piece, weights, minlength=len(problem.target))
    wanted = weights > 0
    rows = row_of_piece[wanted]
    return weights_from_entries(rows, problem.pieces.ids[wanted], weights[wanted] / totals_T[rows], problem.shape)


def _weights_of_pieces(problem: Problem, kind: str) -> np.ndarray:
    """Not normalised, one per piece."""
    pieces = problem.pieces
    if kind == "uniform":
        return np.ones(len(pieces.ids))
    if kind == "length":
        lengths_S = np.array([max(len(surface), 1) for surface in problem.source.surfaces], dtype=np.float64)
        return lengths_S[pieces.ids]
    starts_T, ends_T = pieces.offsets[:-1], pieces.offsets[1:]
    one = np.zeros(len(pieces.ids))
    one[(starts_T if kind == "first" else ends_T - 1)[starts_T < ends_T]] = 1.0
    return one
