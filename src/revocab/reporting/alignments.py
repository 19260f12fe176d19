"""The alignment panel of the page: what alignment_report.json holds, sorted into counts, charts and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from revocab.reporting.jobs import mapping, number

ROWS_SHOWN = 30
COUNTS = (
    "target_tokens",
    "exact",
    "aligned",
    "fallback",
    "zero_initialised",
    "coverage",
    "coverage_seen",
    "hub_share_top100",
    "heldout_top1",
    "bleu1",
    "semantic_score",
)


def alignment_panel(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """{counts, details, origins, histogram, tables}; None where there is no report.

    Numbers other than COUNTS, also inside mappings, are details; `origins` maps an origin to its number of tokens; a
    mapping with `edges` and one fewer `counts` is the histogram of similarities; every list of records becomes a table
    under its own name.
    """
    if not report:
        return None
    return {
        "counts": {key: value for key in COUNTS if (value := number(report.get(key))) is not None},
        "details": _numbers({key: value for key, value in report.items() if key not in (*COUNTS, "origins")}),
        "origins": {key: value for key, value in mapping(report.get("origins")).items() if number(value)},
        "histogram": next((found for value in report.values() if (found := _histogram(value))), None),
        "tables": [
            {"title": key.replace("_", " ").capitalize(), "rows": value[:ROWS_SHOWN]}
            for key, value in report.items()
            if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value)
        ],
    }


def _numbers(node: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{prefix}{key} ")
        elif number(value) is not None:
            found[f"{prefix}{key}"] = value
    return found


def _histogram(value: Any) -> dict[str, Any] | None:
    edges, counts = mapping(value).get("edges"), mapping(value).get("counts")
    if not isinstance(edges, list) or not isinstance(counts, list) or len(edges) != len(counts) + 1 or not counts:
        return None
    if not all(number(item) is not None for item in edges + counts):
        return None
    return {"edges": edges, "counts": counts}
