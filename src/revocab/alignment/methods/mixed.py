"""Part mean of the token's own pieces, part mixture of its nearest source tokens (`subtoken` and `procrustes`).

The two err in different ways: pieces know the spelling, neighbours know the use. A token with one kind of evidence
alone is made of that: rare tokens are their pieces. A match below `similarity_threshold` is dropped, so that such a
row is its pieces alone; only a token without telling pieces then goes to the fallback.
"""

import numpy as np
from scipy import sparse

from revocab.alignment.methods import procrustes, subtoken
from revocab.alignment.problem import Problem, Settings
from revocab.alignment.proposal import Proposal
from revocab.artifacts import Origin

NEEDS_VECTORS = True


def propose(problem: Problem, settings: Settings) -> Proposal:
    pieces, matches = subtoken.propose(problem, settings), procrustes.propose(problem, settings)
    by_pieces_T, by_vectors_T = pieces.origin == Origin.SUBTOKENS, matches.origin == Origin.VECTORS
    both_T = by_pieces_T & by_vectors_T
    share_T = np.where(both_T, settings.subtoken_share, by_pieces_T.astype(np.float64))
    matched = sparse.diags_array(1.0 - share_T) @ matches.weights
    of_pieces = sparse.diags_array(share_T)
    output = pieces.output_weights
    weak_T = matches.origin == Origin.BELOW_THRESHOLD
    return Proposal(
        weights=sparse.csr_matrix(of_pieces @ pieces.weights + matched),
        output_weights=None if output is None else sparse.csr_matrix(of_pieces @ output + matched),
        origin=_origins(by_pieces_T, by_vectors_T, weak_T),
        similarity=matches.similarity,
        exact=problem.exact,
        counts={
            **pieces.counts,
            **matches.counts,
            "below_threshold_kept_by_pieces": int((weak_T & by_pieces_T).sum()),
        },
    )


def _origins(by_pieces_T: np.ndarray, by_vectors_T: np.ndarray, weak_T: np.ndarray) -> np.ndarray:
    return np.select(
        [by_pieces_T & by_vectors_T, by_pieces_T, by_vectors_T, weak_T],
        [Origin.MIXED, Origin.SUBTOKENS, Origin.VECTORS, Origin.BELOW_THRESHOLD],
        default=Origin.UNSEEN,
    ).astype(np.int8)
