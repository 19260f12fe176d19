"""Scores of several models as a table to read, in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

ENDS = ("value", "low", "high")


def scores_table(scores: Mapping[str, Any]) -> str:
    """One table for each data set and task, those of the domain before the general ones, and one of the speed.

    Models are rows, in their order.

    Args:
        scores: the content of scores.json.
    """
    groups = scores["groups"]
    parts: list[str] = []
    for dataset, models in domain_first(scores["bpb"], groups):
        terms = scores["terms"].get(dataset, {})
        header = ["bits per byte", "difference", "perplexity", "bytes/token", "characters/token", "tokens/word"]
        header += ["terms in one token", "bytes/token with terms", "without"] if terms else []
        rows = {name: [*_text_cells(row), *_term_cells(terms.get(name))] for name, row in models.items()}
        parts.append(_table(_title(dataset, groups), header, rows))
    for task, models in domain_first(scores["qa"], groups):
        header = [
            "accuracy",
            "difference",
            "only here right / only there",
            "accuracy per byte",
            "difference",
            "questions",
        ]
        rows = {name: _answer_cells(row) for name, row in models.items()}
        parts.append(_table(_title(task, groups), header, rows))
    for task, models in domain_first(scores["harness"], groups):
        metrics = list(next(iter(models.values()))["metrics"])
        header = [cell for metric in metrics for cell in (metric, "difference")]
        rows = {name: [*_harness_cells(row, metrics), str(row["n"] or "")] for name, row in models.items()}
        parts.append(_table(f"lm-eval: {_title(task, groups)}", [*header, "questions"], rows))
    if scores["speed"]:
        rows = {
            name: [f"{row['bytes_per_second']:.0f}", f"{row['tokens_per_second']:.1f}", _where(row), row["dtype"]]
            for name, row in scores["speed"].items()
        }
        parts.append(_table("writing", ["bytes/s", "tokens/s", "device", "numbers"], rows))
    return "\n\n".join(parts)


def domain_first(rows: Mapping[str, Any], groups: Mapping[str, str]) -> list[tuple[str, Any]]:
    """(name, value) of each, general ones last, else in the order given."""
    return sorted(rows.items(), key=lambda pair: groups.get(pair[0]) == "general")


def _title(name: str, groups: Mapping[str, str]) -> str:
    return f"{name} (general)" if groups.get(name) == "general" else name


def _answer_cells(row: Mapping[str, Any]) -> list[str]:
    plain = f"{100 * row['accuracy']:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
    difference = row.get("difference")
    return [
        plain,
        points(difference),
        f"{difference['gained']} / {difference['lost']}" if difference else "",
        f"{100 * row['accuracy_per_byte']:.1f} %",
        points(difference and difference["per_byte"]),
        str(row["n"]),
    ]


def _harness_cells(row: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    """Value and difference of each metric, with their intervals, in the metric's own unit."""
    cells = []
    for metric in metrics:
        found = row["metrics"][metric]
        interval = "" if found["low"] is None else f" [{found['low']:.4f}, {found['high']:.4f}]"
        difference = found.get("difference")
        ends = [difference[end] for end in ENDS] if difference else []
        cells += [f"{found['value']:.4f}{interval}", "{:+.4f} [{:+.4f}, {:+.4f}]".format(*ends) if ends else ""]
    return cells


def points(difference: Mapping[str, Any] | None) -> str:
    """A difference of two shares in points of percent, with its interval; empty where there is none."""
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * difference[end] for end in ENDS)) if difference else ""


def _where(row: Mapping[str, Any]) -> str:
    threads = row["threads"]
    return row["device"] if threads is None else f"{row['device']}, {threads} thread{'s' * (threads > 1)}"


def _text_cells(row: Mapping[str, Any]) -> list[str]:
    difference = row.get("difference")
    return [
        f"{row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]",
        f"{difference['value']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]" if difference else "",
        f"{row['perplexity']:.2f} [{row['perplexity_low']:.2f}, {row['perplexity_high']:.2f}]",
        f"{row['bytes_per_token']:.3f}",
        f"{row['characters_per_token']:.3f}",
        f"{row['tokens_per_word']:.3f}",
    ]


def _term_cells(row: Mapping[str, Any] | None) -> list[str]:
    if row is None:
        return []
    coverage = "" if row["coverage"] is None else f"{100 * row['coverage']:.1f} % of {row['terms']}"
    rates = (row["bytes_per_token_with"], row["bytes_per_token_without"])
    return [coverage, *("" if rate is None else f"{rate:.3f}" for rate in rates)]


def _table(title: str, header: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    lines = [[title, *header], *([name, *cells] for name, cells in rows.items())]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    padded.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)
