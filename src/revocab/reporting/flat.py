"""Nested records of a job as a tracker shows them: one level, one value per key, the same keys in every job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Where a job runs and what it is called: they differ between all jobs and say nothing about their scores.
NOT_COMPARED = ("paths", "pipeline", "logger", "launcher", "command")


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved config without what no two jobs share; numbers stay numbers, no folder of this machine is left."""
    return {key: value for key, value in config.items() if key not in NOT_COMPARED}


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by slashes; checks become one true or false each, other lists are left out.

    Names with dots stay whole. None is left out: a tracker would take it for a string.
    """
    flat: dict[str, Any] = {}
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{path}/")
        elif key == "checks" and isinstance(value, Sequence):
            flat |= {f"{path}/{check['name'].replace('/', 'over')}": bool(check["passed"]) for check in value}
        elif isinstance(value, str | int | float | bool):
            flat[path] = value
    return flat


def failed_checks(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Items of the monitoring checklist that did not pass."""
    return [check for check in summary.get("checks", []) if not check["passed"]]


def explain(check: Mapping[str, Any]) -> str:
    """A check in one line: alignment coverage is 0.611, limit 0.95."""
    value = "nothing that could be measured" if check["value"] is None else f"{check['value']:.4g}"
    return f"{check['name']} is {value}, limit {check['limit']:g}"
