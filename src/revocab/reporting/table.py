"""The comparison table: a row per job, as CSV in full precision, as Markdown, and as plain text for a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from revocab.reporting.jobs import ANSWERED, BPB_STAGES, Interval, Job
from revocab.reporting.seeds import SeedGroup, seed_groups
from revocab.reporting.settings import names_of, separating, show_setting, varying

TERMINAL_WIDTH = 120
STAGE_NAMES = {
    "source": "source",
    "source_cpt": "source CPT",
    "init": "init",
    "probe": "probe",
    "stage1": "stage 1",
    "final": "final",
}
OPTIONAL_STAGES = ("source_cpt", "probe")  # a table has them where a job does

Cells = list[list[str]]  # first row: heads
Mark = Callable[[str], str]  # how the best value is shown


def datasets_of(jobs: Sequence[Job]) -> list[str]:
    """Data sets that any job was scored on, general ones last, else in order of appearance."""
    return _general_last(jobs, (name for job in jobs for name in job.datasets))


def tasks_of(jobs: Sequence[Job]) -> list[str]:
    """Tasks that any job answered questions of, in the same order."""
    return _general_last(jobs, (name for job in jobs for name in job.tasks))


def is_general(jobs: Sequence[Job], name: str) -> bool:
    return any(job.is_general(name) for job in jobs)


def titled(jobs: Sequence[Job], name: str) -> str:
    return f"{name} (general)" if is_general(jobs, name) else name


def _general_last(jobs: Sequence[Job], names: Iterable[str]) -> list[str]:
    return sorted(dict.fromkeys(names), key=lambda name: is_general(jobs, name))


def answered_stages(jobs: Sequence[Job]) -> list[str]:
    """Stages that any job answered questions at."""
    return [
        stage for stage in ANSWERED if any(job.accuracy(task, stage) is not None for job in jobs for task in job.tasks)
    ]


def stages_of(jobs: Sequence[Job]) -> list[str]:
    """Stages that any job has a score of; without scores, all but the optional ones."""
    seen = {stage for job in jobs for name in job.datasets for stage in BPB_STAGES if job.bpb(name, stage) is not None}
    return [stage for stage in BPB_STAGES if stage in seen or (not seen and stage not in OPTIONAL_STAGES)]


def best_job(jobs: Sequence[Job], dataset: str) -> Job | None:
    """The job of the lowest final bits per byte."""
    scored = [(score, job) for job in jobs if (score := job.bpb(dataset, "final")) is not None]
    return min(scored, key=lambda pair: pair[0])[1] if scored else None


# --- CSV -------------------------------------------------------------------------------------------------------------


def to_csv(jobs: Sequence[Job]) -> str:
    """One header line, one line per job; numbers in full precision, empty where there is none."""
    rows = records(jobs)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def records(jobs: Sequence[Job], cell: Callable[[Job, str], Any] = show_setting) -> list[dict[str, Any]]:
    """A mapping per job, all with the same keys; `cell` says how a setting stands in it, scores are numbers or None."""
    stages = [stage for stage in BPB_STAGES if stage != "source_cpt" or stage in stages_of(jobs)]
    return [_record(job, _csv_settings(jobs), datasets_of(jobs), tasks_of(jobs), stages, cell) for job in jobs]


def _csv_settings(jobs: Sequence[Job]) -> list[str]:
    """What differs, and the preset in any case."""
    return list(dict.fromkeys(["preset", *varying(jobs)]))


def _record(
    job: Job,
    settings: Sequence[str],
    datasets: Sequence[str],
    tasks: Sequence[str],
    stages: Sequence[str],
    cell: Callable[[Job, str], Any],
) -> dict[str, Any]:
    record: dict[str, Any] = {"job": job.name, "run_id": job.summary.get("run_id")}
    record |= {key: cell(job, key) for key in settings}
    record |= {f"bpb.{name}.{stage}": job.bpb(name, stage) for name in datasets for stage in stages}
    record |= _csv_intervals(job, datasets, tasks)
    record |= {"coverage": job.coverage}
    record |= {
        f"bytes_per_token.{name}.{side}": job.bytes_per_token(name, side)
        for name in datasets
        for side in ("source", "target")
    }
    return record | {"seconds": job.seconds, "state": job.state, "error": job.error}


def _csv_intervals(job: Job, datasets: Sequence[str], tasks: Sequence[str]) -> dict[str, float | None]:
    """Differences to the source model and accuracies, each with the ends of its interval."""
    found = {f"bpb_difference.{name}": job.difference(name, "final") for name in datasets}
    for task in tasks:
        found[f"accuracy.{task}.source"] = job.accuracy(task, "source")
        found[f"accuracy.{task}.final"] = job.accuracy(task, "final")
        found[f"accuracy_difference.{task}"] = job.accuracy_difference(task, "final")
    return {
        f"{name}{suffix}": None if interval is None else interval[place]
        for name, interval in found.items()
        for place, suffix in enumerate(("", ".low", ".high"))
    }


# --- Markdown --------------------------------------------------------------------------------------------------------


def to_markdown(jobs: Sequence[Job]) -> str:
    """One table per data set, the best final score in bold, and per task; means over seeds; what went wrong."""
    settings = varying(jobs)
    legend = "Bits per byte (BPB) of held-out text: lower is better. Source: the model before adaptation."
    if "source_cpt" in stages_of(jobs):
        legend += " Source CPT: that model trained on as many bytes with its own tokenizer."
    if any(is_general(jobs, name) for name in [*datasets_of(jobs), *tasks_of(jobs)]):
        legend += " General sets and tasks come last: what is lost there was forgotten."
    parts = [legend]
    for dataset in datasets_of(jobs) or [""]:
        cells = _cells(jobs, settings, dataset, "**{}**".format, with_difference=True)
        parts += [f"## {titled(jobs, dataset) if dataset else 'Jobs'}", _markdown_grid(cells)]
    for task in tasks_of(jobs):
        parts += [f"## Right answers: {titled(jobs, task)}", _markdown_grid(_answer_cells(jobs, settings, task))]
    for dataset, cells in _seed_tables(jobs):
        parts += [f"## {dataset}: mean ± standard deviation over seeds", _markdown_grid(cells)]
    troubles = _troubles(jobs)
    if troubles:
        parts += ["## Jobs that did not finish", "\n".join(f"- {line}" for line in troubles)]
    return "\n\n".join(parts) + "\n"


def _markdown_grid(cells: Cells) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + " --- |" * len(cells[0]), *lines[1:]])


# --- terminal --------------------------------------------------------------------------------------------------------


def to_terminal(jobs: Sequence[Job], width: int = TERMINAL_WIDTH) -> str:
    """Aligned plain text, one block per data set; of the settings those that tell jobs apart, and more if they fit."""
    blocks = []
    for dataset in datasets_of(jobs) or [""]:
        if dataset or not tasks_of(jobs):
            name = titled(jobs, dataset)
            title = f"Bits per byte on {name} (lower is better, * best)" if dataset else "No job has a score yet"
            blocks.append(title + "\n" + _fitting_grid(jobs, dataset, width))
    for task in tasks_of(jobs):
        cells = _answer_cells(jobs, separating(jobs, varying(jobs)), task)
        blocks.append(f"Right answers on {titled(jobs, task)} (higher is better)\n{_aligned(cells)}")
    for dataset, cells in _seed_tables(jobs):
        blocks.append(f"{dataset}: mean ± standard deviation over seeds\n{_aligned(cells)}")
    troubles = _troubles(jobs)
    if troubles:
        blocks.append("\n".join(troubles))
    return "\n\n".join(blocks)


def _fitting_grid(jobs: Sequence[Job], dataset: str, width: int) -> str:
    candidates = varying(jobs)
    chosen = separating(jobs, candidates)
    for key in candidates:
        wider = [name for name in candidates if name in chosen or name == key]
        if _width(_cells(jobs, wider, dataset, "{}*".format)) <= width:
            chosen = wider
    return _aligned(_cells(jobs, chosen, dataset, "{}*".format))


def _width(cells: Cells) -> int:
    return max(map(len, _aligned(cells).splitlines()))


def _aligned(cells: Cells) -> str:
    """Columns padded to their width, numbers to the right."""
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(_is_numeric(cell) for cell in column[1:]) for column in columns]
    lines = [
        "  ".join(
            cell.rjust(size) if to_right else cell.ljust(size)
            for cell, size, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "─" * max(map(len, lines)), *lines[1:]])


def _is_numeric(cell: str) -> bool:
    try:
        float(cell.rstrip("*%").replace(",", ""))
    except ValueError:
        return cell in ("–", "")
    return True


# --- cells of Markdown and terminal ----------------------------------------------------------------------------------


def _cells(
    jobs: Sequence[Job], settings: Sequence[str], dataset: str, mark: Mark, with_difference: bool = False
) -> Cells:
    stages = stages_of(jobs) if dataset else []
    best = best_job(jobs, dataset)
    names = names_of(settings)
    heads = [names[key] for key in settings] or ["job"]
    with_difference = with_difference and any(job.difference(dataset, "final") for job in jobs)
    heads += [STAGE_NAMES[stage] for stage in stages] + ["final − source"] * with_difference + ["coverage"]
    heads += ["B/token source", "target"] if dataset else []
    rows = [[*heads, "seconds", "state"]]
    for job in jobs:
        row = [show_setting(job, key) for key in settings] or [job.name]
        scores = [rounded(job.bpb(dataset, stage), 4) for stage in stages]
        if job is best and stages[-1] == "final":
            scores[-1] = mark(scores[-1])
        row += [*scores, *[bits(job.difference(dataset, "final"))] * with_difference, percent(job.coverage)]
        row += [rounded(job.bytes_per_token(dataset, side), 2) for side in ("source", "target")] if dataset else []
        rows.append([*row, rounded(job.seconds, 0), job.state])
    return rows


def _answer_cells(jobs: Sequence[Job], settings: Sequence[str], task: str) -> Cells:
    names, stages = names_of(settings), answered_stages(jobs)
    compared = [stage for stage in stages if stage != "source"]
    heads = [names[key] for key in settings] or ["job"]
    heads += [STAGE_NAMES[stage] for stage in stages] + [f"{STAGE_NAMES[stage]} − source" for stage in compared]
    rows = [[*heads, "questions"]]
    for job in jobs:
        row = [show_setting(job, key) for key in settings] or [job.name]
        row += [share(job.accuracy(task, stage)) for stage in stages]
        row += [points(job.accuracy_difference(task, stage)) for stage in compared]
        rows.append([*row, rounded(job.questions(task), 0)])
    return rows


def _seed_tables(jobs: Sequence[Job]) -> list[tuple[str, Cells]]:
    """(data set, cells) of the means over seeds; none where no setting was run under two seeds."""
    groups = seed_groups(jobs)
    if not groups:
        return []
    settings = [key for key in varying(jobs) if key != "seed"]
    stages = stages_of(jobs)
    names = names_of(settings)
    heads = [*(names[key] for key in settings), "seeds", *(STAGE_NAMES[stage] for stage in stages)]
    return [
        (dataset, [heads, *(_seed_row(group, settings, dataset, stages) for group in groups)])
        for dataset in datasets_of(jobs)
    ]


def _seed_row(group: SeedGroup, settings: Sequence[str], dataset: str, stages: Sequence[str]) -> list[str]:
    row = [show_setting(group.jobs[0], key) for key in settings] + [str(len(group.jobs))]
    for stage in stages:
        mean, spread = group.bpb(dataset, stage)
        row.append("–" if mean is None else f"{mean:.4f} ± {rounded(spread, 4)}")
    return row


def _troubles(jobs: Sequence[Job]) -> list[str]:
    """A line per job that failed or was interrupted, or whose files could not be read."""
    lines = [f"{job.name} {job.state}: {job.error or 'no reason was left'}" for job in jobs if job.state in ENDED_BADLY]
    return lines + [f"{job.name}: unreadable {problem}" for job in jobs for problem in job.problems]


ENDED_BADLY = ("failed", "interrupted")


def rounded(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def bits(difference: Interval | None) -> str:
    """A difference of bits per byte: -0.1234 [-0.1300, -0.1168]."""
    return "–" if difference is None else "{:+.4f} [{:+.4f}, {:+.4f}]".format(*difference)


def share(accuracy: Interval | None) -> str:
    """A share of right answers: 46.0% [38.7, 52.4]."""
    return "–" if accuracy is None else "{:.1f}% [{:.1f}, {:.1f}]".format(*(100 * end for end in accuracy))


def points(difference: Interval | None) -> str:
    """A difference of two shares in points of percent: +1.5 [-2.0, +5.1]."""
    return "–" if difference is None else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * end for end in difference))


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"
