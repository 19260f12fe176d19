"""A common space of both vocabularies, in which target tokens look for their nearest source tokens.

N candidates among the source tokens, R target tokens asked for, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from revocab.alignment.evidence import Evidence
from revocab.alignment.neighbours import Nearest, nearest_rows
from revocab.alignment.problem import Settings
from revocab.artifacts import Pairs


@dataclass(frozen=True, kw_only=True)
class Space:
    """Both vocabularies in the same coordinates."""

    source_ids: np.ndarray  # (N,) int64 source ids of the rows below
    source_rows: Tensor  # (N, D) float32; normalised where the similarity is a cosine
    target_rows: Callable[[np.ndarray], Tensor]  # (R,) target ids to (R, D) in these coordinates
    crowding: Tensor | None = None  # (N,) for CSLS


Fit = Callable[[Evidence, Pairs, Settings], Space]  # lays the two out so that the given pairs agree


def search(space: Space, target_ids: np.ndarray, k: int, settings: Settings) -> tuple[np.ndarray, Nearest]:
    """Return the k nearest source ids for each target id, (R, K) int64, and their scores."""
    nearest = nearest_rows(
        space.target_rows(target_ids),
        space.source_rows,
        k,
        rows_at_once=settings.rows_at_once,
        crowding_N=space.crowding,
    )
    return space.source_ids[nearest.rows.cpu().numpy()], nearest


def scaled(vectors_VD: Tensor, similarity: str) -> Tensor:
    """Scale vectors for comparison: to length 1 for `cosine`, to a mean length of 1 for `dot`, which keeps lengths."""
    lengths_V1 = vectors_VD.norm(dim=1, keepdim=True)
    if similarity == "cosine":
        return vectors_VD / lengths_V1.clamp_min(1e-12)
    return vectors_VD / lengths_V1.mean().clamp_min(1e-12)


def rows_of(vectors_VD: Tensor, ids: np.ndarray) -> Tensor:
    return vectors_VD[torch.from_numpy(ids).to(vectors_VD.device)]
