"""Each token is a mean of the source tokens that its text is cut into; shared tokens are themselves.

`subtoken_weights`: uniform; length, by the bytes of the pieces; first or last, that piece alone; ends, the last piece
in the input table (what the model has just read) and the first in the output table (what it would have said next).

A token whose pieces are all single bytes goes to the fallback: bytes say nothing about its meaning.
"""

import numpy as np

from revocab.alignment.pieces import mean_of_pieces, telling_pieces
from revocab.alignment.problem import Problem, Settings
from revocab.alignment.proposal import Proposal, needs_match
from revocab.artifacts import Origin

NEEDS_VECTORS = False


def propose(problem: Problem, settings: Settings) -> Proposal:
    needs_T = needs_match(problem, problem.exact)
    rows_T = needs_T & telling_pieces(problem)
    ends = settings.subtoken_weights == "ends"
    return Proposal(
        weights=mean_of_pieces(problem, rows_T, "last" if ends else settings.subtoken_weights),
        output_weights=mean_of_pieces(problem, rows_T, "first") if ends else None,
        origin=np.where(rows_T, Origin.SUBTOKENS, Origin.UNSEEN).astype(np.int8),
        similarity=np.full(len(rows_T), np.nan, dtype=np.float32),
        exact=problem.exact,
        counts={"single_bytes_alone": int((needs_T & ~rows_T).sum())},
    )
