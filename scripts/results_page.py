"""The tables of docs/results.md, made from small files that hold what the jobs of a sweep measured.

    python scripts/results_page.py collect multirun/lr_sweep docs/results/lr_sweep.json
    python scripts/results_page.py render docs/results.md

`collect` keeps of each finished job what a table needs, with the commit, device and date. `render` rewrites what
stands between two markers of the page:

    <!-- table docs/results/lr_sweep.json: vocab.lr_stage1 | init stage1 final | sweep=lr_sweep -->
    <!-- end -->

first the file, then the settings that name a row, the columns (COLUMNS below), and which jobs (all where nothing
stands there): fields that must have these values. A setting with a value behind it, such as `alignment.top_k=10`, is a
part of a row's name only where the job has another one. `order=final` ranks the jobs by this score, the best first.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from revocab.reporting.jobs import Job, collect
from revocab.runtime.files import write_json, write_text
from revocab.runtime.hardware import git_commit

TABLE = re.compile(r"(<!-- table ([^:\n]+): ([^|\n]*)\|([^|\n]*)(?:\|([^|\n]*))?-->\n).*?(<!-- end -->)", re.DOTALL)
SUMMARY_KEYS = ("run_id", "labels", "scale", "seed", "bpb", "bytes_per_token", "alignment", "terms", "stage1", "stage2")
SUMMARY_KEYS += ("baseline", "qa", "checks", "device", "versions")
Record = dict[str, Any]


# --- collect


def record(job: Job, commit: str | None) -> Record:
    """What of one job goes into the repository."""
    status = json.loads((job.folder / "status.json").read_text())
    kept = {key: job.summary[key] for key in SUMMARY_KEYS if job.summary.get(key)}
    return {"sweep": job.folder.parent.name, "commit": commit, "date": status["started"][:10], **kept}


def collect_sweep(sweep: Path, into: Path, commit: str | None) -> None:
    """Add the finished jobs of a sweep to a file; jobs of the same run id are replaced."""
    records = {row["run_id"]: row for row in json.loads(into.read_text())} if into.is_file() else {}
    finished = [job for job in collect(sweep) if job.state == "completed" and job.summary]
    records.update({job.summary["run_id"]: record(job, commit) for job in finished})
    write_json(into, list(records.values()))
    print(f"{into}: {len(finished)} jobs of {sweep.name} added, {len(records)} in all")


# --- render


def number(value: Any, form: str = "{}") -> str:
    return "–" if value is None else form.format(value)


def bpb(stage: str) -> Callable[[Record], str]:
    """BPB on every data set, in brackets the ratio to the untouched source model."""

    def cell(row: Record) -> str:
        shown = []
        for scores in row["bpb"].values():
            value = scores.get(stage)
            shown.append("–" if value is None else f"{value:.4f} ({value / scores['source']:.3f})")
        return " / ".join(shown)

    return cell


def per_stage(key: str, form: str, unit: float = 1) -> Callable[[Record], str]:
    def cell(row: Record) -> str:
        values = [row.get(stage, {}).get(key) for stage in ("stage1", "stage2")]
        return " / ".join(number(None if value is None else value / unit, form) for value in values)

    return cell


COLUMNS: dict[str, tuple[str, Callable[[Record], str]]] = {
    "source": ("source model", bpb("source")),
    "source_cpt": ("source model, trained as long", bpb("source_cpt")),
    "init": ("init", bpb("init")),
    "probe": ("probe", bpb("probe")),
    "stage1": ("after stage 1", bpb("stage1")),
    "final": ("after stage 2", bpb("final")),
    "coverage": ("coverage of all tokens", lambda row: number(row["alignment"].get("coverage"), "{:.1%}")),
    "coverage_seen": ("of seen tokens", lambda row: number(row["alignment"].get("coverage_seen"), "{:.1%}")),
    "norms": ("largest gradient norm, stage 1 / 2", per_stage("grad_norm_max", "{:.2f}")),
    "spikes": ("spikes, stage 1 / 2", per_stage("spikes", "{:.0f}")),
    "speed": ("tokens/s, stage 1 / 2", per_stage("tokens_per_second", "{:,.0f}")),
    "memory": ("peak GB, stage 1 / 2", per_stage("peak_memory_bytes", "{:.1f}", 1e9)),
    "seconds": ("seconds", per_stage("seconds", "{:.0f}")),
}
RANKED = ("init", "probe", "stage1", "final")  # columns whose lowest value on the first data set is in bold


def setting(row: Record, key: str) -> str:
    value = row["labels"].get(key)
    return f"{value:g}" if isinstance(value, float) else str(value)


def row_name(row: Record, keys: list[str]) -> str:
    """Values of the settings; of one with a usual value behind it, name and value where it is another."""
    words = []
    for key, _, usual in (key.partition("=") for key in keys):
        if not usual:
            words.append(setting(row, key))
        elif key in row["labels"] and setting(row, key) != usual:
            words.append(f"{key.split('.')[-1].replace('_', ' ')} {setting(row, key)}")
    return ", ".join(words)


def choose(records: list[Record], conditions: str) -> list[Record]:
    """The jobs that meet the conditions, in the order that they ask for."""
    wanted = dict(word.split("=", 1) for word in conditions.split())
    order = wanted.pop("order", None)
    rows = [
        row
        for row in records
        if all(str(row.get(key, row["labels"].get(key))) == value for key, value in wanted.items())
    ]
    return sorted(rows, key=lambda row: first_score(row, order)) if order else rows


def table(records: list[Record], keys: list[str], columns: list[str]) -> str:
    """A table in Markdown: one row per job."""
    named = " ".join(key.split(".")[-1] for key in keys if "=" not in key)
    lines = [[named, *(COLUMNS[column][0] for column in columns)]]
    lines.append(["---"] * len(lines[0]))
    best = {column: min(records, key=lambda row: first_score(row, column)) for column in columns if column in RANKED}
    for row in records:
        cells = [COLUMNS[column][1](row) for column in columns]
        bold = [best.get(column) is row and len(records) > 1 for column in columns]
        cells = [f"**{cell}**" if strong else cell for cell, strong in zip(cells, bold, strict=True)]
        lines.append([row_name(row, keys), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def first_score(row: Record, column: str) -> float:
    return next(iter(row["bpb"].values())).get(column, float("inf"))


def origin(records: list[Record]) -> str:
    """Where the figures of a table come from, in one line."""
    facts = {
        "commit": sorted({str(row["commit"]) for row in records}),
        "device": sorted({row["device"] for row in records}),
        "date": sorted({row["date"] for row in records}),
    }
    sets = " / ".join(records[0]["bpb"])
    return f"{sets}; " + "; ".join(f"{name} {', '.join(values)}" for name, values in facts.items()) + "."


def render(page: str, root: Path) -> str:
    """The page with every table made anew."""

    def remake(match: re.Match[str]) -> str:
        opening, name, keys, columns, conditions, closing = match.groups()
        rows = choose(json.loads((root / name).read_text()), conditions or "")
        if not rows:
            sys.exit(f"{name}: no job has {conditions}")
        return f"{opening}{table(rows, keys.split(), columns.split())}\n\n{origin(rows)}\n{closing}"

    return TABLE.sub(remake, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="what")
    collecting = commands.add_parser("collect", help="keep what the jobs of a sweep measured")
    collecting.add_argument("sweep", type=Path)
    collecting.add_argument("into", type=Path)
    collecting.add_argument("--commit", default=git_commit(), help="that the jobs ran with; default: this checkout's")
    rendering = commands.add_parser("render", help="remake the tables of a page")
    rendering.add_argument("page", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "collect":
        collect_sweep(arguments.sweep, arguments.into, arguments.commit)
    else:
        write_text(arguments.page, render(arguments.page.read_text(), Path(__file__).parents[1]))


if __name__ == "__main__":
    main()
