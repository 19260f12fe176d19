"""Rows from a target token's own pieces: the uniform mean of the source tokens that its text is cut into."""

import numpy as np
from scipy import sparse

from revocab.alignment.problem import Problem
from revocab.alignment.proposal import weights_from_entries


def telling_pieces(problem: Problem) -> np.ndarray:
    """(T,) bool: tokens that have pieces, not all of them single bytes, which say nothing about a text's meaning."""
    num_pieces_T = np.diff(problem.pieces.offsets)
    row_of_piece = np.repeat(np.arange(len(problem.target)), num_pieces_T)
    telling_T = np.zeros(len(problem.target), dtype=bool)
    telling_T[row_of_piece[~problem.source.single_byte[problem.pieces.ids]]] = True
    return telling_T


def mean_of_pieces(problem: Problem, rows_T: np.ndarray) -> sparse.csr_matrix:
    """Return (T, S) with the mean of its pieces in every row where `rows_T` is true; a piece met twice counts twice."""
    num_pieces_T = np.diff(problem.pieces.offsets)
    row_of_piece = np.repeat(np.arange(len(problem.target)), num_pieces_T)
    wanted = rows_T[row_of_piece]
    rows = row_of_piece[wanted]
    return weights_from_entries(rows, problem.pieces.ids[wanted], 1.0 / num_pieces_T[rows], problem.shape)
