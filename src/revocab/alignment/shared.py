"""Rows made of shared tokens alone, found in the target's own vectors: no common space has to be fitted.

T target tokens, S source tokens, Q of T to make, K shared tokens, D width.
"""

from collections.abc import Callable

import numpy as np
from scipy import sparse
from torch import Tensor

from revocab.alignment.evidence import gather_evidence
from revocab.alignment.problem import Problem, Settings
from revocab.alignment.proposal import Proposal, needs_match
from revocab.alignment.space import rows_of
from revocab.artifacts import Origin

# (Q, D) vectors and (K, D) vectors of shared tokens to (Q, K) weights, rows sum to 1, and the best cosine (Q,)
Mixtures = Callable[[Tensor, Tensor, Settings], tuple[sparse.csr_matrix, np.ndarray]]


def propose_from_shared(mixtures: Mixtures, problem: Problem, settings: Settings) -> Proposal:
    """Mix shared tokens for every frequent token that needs it; below `similarity_threshold` a row is left empty."""
    evidence = gather_evidence(problem, settings, problem.exact)
    ids = evidence.target_ids[needs_match(problem, problem.exact)[evidence.target_ids]]
    shared = evidence.pairs
    weights_QK, best_Q = mixtures(
        rows_of(evidence.target_vectors, ids), rows_of(evidence.target_vectors, shared.target_ids), settings
    )
    threshold = settings.similarity_threshold
    passes_Q = np.ones(len(ids), dtype=bool) if threshold is None else best_Q >= threshold
    num_targets, num_sources = problem.shape
    place_QT = sparse.csr_matrix((passes_Q.astype(np.float64), (np.arange(len(ids)), ids)), (len(ids), num_targets))
    place_KS = sparse.csr_matrix(
        (np.ones(len(shared)), (np.arange(len(shared)), shared.source_ids)), (len(shared), num_sources)
    )
    origin_T = np.full(num_targets, Origin.UNSEEN, dtype=np.int8)
    origin_T[ids] = np.where(passes_Q, Origin.VECTORS, Origin.BELOW_THRESHOLD)
    similarity_T = np.full(num_targets, np.nan, dtype=np.float32)
    similarity_T[ids] = best_Q
    return Proposal(
        weights=sparse.csr_matrix(place_QT.T @ weights_QK @ place_KS),
        origin=origin_T,
        similarity=similarity_T,
        exact=problem.exact,
        counts={
            "fitted_pairs": len(shared),
            "frequent_target_tokens": len(evidence.target_ids),
            "matched": len(ids),
            "below_threshold": int((~passes_Q).sum()),
        },
    )
