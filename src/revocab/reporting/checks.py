"""The monitoring checklist: what a healthy adaptation looks like, as findings with a value and a limit.

A check that fails is shown, it never fails a job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from revocab.reporting.jobs import mapping, number
from revocab.runtime.spikes import spikes


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where a check passes."""

    spikes: int = 0  # steps of a curve that may stand out of its running median
    stage2_start: float = 1.1  # first loss of stage 2 at most this many times the last of stage 1
    gradient_norm: float = 1.0  # norm before clipping that counts as calm
    gradient_norm_share: float = 0.95  # share of the steps after warm-up that must be calm
    coverage: float = 0.95  # share of target tokens that are exact or aligned must be above
    zero_initialised: float = 0.05  # share of target tokens that start at zero must be below
    skipped_steps: int = 0  # steps of both stages that may be left out because they were not finite
    warmup_share: float = 0.03  # share of a stage's steps whose gradient norms do not count


Check = dict[str, Any]  # name, value (None: nothing finite to judge by), limit, passed


def checklist(
    *,
    stage1: Mapping[str, Any] | None,
    stage2: Mapping[str, Any] | None,
    metrics: Sequence[Mapping[str, Any]],
    alignment: Mapping[str, Any],
    limits: Limits | None = None,
) -> list[Check]:
    """Judge one job.

    Args:
        stage1, stage2: records of the stages in the terms of summary.json; None or empty where a stage did not run,
            then its checks are left out.
        metrics: records of metrics.jsonl, {stage, step, loss, grad_norm before clipping, ...}.
        alignment: the counts of alignment_report.json.

    Returns:
        One {name, value, limit, passed} per check. A value that is missing or not finite does not pass.
    """
    limits = limits or Limits()
    stage1, stage2 = mapping(stage1), mapping(stage2)
    checks = []
    if stage1:
        checks += _stage1_checks(stage1, limits)
    if stage1 and stage2:
        checks += _stage2_checks(stage1, stage2, limits)
    if stage1 or stage2:
        checks += [*_gradient_checks(metrics, limits), _skipped_check(stage1, stage2, limits)]
    return checks + _alignment_checks(alignment, limits)


def _stage1_checks(stage1: Mapping[str, Any], limits: Limits) -> list[Check]:
    fall = _ratio(stage1.get("loss_last"), stage1.get("loss_first"))
    count = number(stage1.get("spikes"))
    return [
        _check("stage 1 loss, last / first", fall, 1.0, fall is not None and fall < 1.0),
        _check("stage 1 loss spikes", count, limits.spikes, count is not None and count <= limits.spikes),
    ]


def _stage2_checks(stage1: Mapping[str, Any], stage2: Mapping[str, Any], limits: Limits) -> list[Check]:
    start = _ratio(stage2.get("loss_first"), stage1.get("loss_last"))
    end = _ratio(stage2.get("loss_last"), stage1.get("loss_last"))
    limit = limits.stage2_start
    return [
        _check("stage 2 first loss / stage 1 last", start, limit, start is not None and start <= limit),
        _check("stage 2 last loss / stage 1 last", end, 1.0, end is not None and end < 1.0),
    ]


def _gradient_checks(metrics: Sequence[Mapping[str, Any]], limits: Limits) -> list[Check]:
    """Over both stages together; the probe is thrown away and does not count."""
    curves = [_norms_after_warmup(metrics, stage, limits.warmup_share) for stage in ("stage1", "stage2")]
    norms = [norm for curve in curves for norm in curve]
    share = sum(norm is not None and norm < limits.gradient_norm for norm in norms) / len(norms) if norms else None
    count = sum(len(spikes(curve)) for curve in curves) if norms else None
    least = limits.gradient_norm_share
    return [
        _check(
            f"gradient norms below {limits.gradient_norm:g}, share", share, least, share is not None and share >= least
        ),
        _check("gradient norm spikes", count, limits.spikes, count is not None and count <= limits.spikes),
    ]


def _skipped_check(stage1: Mapping[str, Any], stage2: Mapping[str, Any], limits: Limits) -> Check:
    count = sum(number(stage.get("skipped_steps")) or 0 for stage in (stage1, stage2))
    return _check("steps skipped, not finite", count, limits.skipped_steps, count <= limits.skipped_steps)


def _norms_after_warmup(metrics: Sequence[Mapping[str, Any]], stage: str, warmup_share: float) -> list[float | None]:
    records = [record for record in metrics if record.get("stage") == stage and "grad_norm" in record]
    steps = max((record.get("step") or 0 for record in records), default=0)
    return [number(record["grad_norm"]) for record in records if (record.get("step") or 0) > warmup_share * steps]


def _alignment_checks(alignment: Mapping[str, Any], limits: Limits) -> list[Check]:
    coverage = number(alignment.get("coverage"))
    zero = _ratio(alignment.get("zero_initialised"), alignment.get("target_tokens"))
    return [
        _check("alignment coverage", coverage, limits.coverage, coverage is not None and coverage > limits.coverage),
        _check(
            "zero-initialised tokens, share",
            zero,
            limits.zero_initialised,
            zero is not None and zero < limits.zero_initialised,
        ),
    ]


def _ratio(above: Any, below: Any) -> float | None:
    above, below = number(above), number(below)
    return None if above is None or not below else above / below


def _check(name: str, value: float | None, limit: float, passed: bool) -> Check:
    return {"name": name, "value": value, "limit": limit, "passed": passed}
