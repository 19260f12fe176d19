"""The two sets of token vectors laid over each other by one rotation, fitted on shared tokens.

Two co-occurrence spaces of one corpus differ by a rotation and little else (Mikolov et al. 2013; Xing et al. 2015 for
the rotation on normalised vectors; Conneau et al. 2018 for the search by CSLS). `fit_weights` says whether frequent
shared tokens count more in the fit: their vectors are known better.
"""

import numpy as np
import torch
from torch import Tensor

from revocab.alignment.evidence import Evidence
from revocab.alignment.neighbours import crowding
from revocab.alignment.problem import Settings
from revocab.alignment.rotation import rotation_onto
from revocab.alignment.space import Space, rows_of, scaled
from revocab.artifacts import Pairs


def rotated_space(evidence: Evidence, pairs: Pairs, settings: Settings) -> Space:
    """Fit the rotation on normalised vectors of `pairs`; search by CSLS over all frequent source tokens."""
    rotation_DD = rotation_onto(
        scaled(rows_of(evidence.target_vectors, pairs.target_ids), "cosine"),
        scaled(rows_of(evidence.source_vectors, pairs.source_ids), "cosine"),
        _fit_weights(evidence, pairs, settings.fit_weights),
    )
    source_ND = scaled(rows_of(evidence.source_vectors, evidence.source_ids), settings.similarity)
    target_MD = scaled(rows_of(evidence.target_vectors, evidence.target_ids), settings.similarity) @ rotation_DD
    crowding_N = crowding(source_ND, target_MD, settings.csls_neighbours, rows_at_once=settings.rows_at_once)
    place_T = np.zeros(len(evidence.target_vectors), dtype=np.int64)
    place_T[evidence.target_ids] = np.arange(len(evidence.target_ids))
    return Space(
        source_ids=evidence.source_ids,
        source_rows=source_ND,
        target_rows=lambda ids: rows_of(target_MD, place_T[ids]),
        crowding=crowding_N,
    )


def _fit_weights(evidence: Evidence, pairs: Pairs, kind: str) -> Tensor | None:
    """One weight per pair, by the rarer side's count."""
    if kind == "uniform":
        return None
    counts = np.minimum(evidence.source_counts[pairs.source_ids], evidence.target_counts[pairs.target_ids])
    return torch.from_numpy(np.log1p(counts) if kind == "log_count" else counts.astype(np.float64))
