"""What one job of train.py has found out so far, in the terms of its summary.json."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from revocab import evaluation
from revocab.artifacts import AnswerScore, StageRecord, TextScore

log = logging.getLogger(__name__)
COMPARED = {"final": "", "source_cpt": "source_cpt_"}  # stages beside the source model: how their accuracies begin


@dataclass(kw_only=True)
class Findings:
    """Filled while the job runs."""

    scores: dict[str, dict[str, TextScore]] = field(default_factory=dict)  # by stage (source, init ...), then data set
    answers: dict[str, dict[str, AnswerScore]] = field(default_factory=dict)  # by stage (source, final, source_cpt)
    records: dict[str, StageRecord] = field(default_factory=dict)  # of stage1 and stage2
    baseline: dict[str, Any] = field(default_factory=dict)  # record of source_cpt, where the config asks for it
    segments: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # of source and adapted: the same sentences
    resumes: list[dict[str, Any]] = field(default_factory=list)
    batches: dict[str, Any] = field(default_factory=dict)  # by stage: the micro-batch that was searched for

    def note(self, stage: str, scores: dict[str, TextScore]) -> None:
        """Keep the scores of a stage, and say them: a job that is stopped has said what it knew."""
        self.scores[stage] = scores
        said = ", ".join(f"{name} {score.bits_per_byte:.4f}" for name, score in scores.items())
        if said:
            log.info("%-6s  %s", stage, said)

    def note_answers(self, stage: str, answers: dict[str, AnswerScore]) -> None:
        """The same for the answers."""
        self.answers[stage] = answers
        found = {task: evaluation.accuracies(score)["accuracy"] for task, score in answers.items()}
        said = ", ".join(f"{task} {100 * accuracy:.1f} %" for task, accuracy in found.items())
        if said:
            log.info("%-6s  %s right", stage, said)

    def by_dataset(self, measure: str) -> dict[str, dict[str, float]]:
        """By data set and stage a field of the scores."""
        return {
            name: {stage: getattr(scores[name], measure) for stage, scores in self.scores.items()}
            for name in self.datasets
        }

    @property
    def datasets(self) -> Iterable[str]:
        return self.scores["source"]

    def bytes_per_token(self) -> dict[str, dict[str, float]]:
        sides = {"source": self.scores["source"], "target": self.scores["init"]}
        return {name: {side: scores[name].bytes_per_token for side, scores in sides.items()} for name in self.datasets}

    def differences(self, seed: int) -> dict[str, dict[str, dict[str, float]]]:
        """By data set and stage the bits per byte less those of the source model, on the same documents.

        Args:
            seed: of the resampling that gives the intervals.
        """
        source = self.scores["source"]
        return {
            name: {
                stage: asdict(evaluation.paired_difference(self.scores[stage][name], source[name], seed=seed))
                for stage in COMPARED
                if stage in self.scores
            }
            for name in self.datasets
        }

    def qa(self) -> dict[str, dict[str, Any]]:
        """By task the accuracies of the adapted model and its difference to the source model; those of the source
        model and of the baseline begin with `source_` and `source_cpt_`."""
        found: dict[str, dict[str, Any]] = {}
        for task, source in self.answers["source"].items():
            found[task] = prefixed("source_", evaluation.accuracies(source))
            for stage, prefix in COMPARED.items():
                if stage in self.answers:
                    score = self.answers[stage][task]
                    row = evaluation.accuracies(score)
                    row["difference"] = evaluation.accuracy_difference(score, source)
                    found[task] |= prefixed(prefix, row) if prefix else row
        return found


def prefixed(prefix: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of accuracies under other names, without what is the same for every model."""
    return {f"{prefix}{name}": value for name, value in row.items() if name not in ("n", "chance")}
