"""report.html: one file that holds everything it needs, so that it opens anywhere and keeps for years."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from revocab.reporting.alignments import alignment_panel
from revocab.reporting.checks import checklist
from revocab.reporting.curves import curves_of
from revocab.reporting.jobs import ANSWERED, BPB_STAGES, COMPARED, Job, mapping
from revocab.reporting.learning import kinds_of, learning_of, segments_of
from revocab.reporting.seeds import seed_groups
from revocab.reporting.settings import label_of, names_of, separating, show_setting, varying
from revocab.reporting.table import STAGE_NAMES, answered_stages, best_job, datasets_of, stages_of, tasks_of, titled
from revocab.reporting.wandb_files import RUNS, upload_command

SCRIPTS = ("base.js", "table.js", "charts.js", "learning.js", "text.js", "panels.js")
COST_KEYS = ("kind", "steps", "tokens", "seconds", "tokens_per_second", "peak_memory_bytes", "trainable_parameters")


def to_html(jobs: Sequence[Job], title: str) -> str:
    """The whole page: markup, style and scripts of the template with the jobs' numbers as JSON."""
    parts = {
        "title": _escape(title),
        "css": _template("page.css"),
        "js": "\n".join(_template(name) for name in SCRIPTS),
        # `<` cannot end the script element or open a comment once it is written as an escape.
        "data": json.dumps(_plain(page_data(jobs, title)), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _template("page.html"))


def page_data(jobs: Sequence[Job], title: str) -> dict[str, Any]:
    """What the scripts draw; values are plain JSON, settings are written as they are to be read."""
    settings = varying(jobs)
    names, first = names_of(settings), separating(jobs, settings)
    datasets = datasets_of(jobs)
    panels, panel_of = _distinct([alignment_panel(job.alignment) for job in jobs])
    sentences, sentences_of = _distinct([segments_of(job, "source") for job in jobs])
    return {
        "title": title,
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "settings": [{"key": key, "name": names[key], "first": key in first} for key in settings],
        "datasets": datasets,
        "tasks": tasks_of(jobs),
        "titles": {name: titled(jobs, name) for name in [*datasets, *tasks_of(jobs)]},
        "answered": [{"key": stage, "name": STAGE_NAMES[stage]} for stage in answered_stages(jobs)],
        "stages": [{"key": stage, "name": STAGE_NAMES[stage]} for stage in stages_of(jobs)],
        "reference": next((index for index, job in enumerate(jobs) if job.datasets), 0),
        "best": {name: _index(jobs, best_job(jobs, name)) for name in datasets},
        "jobs": [
            _job_data(job, label_of(job, first), settings, datasets, panel, source)
            for job, panel, source in zip(jobs, panel_of, sentences_of, strict=True)
        ],
        "alignments": panels,
        "segments": sentences,
        "seeds": _seed_data(jobs, settings, datasets),
        "upload": _upload(jobs),
    }


def _job_data(
    job: Job,
    label: str,
    settings: Sequence[str],
    datasets: Sequence[str],
    panel: int | None,
    source_sentences: int | None,
) -> dict[str, Any]:
    scores = {name: {stage: job.bpb(name, stage) for stage in BPB_STAGES} for name in datasets}
    sizes = {name: {side: job.bytes_per_token(name, side) for side in ("source", "target")} for name in datasets}
    return {
        "name": job.name,
        "label": label,
        "state": job.state,
        "error": job.error,
        "problems": job.problems,
        "settings": {key: show_setting(job, key) for key in settings},
        "bpb": scores,
        "bpb_difference": {name: job.difference(name, "final") for name in datasets},
        "answers": {task: _answer_data(job, task) for task in job.tasks},
        "bytes_per_token": sizes,
        "perplexity": mapping(job.summary.get("perplexity")),
        "coverage": job.coverage,
        "seconds": job.seconds,
        "alignment": panel,
        "checks": job.summary.get("checks") or checklist(stage1=None, stage2=None, metrics=(), alignment=job.alignment),
        "cost": {stage: {key: job.stage(stage).get(key) for key in COST_KEYS} for stage in ("stage1", "stage2")},
        "device": job.summary.get("device"),
        "curves": curves_of(job.metrics),
        "learning": learning_of(job),
        "kinds": kinds_of(job),
        "segments": {"source": source_sentences, "adapted": segments_of(job, "adapted")},
        "command": job.command,
        "run_id": job.summary.get("run_id"),
    }


def _answer_data(job: Job, task: str) -> dict[str, Any]:
    """Shares of right answers by stage, and differences to the source model, each with the ends of its interval."""
    shares = {stage: job.accuracy(task, stage) for stage in ANSWERED}
    differences = {stage: job.accuracy_difference(task, stage) for stage in COMPARED}
    return {**shares, "difference": differences, "questions": job.questions(task)}


def _seed_data(jobs: Sequence[Job], settings: Sequence[str], datasets: Sequence[str]) -> list[dict[str, Any]]:
    stages = stages_of(jobs)
    return [
        {
            "settings": {key: show_setting(group.jobs[0], key) for key in settings if key != "seed"},
            "seeds": len(group.jobs),
            "bpb": {name: {stage: group.bpb(name, stage) for stage in stages} for name in datasets},
        }
        for group in seed_groups(jobs)
    ]


def _upload(jobs: Sequence[Job]) -> str | None:
    """The command that sends the sweep's offline runs; None where there are none."""
    offline = any(next(job.folder.glob(RUNS), None) for job in jobs)
    return upload_command(jobs[0].folder.parent, sweep=True) if offline else None


def _distinct(panels: Sequence[Any]) -> tuple[list[Any], list[int | None]]:
    """The different panels, and for each job which one is its own: jobs of a sweep mostly share an alignment."""
    seen: dict[str, int] = {}
    kept: list[Any] = []
    which: list[int | None] = []
    for panel in panels:
        if panel is None:
            which.append(None)
            continue
        key = json.dumps(_plain(panel), sort_keys=True)
        if key not in seen:
            seen[key] = len(kept)
            kept.append(panel)
        which.append(seen[key])
    return kept, which


def _index(jobs: Sequence[Job], job: Job | None) -> int | None:
    return next((index for index, other in enumerate(jobs) if other is job), None)


def _plain(value: Any) -> Any:
    """JSON that a browser reads: what is not finite becomes null, what JSON has no word for becomes text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def _template(name: str) -> str:
    return (files("revocab.reporting") / "template" / name).read_text(encoding="utf-8")


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
