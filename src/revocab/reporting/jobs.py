"""One job of a sweep as its folder tells it. Any file may be missing or half there: the job runs, or was killed."""

from __future__ import annotations

import json
import os
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from revocab.errors import DataError

JOB_FILES = ("status.json", "summary.json", "config.yaml", "metrics.jsonl", "alignment_report.json")
BPB_STAGES = ("source", "source_cpt", "init", "probe", "stage1", "final")
ANSWERED = {"source": "source_", "source_cpt": "source_cpt_", "final": ""}  # how a stage's keys of an accuracy begin
COMPARED = ("source_cpt", "final")  # stages that differences to the source model are known of
UNKNOWN = object()
CLOCK_SLACK = 10.0  # seconds by which the clocks of a job and of the kernel may differ
STATES = ("completed", "running", "failed", "interrupted")


class Interval(NamedTuple):
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one job left. Everything but name and folder may be empty."""

    name: str  # of the folder
    folder: Path
    state: str  # one of STATES
    error: str | None = None  # one line
    labels: Mapping[str, Any] = field(default_factory=dict)  # preset, and every setting that was chosen
    config: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    alignment: Mapping[str, Any] = field(default_factory=dict)  # alignment_report.json, else the summary's counts
    segments: Mapping[str, Any] = field(default_factory=dict)  # a few sentences, token by token
    metrics: tuple[Mapping[str, Any], ...] = ()  # in order of steps; of a step that was run twice the later record
    seconds: float | None = None
    command: str | None = None  # reproduces the job
    problems: tuple[str, ...] = ()  # files that could not be read

    def knows(self, key: str) -> bool:
        """Whether labels or config say what a setting is (it may be set to None)."""
        return key in self.labels or look_up(self.config, key, UNKNOWN) is not UNKNOWN

    def setting(self, key: str) -> Any:
        """The value of a setting: what labels the job, else what its config says; None where neither knows."""
        return self.labels[key] if key in self.labels else look_up(self.config, key)

    @property
    def seed(self) -> Any:
        return next((node["seed"] for node in (self.summary, self.labels, self.config) if "seed" in node), None)

    @property
    def datasets(self) -> list[str]:
        return list(mapping(self.summary.get("bpb")))

    def bpb(self, dataset: str, stage: str) -> float | None:
        """Bits per byte on a data set, at one of BPB_STAGES."""
        return number(mapping(mapping(self.summary.get("bpb")).get(dataset)).get(stage))

    def difference(self, dataset: str, stage: str) -> Interval | None:
        """Bits per byte at `final` or `source_cpt` less those of the source model, with its interval."""
        return interval(mapping(mapping(self.summary.get("bpb_difference")).get(dataset)).get(stage), "value")

    @property
    def tasks(self) -> list[str]:
        return list(mapping(self.summary.get("qa")))

    def accuracy(self, task: str, stage: str) -> Interval | None:
        """Share of right answers at `source`, `source_cpt` or `final`, with its interval."""
        return interval(mapping(self.summary.get("qa")).get(task), f"{ANSWERED[stage]}accuracy", ANSWERED[stage])

    def accuracy_difference(self, task: str, stage: str) -> Interval | None:
        """The same at `final` or `source_cpt` less that of the source model."""
        row = mapping(mapping(self.summary.get("qa")).get(task))
        return interval(row.get(f"{ANSWERED[stage]}difference"), "value")

    def questions(self, task: str) -> float | None:
        return number(mapping(mapping(self.summary.get("qa")).get(task)).get("n"))

    def is_general(self, name: str) -> bool:
        """Whether a data set or task is not of the domain, so that it tells what was forgotten."""
        return mapping(self.summary.get("groups")).get(name) == "general"

    def bytes_per_token(self, dataset: str, side: str) -> float | None:
        """`side`: source | target."""
        return number(mapping(mapping(self.summary.get("bytes_per_token")).get(dataset)).get(side))

    @property
    def coverage(self) -> float | None:
        """Share in [0, 1] of target tokens that are exact or aligned."""
        return number(self.alignment.get("coverage"))

    def stage(self, name: str) -> Mapping[str, Any]:
        """The record of `stage1` or `stage2`; empty if it did not end."""
        return mapping(self.summary.get(name))


def collect(sweep_folder: Path) -> list[Job]:
    """All jobs of a sweep, in order of start, then of name.

    Raises:
        DataError: no such folder, or none of its folders holds a job.
    """
    sweep_folder = Path(sweep_folder)
    if not sweep_folder.is_dir():
        raise DataError(f"No such folder: {sweep_folder}. Give the folder of a sweep, such as multirun/<sweep>.")
    folders = [path for path in sorted(sweep_folder.iterdir()) if _is_job(path)]
    if not folders:
        raise DataError(f"{sweep_folder} is not a sweep: no folder in it holds {', '.join(JOB_FILES[:3])}, ...")
    jobs = [read_job(folder) for folder in folders]
    started = {job.name: _started(job.folder) for job in jobs}
    return sorted(jobs, key=lambda job: (started[job.name], job.name))


def read_job(folder: Path) -> Job:
    """The job in one folder; never raises because of what its files hold."""
    problems: list[str] = []
    status, summary = _read_json(folder / "status.json", problems), _read_json(folder / "summary.json", problems)
    config = _read_yaml(folder / "config.yaml", problems)
    alignment = _read_json(folder / "alignment_report.json", problems)
    state, error = _state(status, summary)
    return Job(
        name=folder.name,
        folder=folder,
        state=state,
        error=error,
        labels=mapping(summary.get("labels")) or mapping(status.get("labels")),
        config=config,
        summary=summary,
        alignment=mapping(summary.get("alignment")) | alignment,
        segments=_read_json(folder / "segments.json", problems),
        metrics=tuple(read_metrics(folder / "metrics.jsonl", problems)),
        # What stands there was written at the start where the job has not ended by itself.
        seconds=number(status.get("seconds")) if state in ("completed", "failed") else None,
        command=_command(folder, status, summary, config),
        problems=tuple(problems),
    )


def read_metrics(path: Path, problems: list[str] | None = None) -> list[dict[str, Any]]:
    """Records of metrics.jsonl, stages in order of appearance, steps ascending.

    A job that was killed and resumed wrote some steps twice: the later record counts. A last line that a kill cut
    short is left out without a word, other broken lines are named in `problems`.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records: dict[str, dict[float, dict[str, Any]]] = {}
    broken = 0
    for index, line in enumerate(lines):
        try:
            record = json.loads(line)
            records.setdefault(str(record["stage"]), {})[float(record["step"])] = record
        except (ValueError, KeyError, TypeError):
            broken += bool(line.strip()) and index < len(lines) - 1
    if broken and problems is not None:
        problems.append(f"{path.name}: {broken} broken lines")
    return [steps[step] for steps in records.values() for step in sorted(steps)]


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return dict(value) if isinstance(value, Mapping) else {}


def number(value: Any) -> float | None:
    """The value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -float("inf") < value < float("inf") else None


def interval(row: Any, value: str, prefix: str = "") -> Interval | None:
    """The value with its ends, which are called `low` and `high` behind the prefix; None if one of them is missing."""
    ends = [number(mapping(row).get(key)) for key in (value, f"{prefix}low", f"{prefix}high")]
    return None if None in ends else Interval(*(end for end in ends if end is not None))


def look_up(config: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """The value at a dotted key."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return default
        node = node[part]
    return node


def _is_job(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".") and any((path / name).exists() for name in JOB_FILES)


def _read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{path.name}: {one_line(error)}")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{path.name}: not an object")
    return mapping(value)


def _read_yaml(path: Path, problems: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        # The C loader is ten times faster, and not part of every build of PyYAML.
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError) as error:
        problems.append(f"{path.name}: {one_line(error)}")
        return {}
    return mapping(value)


def _state(status: Mapping[str, Any], summary: Mapping[str, Any]) -> tuple[str, str | None]:
    """State and error; interrupted are a job that says so, and one that says it runs but whose process is gone."""
    state = status.get("state")
    error = one_line(status["error"]) if status.get("error") else None
    if state == "failed" and error and error.startswith("interrupted"):
        return "interrupted", error.removeprefix("interrupted").lstrip(": ") or "by Ctrl-C"
    if state == "running" and _process_is_gone(status):
        return "interrupted", error or "the process ended without a word"
    if state in STATES:
        return str(state), error
    return ("completed", None) if summary else ("interrupted", "status.json is missing or broken")


def _process_is_gone(status: Mapping[str, Any]) -> bool:
    """True only if it is certain: the process was one of this machine, and it lives no longer."""
    pid = status.get("pid")
    if not isinstance(pid, int) or pid <= 0 or status.get("host") not in (None, socket.gethostname()):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it lives, but belongs to someone else
    return _is_younger(pid, status.get("started"))


def _is_younger(pid: int, started: Any) -> bool:
    """Whether the process began after the job did: the system gave the job's number to another one since."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        (boot,) = [line.split()[1] for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime")]
        born = int(boot) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return born > datetime.fromisoformat(started).timestamp() + CLOCK_SLACK
    except (OSError, ValueError, TypeError, IndexError):
        return False  # no /proc here, or no time that can be read


def _started(folder: Path) -> str:
    return str(_read_json(folder / "status.json", []).get("started") or "~")


def _command(folder: Path, *nodes: Mapping[str, Any]) -> str | None:
    """The command that the job wrote down, else one from the overrides that Hydra keeps."""
    written = next((node["command"] for node in nodes if isinstance(node.get("command"), str)), None)
    if written:
        return written
    overrides = folder / ".hydra" / "overrides.yaml"
    try:
        values = yaml.safe_load(overrides.read_text(encoding="utf-8")) if overrides.is_file() else None
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return shlex.join(["python", "train.py", *map(str, values)]) if isinstance(values, list) else None


def one_line(error: object, length: int = 500) -> str:
    """Text on one line, so that it fits a table's cell."""
    text = " ".join(str(error).split())
    return text if len(text) <= length else text[: length - 1] + "…"
