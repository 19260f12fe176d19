"""Curves of a job, thinned for drawing without losing their peaks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from revocab.reporting.jobs import number

CURVES = ("loss", "grad_norm", "lr")
POINTS = 400  # more than a screen shows of one stage


def curves_of(metrics: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float | None]]]:
    """{stage: {step, loss, grad_norm, lr}} of equal length; a value that is missing or not finite is None."""
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for record in metrics:
        stages.setdefault(str(record["stage"]), []).append(record)
    return {stage: _columns(records) for stage, records in stages.items() if stage != "probe"}


def _columns(records: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    loss = np.array([np.nan if (x := number(record.get("loss"))) is None else x for record in records])
    kept = [records[index] for index in thinned(loss, POINTS)]
    columns = {"step": [number(record.get("step")) for record in kept]}
    return columns | {name: [_short(number(record.get(name))) for record in kept] for name in CURVES}


def thinned(values: np.ndarray, points: int) -> list[int]:
    """Indices of about `points` values: of each stretch the lowest and the highest, and both ends of the curve."""
    if len(values) <= points:
        return list(range(len(values)))
    kept = {0, len(values) - 1}
    for stretch in np.array_split(np.arange(len(values)), points // 2):
        part = values[stretch]
        if np.isfinite(part).any():
            kept |= {int(stretch[np.nanargmin(part)]), int(stretch[np.nanargmax(part)])}
        else:
            kept.add(int(stretch[0]))  # a gap stays a gap
    return sorted(kept)


def _short(value: float | None) -> float | None:
    """Five digits draw the same line in half the bytes."""
    return None if value is None else float(f"{value:.5g}")
