"""What an alignment did, in numbers and in examples: the content of `alignment_report.json`.

T target tokens, S source tokens, E target tokens that do not stand for themselves.
"""

from typing import Any

import numpy as np

from revocab.alignment.problem import Problem
from revocab.artifacts import ALIGNED_ORIGINS, EXACT_ORIGINS, FALLBACK_ORIGINS, Alignment, Origin, Vocabulary

HUBS_IN_SHARE = 100  # source tokens whose share of the weight is `hub_share_top100`
EXAMPLES = 20  # hubs, weak matches and tokens without evidence that are listed
NEAREST_SHOWN = 3  # source tokens shown for an example
FREQUENT = 2000  # most frequent target tokens, among which the worst are listed


def report(alignment: Alignment, problem: Problem) -> dict[str, Any]:
    """Return the counts of every branch, then the details, in values that JSON knows.

    Top level: target_tokens, exact (twins and roles), aligned, fallback, zero_initialised, which add up; coverage =
    (exact + aligned) / target_tokens; coverage_seen, the same over tokens that occur in the corpus (null where nobody
    counted); hub_share_top100, the share of all weight of tokens without a twin that goes to the 100 most used source
    tokens; pivots (null where the method has none); heldout_top1 and heldout_top5, the shares of exact pairs left out
    of a fit that it found again (null where the method fits nothing). Then what the method counted, and lists of
    examples.
    """
    mass_S = _mass_without_twins(alignment)
    counts = _counts(alignment)
    covered_T = np.isin(alignment.origin, EXACT_ORIGINS + ALIGNED_ORIGINS)
    return {
        **counts,
        "coverage": (counts["exact"] + counts["aligned"]) / max(counts["target_tokens"], 1),
        "coverage_seen": _coverage_seen(covered_T, problem.seen),
        "hub_share_top100": _share_of_largest(mass_S, HUBS_IN_SHARE),
        "pivots": None,
        "heldout": None,
        **alignment.report,
        "heldout_top1": (alignment.report.get("heldout") or {}).get("top1"),
        "heldout_top5": (alignment.report.get("heldout") or {}).get("top5"),
        "origins": {origin.name.lower(): int((alignment.origin == origin).sum()) for origin in Origin},
        "source_tokens": problem.shape[1],
        "source_tokens_used": int((mass_S > 0).sum()),
        "largest_row": int(np.diff(alignment.weights.indptr).max(initial=0)),
        "hubs": _hubs(alignment, problem.source, mass_S),
        "weakest_frequent": _weakest_frequent(alignment, problem),
        "frequent_without_evidence": _frequent_without_evidence(alignment, problem),
        "similarity_histogram": _histogram(alignment.similarity),
    }


def _counts(alignment: Alignment) -> dict[str, int]:
    without_T = np.isin(alignment.origin, FALLBACK_ORIGINS)
    zero_T = without_T & (alignment.row_sums() == 0)
    return {
        "target_tokens": len(alignment.origin),
        "exact": int(np.isin(alignment.origin, EXACT_ORIGINS).sum()),
        "aligned": int(np.isin(alignment.origin, ALIGNED_ORIGINS).sum()),
        "fallback": int((without_T & ~zero_T).sum()),
        "zero_initialised": int(zero_T.sum()),
    }


def _coverage_seen(covered_T: np.ndarray, seen_T: np.ndarray | None) -> float | None:
    if seen_T is None or not (seen_T > 0).any():
        return None
    return float(covered_T[seen_T > 0].mean())


def _mass_without_twins(alignment: Alignment) -> np.ndarray:
    """(S,) float64: how much of the weight of tokens without a twin goes to each source token."""
    rows = np.flatnonzero(~np.isin(alignment.origin, EXACT_ORIGINS))
    own_S = np.asarray(alignment.weights[rows].sum(axis=0, dtype=np.float64)).ravel()
    return own_S + alignment.background_share[rows].sum(dtype=np.float64) * alignment.background


def _share_of_largest(mass_S: np.ndarray, count: int) -> float:
    total = mass_S.sum()
    return float(np.sort(mass_S)[::-1][:count].sum() / total) if total > 0 else 0.0


def _hubs(alignment: Alignment, source: Vocabulary, mass_S: np.ndarray) -> list[dict[str, Any]]:
    rows = np.flatnonzero(~np.isin(alignment.origin, EXACT_ORIGINS))
    users_S = np.bincount(alignment.weights[rows].indices, minlength=len(source))
    top = [i for i in np.argsort(-mass_S, kind="stable")[:EXAMPLES] if users_S[i]]
    return [
        {"id": int(i), "token": readable(source, i), "weight": float(mass_S[i]), "rows": int(users_S[i])} for i in top
    ]


def _weakest_frequent(alignment: Alignment, problem: Problem) -> list[dict[str, Any]]:
    """Of the most frequent matched tokens, those with the lowest similarity and what they were matched to."""
    if problem.seen is None:
        return []
    matched = np.flatnonzero(np.isfinite(alignment.similarity) & np.isin(alignment.origin, ALIGNED_ORIGINS))
    frequent = matched[np.argsort(-problem.seen[matched], kind="stable")[:FREQUENT]]
    weakest = frequent[np.argsort(alignment.similarity[frequent], kind="stable")[:EXAMPLES]]
    return [_example(alignment, problem, i) | {"similarity": float(alignment.similarity[i])} for i in weakest]


def _frequent_without_evidence(alignment: Alignment, problem: Problem) -> list[dict[str, Any]]:
    if problem.seen is None:
        return []
    left = np.flatnonzero(np.isin(alignment.origin, FALLBACK_ORIGINS) & (problem.seen > 0))
    return [_example(alignment, problem, i) for i in left[np.argsort(-problem.seen[left], kind="stable")[:EXAMPLES]]]


def _example(alignment: Alignment, problem: Problem, target_id: int) -> dict[str, Any]:
    row = alignment.weights[[target_id]]
    order = np.argsort(-row.data, kind="stable")[:NEAREST_SHOWN]
    assert problem.seen is not None
    return {
        "id": int(target_id),
        "token": readable(problem.target, target_id),
        "count": int(problem.seen[target_id]),
        "origin": Origin(int(alignment.origin[target_id])).name.lower(),
        "nearest": [[readable(problem.source, row.indices[i]), float(row.data[i])] for i in order],
    }


def _histogram(similarity_T: np.ndarray) -> dict[str, list[float]] | None:
    """Twenty bins over [-1, 1] for cosines, over the range of the values for dot products."""
    values = similarity_T[np.isfinite(similarity_T)]
    if not len(values):
        return None
    limits = (-1.0, 1.0) if np.abs(values).max() <= 1 else (float(values.min()), float(values.max()))
    counts, edges = np.histogram(values, bins=20, range=limits)
    return {"edges": [round(float(edge), 6) for edge in edges], "counts": [int(count) for count in counts]}


def readable(vocabulary: Vocabulary, token_id: int) -> str:
    """The text that a token stands for, or its raw string where it stands for none."""
    surface = vocabulary.surfaces[token_id]
    return surface.decode(errors="replace") if surface else vocabulary.tokens[token_id]
