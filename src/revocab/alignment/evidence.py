"""Which tokens have vectors that mean something, and which shared tokens a comparison can be fitted on."""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from revocab.alignment.problem import Problem, Settings
from revocab.artifacts import Pairs, TokenVectors
from revocab.errors import DataError, ModelError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The token vectors of both vocabularies, and what of them may be used."""

    source_vectors: Tensor  # (S, D) float32 on the settings' device
    target_vectors: Tensor  # (T, D)
    source_counts: np.ndarray  # (S,) int64 occurrences
    target_counts: np.ndarray  # (T,) int64
    source_ids: np.ndarray  # (N,) int64 source tokens that occur often enough, ascending: the candidates
    target_ids: np.ndarray  # (M,) int64 target tokens that occur often enough, ascending
    pairs: Pairs  # shared tokens that occur often enough in both, in an order that no renumbering of ids changes


def gather_evidence(problem: Problem, settings: Settings, exact: Pairs) -> Evidence:
    """Return what there is to compare.

    Raises:
        ModelError: the vocabularies share no token at all.
        DataError: no shared token occurs often enough in the corpus.
    """
    source, target = problem.source_vectors, problem.target_vectors
    if source is None or target is None:
        raise ValueError(f"alignment.method={settings.method} compares token vectors, and the problem has none")
    if not len(exact):
        raise ModelError(
            f"alignment.method={settings.method} starts from shared tokens, and {problem.names[0]} and "
            f"{problem.names[1]} have none: use alignment=subtoken"
        )
    source_S, target_T = _frequent(source, settings.min_count), _frequent(target, settings.min_count)
    pairs = _order_by_surface(_pairs_of(exact, source_S, target_T), problem)
    if not len(pairs):
        raise DataError(
            f"none of the {len(exact)} shared tokens occurs alignment.min_count={settings.min_count} times in both "
            "tokenizations of the corpus: use a larger corpus, a smaller min_count or alignment=subtoken"
        )
    return Evidence(
        source_vectors=torch.from_numpy(source.vectors).to(settings.device),
        target_vectors=torch.from_numpy(target.vectors).to(settings.device),
        source_counts=source.counts,
        target_counts=target.counts,
        source_ids=np.flatnonzero(source_S),
        target_ids=np.flatnonzero(target_T),
        pairs=pairs,
    )


def _frequent(vectors: TokenVectors, min_count: int) -> np.ndarray:
    return vectors.known & (vectors.counts >= min_count)


def _pairs_of(pairs: Pairs, source_S: np.ndarray, target_T: np.ndarray) -> Pairs:
    both = source_S[pairs.source_ids] & target_T[pairs.target_ids]
    return Pairs(target_ids=pairs.target_ids[both], source_ids=pairs.source_ids[both])


def _order_by_surface(pairs: Pairs, problem: Problem) -> Pairs:
    surfaces = [problem.target.surfaces[target_id] for target_id in pairs.target_ids]
    order = np.array(sorted(range(len(pairs)), key=surfaces.__getitem__), dtype=np.int64)
    return take(pairs, order)


def take(pairs: Pairs, places: np.ndarray) -> Pairs:
    """Return the pairs at these places, in this order."""
    return Pairs(target_ids=pairs.target_ids[places], source_ids=pairs.source_ids[places])
