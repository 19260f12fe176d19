"""The tables of docs/results.md, made from small files that hold what the jobs of a sweep measured.

    python scripts/results_page.py collect multirun/lr_sweep docs/results/lr_sweep.json
    python scripts/results_page.py render docs/results.md

`collect` keeps of each finished job what a table needs, with the commit, device and date. `render` rewrites what
stands between two markers of the page:

    <!-- table docs/results/lr_sweep.json: vocab.lr_stage1 | init stage1 final | sweep=lr_sweep -->
    <!-- end -->

first the file, then the settings that name a row, the columns (COLUMNS below), and which jobs (all where nothing
stands there): fields that must have these values. A setting with a value behind it, such as `alignment.top_k=10`, is a
part of a row's name only where the job has another one. `order=final` ranks the jobs by this score, the best first;
`by=vocab.lr_stage1` sorts them by a setting. A column `stage1@500` is the score on the way, at this step of the stage.
Jobs that differ in their seed alone share a row: the mean, and behind ± the standard deviation of the sample.

    <!-- questions docs/results/questions.json | sweep=questions -->

has a row per set of questions, and means over the jobs.

    <!-- ranks docs/results/alignments.json: alignment | init probe final -->

tells how well each column ranks the rows as the last column does.
"""

import argparse
import json
import re
import shlex
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from revocab.reporting.jobs import Job, collect
from revocab.runtime.files import write_json, write_text
from revocab.runtime.hardware import git_commit

TABLE = re.compile(r"(<!-- table ([^:\n]+): ([^|\n]*)\|([^|\n]*)(?:\|([^|\n]*))?-->\n).*?(<!-- end -->)", re.DOTALL)
QUESTIONS = re.compile(r"(<!-- questions ([^|\n]+?) *(?:\|([^|\n]*))?-->\n).*?(<!-- end -->)", re.DOTALL)
RANKS = re.compile(r"(<!-- ranks ([^:\n]+): ([^|\n]*)\|([^|\n]*)-->\n).*?(<!-- end -->)", re.DOTALL)
NEAR = 1.1  # times the best score: rows that are told apart among themselves too
SUMMARY_KEYS = ("run_id", "labels", "scale", "seed", "bpb", "bytes_per_token", "alignment", "terms", "stage1", "stage2")
SUMMARY_KEYS += ("baseline", "qa", "checks", "device", "versions", "learning_curves")
CONF = Path(__file__).parents[1] / "conf"
UNTOLD = ("", "experiment", "logger", "launcher", "trainer", "corpus", "scale")  # groups that name no row
Record = dict[str, Any]
Row = list[Record]  # jobs that differ in their seed alone


# --- collect


def record(job: Job, commit: str | None, *, alone: bool) -> Record:
    """What of one job goes into the repository."""
    status = json.loads((job.folder / "status.json").read_text())
    kept = {key: job.summary[key] for key in SUMMARY_KEYS if job.summary.get(key)}
    kept["labels"] = {key: without_place(value) for key, value in kept.get("labels", {}).items()}
    facts = {"sweep": job.folder.parent.name, "commit": commit, "date": status["started"][:10], "chosen": chosen(job)}
    return facts | ({"alone": True} if alone else {}) | kept


def without_place(value: Any) -> Any:
    """A folder by its name: where it was on a machine tells nobody else anything."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def chosen(job: Job) -> dict[str, str]:
    """The options of groups that the job's command names, such as {"change": "lora"}."""
    words = (word.partition("=") for word in shlex.split(job.command or ""))
    return {group: option for group, _, option in words if (CONF / group).is_dir() and group not in UNTOLD}


def collect_sweep(sweep: Path, into: Path, commit: str | None, *, alone: bool = False) -> None:
    """Add the finished jobs of a sweep to a file; jobs of the same run id are replaced."""
    records = {row["run_id"]: row for row in json.loads(into.read_text())} if into.is_file() else {}
    finished = [job for job in collect(sweep) if job.state == "completed" and job.summary]
    records.update({job.summary["run_id"]: record(job, commit, alone=alone) for job in finished})
    write_json(into, list(records.values()))
    print(f"{into}: {len(finished)} jobs of {sweep.name} added, {len(records)} in all")


# --- render


def number(values: Iterable[float | None], form: str = "{}") -> str:
    """Mean, and of several the spread; a dash where a job has none."""
    found = list(values)
    if any(value is None for value in found):
        return "–"
    mean = form.format(statistics.fmean(found))
    return mean if len(found) == 1 else f"{mean} ± {form.replace('+', '').format(statistics.stdev(found))}"


def bpb(stage: str) -> Callable[[Row], str]:
    """BPB on every data set, in brackets the ratio to the untouched source model."""

    def cell(row: Row) -> str:
        shown = []
        for name in row[0]["bpb"]:
            scores = [job["bpb"][name] for job in row]
            if any(each.get(stage) is None for each in scores):
                shown.append("–")
                continue
            ratio = statistics.fmean(each[stage] / each["source"] for each in scores)
            shown.append(f"{number((each[stage] for each in scores), '{:.4f}')} ({ratio:.3f})")
        return " / ".join(shown)

    return cell


def per_stage(key: str, form: str, unit: float = 1) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        found = [[job.get(stage, {}).get(key) for job in row] for stage in ("stage1", "stage2")]
        return " / ".join(number((None if value is None else value / unit for value in each), form) for each in found)

    return cell


def of_alignment(key: str) -> Callable[[Row], str]:
    return lambda row: number((job["alignment"].get(key) for job in row), "{:.1%}")


def gap(row: Row) -> str:
    """How much worse than the source model trained on as much text, on every data set."""
    scores = [[job["bpb"][name] for job in row] for name in row[0]["bpb"]]
    return " / ".join(number((each["final"] / each["source_cpt"] - 1 for each in jobs), "{:+.1%}") for jobs in scores)


def met(key: str, form: str, unit: float = 1) -> Callable[[Row], str]:
    """What it took until the model was as good as the untouched source model."""

    def cell(row: Row) -> str:
        shown = []
        for name in row[0]["bpb"]:
            found = [job.get("learning_curves", {}).get(name, {}).get(f"{key}_to_source") for job in row]
            shown.append(number((None if value is None else value / unit for value in found), form))
        return " / ".join(shown)

    return cell


def on_the_way(stage: str, step: int) -> Callable[[Row], str]:
    """BPB at one step of a stage, on the few documents that are scored on the way, of every data set."""

    def cell(row: Row) -> str:
        shown = []
        for name in row[0]["learning_curves"]:
            points = [job["learning_curves"][name]["adapted"] for job in row]
            found = [[p["bpb"] for p in each if (p["stage"], p["step"]) == (stage, step)] for each in points]
            shown.append(number((values[0] if values else None for values in found), "{:.4f}"))
        return " / ".join(shown)

    return cell


def column(name: str) -> tuple[str, Callable[[Row], str]]:
    """Title and cell of a column by its name."""
    stage, _, step = name.partition("@")
    return (f"{stage.replace('stage', 'stage ')}, step {step}", on_the_way(stage, int(step))) if step else COLUMNS[name]


COLUMNS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "source": ("source model", bpb("source")),
    "source_cpt": ("source model, trained as long", bpb("source_cpt")),
    "init": ("init", bpb("init")),
    "probe": ("probe", bpb("probe")),
    "stage1": ("after stage 1", bpb("stage1")),
    "final": ("after stage 2", bpb("final")),
    "gap": ("against the source model trained as long", gap),
    "steps_to_source": ("steps until as good as the source model", met("steps", "{:.0f}")),
    "bytes_to_source": ("MB of text until then", met("bytes", "{:.1f}", 1e6)),
    "seconds_to_source": ("seconds of training until then", met("seconds", "{:.0f}")),
    "coverage": ("coverage of all tokens", of_alignment("coverage")),
    "coverage_seen": ("of seen tokens", of_alignment("coverage_seen")),
    "norms": ("largest gradient norm, stage 1 / 2", per_stage("grad_norm_max", "{:.2f}")),
    "spikes": ("spikes, stage 1 / 2", per_stage("spikes", "{:.0f}")),
    "speed": ("tokens/s, stage 1 / 2", per_stage("tokens_per_second", "{:,.0f}")),
    "memory": ("peak GB, stage 1 / 2", per_stage("peak_memory_bytes", "{:.1f}", 1e9)),
    "seconds": ("seconds", per_stage("seconds", "{:.0f}")),
}
RANKED = ("init", "probe", "stage1", "final")  # columns whose lowest value on the first data set is in bold


def setting(row: Record, key: str) -> str:
    """A setting of the job, or the option of a group that its command named."""
    value = row["labels"].get(key, row.get("chosen", {}).get(key))
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


def choose(records: list[Record], wanted: dict[str, str], *, by: str | None = None) -> list[Record]:
    """The jobs whose fields or settings are as wanted, sorted by a setting if there is one to sort by."""
    rows = [
        row
        for row in records
        if all(str(row.get(key, row["labels"].get(key))) == value for key, value in wanted.items())
    ]
    return sorted(rows, key=lambda row: row["labels"][by]) if by else rows


def table(records: list[Record], keys: list[str], columns: list[str], order: str | None = None) -> str:
    """A table in Markdown: one row per name, of jobs that differ in their seed, ranked by a column if one is named."""
    named = " ".join(key.split(".")[-1] for key in keys if "=" not in key)
    lines = [[named, *(column(each)[0] for each in columns)]]
    lines.append(["---"] * len(lines[0]))
    rows = by_name(records, keys)
    if order:
        rows = dict(sorted(rows.items(), key=lambda item: score(item[1], order)))
    best = {each: min(rows.values(), key=lambda row: score(row, each)) for each in columns if each in RANKED}
    for name, row in rows.items():
        if len({job["labels"].get("seed") for job in row}) < len(row):
            sys.exit(f"{name}: the jobs {', '.join(job['run_id'] for job in row)} differ in more than their seed")
        cells = [column(each)[1](row) for each in columns]
        bold = [best.get(each) is row and len(rows) > 1 for each in columns]
        cells = [f"**{cell}**" if strong else cell for cell, strong in zip(cells, bold, strict=True)]
        lines.append([name, *cells])
    return as_markdown(lines)


def by_name(records: list[Record], keys: list[str]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for record in records:
        rows.setdefault(row_name(record, keys), []).append(record)
    return rows


def as_markdown(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def score(row: Row, column: str) -> float:
    """Mean BPB on the first data set."""
    return statistics.fmean(next(iter(job["bpb"].values())).get(column, float("inf")) for job in row)


def ranks(records: list[Record], keys: list[str], columns: list[str]) -> str:
    """Spearman's rank correlation of each column with the last, of all rows and of those near the best."""
    *first, last = columns
    rows = list(by_name(records, keys).values())
    best = min(score(row, last) for row in rows)
    near = [row for row in rows if score(row, last) <= NEAR * best]
    lines = [[f"rank correlation with {column(last)[0]}", *(column(each)[0] for each in first)]]
    lines.append(["---"] * len(columns))
    for name, chosen in ((f"all {len(rows)}", rows), (f"the {len(near)} within {NEAR - 1:.0%} of the best", near)):
        ends = [score(row, last) for row in chosen]
        found = [spearmanr([score(row, each) for row in chosen], ends).statistic for each in first]
        lines.append([name, *(f"{value:.2f}" for value in found)])
    return as_markdown(lines)


def questions(records: list[Record]) -> str:
    """A row per set of questions: accuracy of the source model, of the adapted ones, and what guessing gives."""
    lines = [
        [
            "questions",
            "n",
            "guessing",
            "source model (95 %)",
            "adapted",
            "difference (95 % of one job)",
            "per byte of the answer",
        ],
        ["---"] * 7,
    ]
    for task in records[0]["qa"]:
        found = [job["qa"][task] for job in records]
        first, change = found[0], found[0]["difference"]
        source = f"{first['source_accuracy']:.1%} ({first['source_low']:.1%} to {first['source_high']:.1%})"
        difference = number((each["difference"]["value"] for each in found), "{:+.1%}")
        adapted = number((each["accuracy"] for each in found), "{:.1%}")
        interval = f"({change['low']:+.1%} to {change['high']:+.1%})"
        per_byte = f"{first['source_accuracy_per_byte']:.1%} → "
        per_byte += number((each["accuracy_per_byte"] for each in found), "{:.1%}")
        of_task = [task, str(first["n"]), f"{first['chance']:.0%}"]
        lines.append([*of_task, source, adapted, f"{difference} {interval}", per_byte])
    return as_markdown(lines)


def origin(records: list[Record]) -> str:
    """Where the figures of a table come from, in one line."""
    facts = {
        "commit": sorted({str(row["commit"]) for row in records}),
        "device": sorted({row["device"] for row in records}),
        "date": sorted({row["date"] for row in records}),
    }
    sets = " / ".join(records[0]["bpb"])
    return f"{sets}; " + "; ".join(f"{name} {', '.join(values)}" for name, values in facts.items()) + "."


def as_words(conditions: str | None) -> dict[str, str]:
    """What stands behind the last bar of a marker, by name."""
    return dict(word.split("=", 1) for word in (conditions or "").split())


def render(page: str, root: Path) -> str:
    """The page with every table made anew."""

    def jobs_of(name: str, wanted: dict[str, str], by: str | None = None) -> list[Record]:
        rows = choose(json.loads((root / name).read_text()), wanted, by=by)
        return rows or sys.exit(f"{name}: no job has {' '.join(f'{key}={value}' for key, value in wanted.items())}")

    def scores(match: re.Match[str]) -> str:
        opening, name, keys, columns, conditions, closing = match.groups()
        wanted = as_words(conditions)
        order, by = wanted.pop("order", None), wanted.pop("by", None)
        rows = jobs_of(name, wanted, by)
        return f"{opening}{table(rows, keys.split(), columns.split(), order)}\n\n{origin(rows)}\n{closing}"

    def answers(match: re.Match[str]) -> str:
        opening, name, conditions, closing = match.groups()
        rows = jobs_of(name, as_words(conditions))
        return f"{opening}{questions(rows)}\n\n{len(rows)} jobs; {origin(rows)}\n{closing}"

    def correlations(match: re.Match[str]) -> str:
        opening, name, keys, columns, closing = match.groups()
        return f"{opening}{ranks(jobs_of(name, {}), keys.split(), columns.split())}\n{closing}"

    return RANKS.sub(correlations, QUESTIONS.sub(answers, TABLE.sub(scores, page)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="what")
    collecting = commands.add_parser("collect", help="keep what the jobs of a sweep measured")
    collecting.add_argument("sweep", type=Path)
    collecting.add_argument("into", type=Path)
    collecting.add_argument("--commit", default=git_commit(), help="that the jobs ran with; default: this checkout's")
    collecting.add_argument("--alone", action="store_true", help="they had the GPU for themselves: their seconds count")
    rendering = commands.add_parser("render", help="remake the tables of a page")
    rendering.add_argument("page", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "collect":
        collect_sweep(arguments.sweep, arguments.into, arguments.commit, alone=arguments.alone)
    else:
        write_text(arguments.page, render(arguments.page.read_text(), Path(__file__).parents[1]))


if __name__ == "__main__":
    main()
