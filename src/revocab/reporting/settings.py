"""Which settings tell the jobs of a sweep apart, and how a setting's value is written."""

from collections.abc import Sequence
from typing import Any

from revocab.reporting.jobs import Job


def varying(jobs: Sequence[Job]) -> list[str]:
    """Keys of the labels whose values differ between jobs: preset first, then in order of the labels, the seed last.

    A job whose labels were never written (it failed early) is judged by its config; what it does not say differs from
    nothing.
    """
    keys = list(dict.fromkeys(["preset", *(key for job in jobs for key in job.labels)]))
    keys.sort(key=lambda key: key == "seed")  # stable: all others stay where they are
    return [key for key in keys if len({show_setting(job, key) for job in jobs if job.knows(key)}) > 1]


def separating(jobs: Sequence[Job], candidates: Sequence[str]) -> list[str]:
    """The first settings that, one after the other, tell more jobs apart, until no other one does."""
    chosen: list[str] = []
    kinds = 1
    for key in candidates:
        split = len({tuple(show_setting(job, name) for name in [*chosen, key]) for job in jobs})
        if split > kinds:
            chosen, kinds = [*chosen, key], split
    return chosen


def label_of(job: Job, settings: Sequence[str]) -> str:
    """A job in a few words: the preset, then `name value` of the other settings; its folder's name without any."""
    names = names_of(settings)
    words = [
        show_setting(job, key) if key == "preset" else f"{names[key]} {show_setting(job, key)}" for key in settings
    ]
    return ", ".join(words) or job.name


def show_setting(job: Job, key: str) -> str:
    """The value as a cell; a dash where the job left no word of it."""
    return show(job.setting(key)) if job.knows(key) else "–"


def names_of(keys: Sequence[str]) -> dict[str, str]:
    """Short names: the last word of a dotted key that says something, the whole key where two would be the same."""
    last = [key.removesuffix(".enabled").rsplit(".", 1)[-1] for key in keys]
    return {key: key if last.count(word) > 1 else word for key, word in zip(keys, last, strict=True)}


def show(value: Any) -> str:
    """A setting's value as a cell: 2e-05, yes, none, q,v."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list | tuple):
        return ",".join(map(show, value))
    return " ".join(str(value).split())
