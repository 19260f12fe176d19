"""What evaluate.py finds out about each of its models, and the files that it leaves."""

import functools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from revocab import evaluation
from revocab.artifacts import AnswerScore, TextScore
from revocab.runtime.files import write_json, write_text
from revocab.schema import Config
from revocab.upstream import Upstream

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """All of one model."""

    text: dict[str, TextScore]  # by data set
    answers: dict[str, AnswerScore]  # by task
    harness: dict[str, Any]  # by task and group of lm-evaluation-harness
    terms: dict[str, Any]  # by data set: what its tokenizer makes of the terms
    speed: dict[str, Any] | None  # of writing, where the config asks for it


def compared_models(config: Config) -> list[str]:
    """The model that the config is about first, each once."""
    baseline = [config.evaluation.baseline_model] if config.evaluation.baseline_model else []
    return list(dict.fromkeys([config.models.source_model, *config.evaluation.models, *baseline]))


def score_model(upstream: Upstream, config: Config, name: str) -> ModelScores:
    """Score a model by its name; `models.source_model` with its own tokenizer and file as the config says."""
    first = name == config.models.source_model
    tokenizers, scorer = upstream.tokenizers, upstream.scorer
    tokenizer = tokenizers.source if first else tokenizers.load(name, "evaluation.models")
    gguf_file = config.models.gguf_file if first else None
    origin = upstream.models.origin(name, gguf_file)
    model = functools.cache(functools.partial(upstream.models.load, name, gguf_file))
    return ModelScores(
        text=scorer.scores(origin, tokenizer, model),
        answers=scorer.answers(origin, tokenizer, model),
        harness=upstream.harness.results(origin, tokenizer, model),
        terms=scorer.term_compression(tokenizer),
        speed=scorer.speed(model(), tokenizer) if config.evaluation.speed_bytes and upstream.text.datasets else None,
    )


def write_scores(folder: Path, scored: Mapping[str, ModelScores], upstream: Upstream, seed: int) -> dict[str, Any]:
    """Leave `scores.json`, `scores.md` and `answers.jsonl` and say them; returns what `scores.json` holds."""
    written = {
        "bpb": text_rows(scored, upstream.text.datasets, seed),
        "qa": answer_rows(scored, upstream.questions.asked),
        "harness": harness_rows(scored),
        "terms": {name: {model: each.terms[name] for model, each in scored.items()} for name in first(scored).terms},
        "speed": {model: each.speed for model, each in scored.items() if each.speed is not None},
        "groups": upstream.scorer.groups,
    }
    write_answers(folder / "answers.jsonl", scored)
    write_json(folder / "scores.json", written)
    log_accuracies(written["qa"])
    table = evaluation.scores_table(written)
    write_text(folder / "scores.md", f"{table}\n")
    log.info("\n%s\n\nscores: %s", table, folder / "scores.json")
    return written


def first(scored: Mapping[str, ModelScores]) -> ModelScores:
    """What the others are compared with."""
    return next(iter(scored.values()))


def text_rows(
    scored: Mapping[str, ModelScores], datasets: Mapping[str, list[str]], seed: int
) -> dict[str, dict[str, Any]]:
    """By data set and model: bits per byte with their interval, and the difference to the first model."""
    compared = first(scored)
    return {
        name: {
            model: evaluation.text_row(
                each.text[name], texts, first=None if each is compared else compared.text[name], seed=seed
            )
            for model, each in scored.items()
        }
        for name, texts in datasets.items()
    }


def answer_rows(
    scored: Mapping[str, ModelScores], questions: Mapping[str, list[evaluation.Question]]
) -> dict[str, dict[str, Any]]:
    """By task and model: accuracies, the difference to the first model, and accuracy by the right answer."""
    compared = first(scored)

    def row(task: str, each: ModelScores) -> dict[str, Any]:
        answers, others = each.answers[task], compared.answers[task]
        difference = {} if each is compared else {"difference": evaluation.accuracy_difference(answers, others)}
        by_gold = evaluation.by_gold(answers, questions[task])
        return {**evaluation.accuracies(answers), **difference, "by_gold": by_gold}

    return {task: {model: row(task, each) for model, each in scored.items()} for task in questions}


def harness_rows(scored: Mapping[str, ModelScores]) -> dict[str, dict[str, Any]]:
    """By task and model the harness's metrics, and their differences to the first model."""
    compared = first(scored)
    return {
        task: {
            model: evaluation.harness_row(each.harness[task], None if each is compared else compared.harness[task])
            for model, each in scored.items()
        }
        for task in compared.harness
    }


def log_accuracies(qa: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    for task, models in qa.items():
        for name, row in models.items():
            log.info(
                "%s, %s: %.1f %% right (95 %%: %.1f to %.1f; guessing %.1f) of %d",
                task, name, *(100 * row[key] for key in ("accuracy", "low", "high", "chance")), row["n"],
            )  # fmt: skip


def write_answers(path: Path, scored: Mapping[str, ModelScores]) -> None:
    """A line per question and model, with the log-likelihood of each answer; no file without questions."""
    lines = [
        json.dumps({"task": task, "model": model, **answer})
        for task in first(scored).answers
        for model, each in scored.items()
        for answer in each.answers[task].rows()
    ]
    if lines:
        write_text(path, "\n".join(lines) + "\n")
