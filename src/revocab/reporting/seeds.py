"""Jobs that differ in nothing but their seed, taken together."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from revocab.reporting.jobs import Job


@dataclass(frozen=True, kw_only=True)
class SeedGroup:
    """Completed jobs of equal labels and different seeds, at least two."""

    jobs: tuple[Job, ...]

    def bpb(self, dataset: str, stage: str) -> tuple[float | None, float | None]:
        """Mean and sample standard deviation over the seeds; None where there is too little for it."""
        values = [value for job in self.jobs if (value := job.bpb(dataset, stage)) is not None]
        spread = statistics.stdev(values) if len(values) > 1 else None
        return (statistics.fmean(values) if values else None), spread


def seed_groups(jobs: Sequence[Job]) -> list[SeedGroup]:
    """Groups in order of their first job; none where no setting was run under two seeds."""
    groups: dict[str, dict[str, Job]] = {}
    for job in jobs:
        if job.state == "completed":
            labels = {key: value for key, value in job.labels.items() if key != "seed"}
            groups.setdefault(json.dumps(labels, sort_keys=True, default=str), {})[str(job.seed)] = job
    several = [tuple(by_seed.values()) for by_seed in groups.values() if len(by_seed) > 1]
    return [SeedGroup(jobs=members) for members in several]
