"""Tasks of lm-evaluation-harness (EleutherAI), asked and scored as that program does it.

Its results per metric are kept with the score of every question, so that two models can be compared in pairs.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import functools
import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from revocab.errors import ConfigError, DataError, MissingDependencyError
from revocab.evaluation.accuracy import paired_difference_of, share_with_interval
from revocab.evaluation.resampling import paired_mean_difference
from revocab.runtime.hub import offline_if_unreachable

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FEW_SHOT_SEED = 1234  # the harness's own
BOOTSTRAPS = 1000  # of metrics that are no mean over questions; the harness takes 100,000 and minutes for it
NORMAL_95 = 1.96  # standard errors to each end of an interval
KEY = "evaluation.harness_tasks"


def load_tasks(names: Sequence[str], folder: Path | None) -> dict[str, Mapping[str, Any]]:
    """By name the harness's tasks and groups of tasks, with their data, as its `TaskManager.load` returns them.

    Args:
        names: of tasks, groups or tags, as `lm-eval ls tasks` lists them.
        folder: with YAML files of further tasks; files that they name are found from there.

    Raises:
        MissingDependencyError: lm-eval is not installed.
        ConfigError: there is no such task.
        DataError: its data cannot be read.
    """
    manager = _manager(folder)
    for name in names:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks)
            hint = f"Near it: {', '.join(near)}." if near else "evaluation.harness_folder=FOLDER adds your own."
            raise ConfigError(KEY, name, "tasks that `lm-eval ls tasks` lists", hint)
    with _quiet(), offline_if_unreachable(), contextlib.chdir(folder or "."):
        return {name: _load(manager, name) for name in names}


@functools.lru_cache(maxsize=1)
def _manager(folder: Path | None) -> Any:
    """The harness's list of tasks, which takes seconds to make."""
    with _quiet():
        return _module("lm_eval.tasks").TaskManager(include_path=folder)


def _load(manager: Any, name: str) -> Mapping[str, Any]:
    try:
        loaded = manager.load([name])
    except Exception as error:  # each data set fails in its own way
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise DataError(
            f"{KEY}: {name} cannot be read: {reason}. Without a network, evaluation.harness_folder=FOLDER takes YAML "
            "files of tasks whose data are local (docs/evaluation.md), and evaluation.tasks=[FILE.jsonl] questions."
        ) from error
    if any(task.get_config("unsafe_code") for task in loaded["tasks"].values()):
        raise ConfigError(KEY, name, "tasks that run no code which a model wrote")
    for task in loaded["tasks"].values():  # as `lm_eval.simple_evaluate` prepares them
        if task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
        task.set_fewshot_seed(seed=FEW_SHOT_SEED)
    return loaded


def run_tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Mapping[str, Any],
    *,
    limit: int | None,
    batch_size: int,
    max_length: int,
    device: str,
) -> dict[str, Any]:
    """The harness's results for what `load_tasks` found under one name.

    Prompts, few-shot examples, metrics and special tokens are those of `lm-eval run --model hf`; no bos token is added
    where the tokenizer adds none by itself.

    Args:
        limit: questions of each task, from its beginning; None: all.
        batch_size: texts that go through the model at once.
        max_length: tokens that the model can read.
        device: where the model is moved to (and stays).

    Returns:
        By task and group `few_shot`, `n` (questions), and by metric `value`, `stderr` (None where the harness has
        none) and `scores`, those of every question (None of groups, and where the metric has none of its own).
    """
    import torch

    with _quiet():
        model.to(torch.device(device))
        # Its own copy of the tokenizer: the harness gives it a padding token.
        wrapped = _module("lm_eval.models.huggingface").HFLM(
            pretrained=model, tokenizer=copy.deepcopy(tokenizer), backend="causal",
            batch_size=batch_size, max_length=max_length, device=device,
        )  # fmt: skip
        found = _module("lm_eval.evaluator").evaluate(wrapped, tasks, limit=limit, bootstrap_iters=BOOTSTRAPS)
    return {
        name: {
            "few_shot": found["n-shot"].get(name),
            "n": found["n-samples"].get(name, {}).get("effective"),
            "metrics": dict(_metrics(row, found["samples"].get(name, []))),
        }
        for name, row in {**found["results"], **found.get("groups", {})}.items()
    }


def harness_row(result: Mapping[str, Any], first: Mapping[str, Any] | None) -> dict[str, Any]:
    """The entry of one model and task in scores.json.

    Args:
        result: what `run_tasks` found.
        first: the same of the model that this one is compared with; None for that model itself.
    """
    metrics: dict[str, Any] = {}
    for metric, found in result["metrics"].items():
        metrics[metric] = _with_interval(found)
        other = first["metrics"].get(metric) if first is not None else None
        difference = _difference(found["scores"], other["scores"]) if other is not None else None
        if difference is not None:
            metrics[metric]["difference"] = difference
    return {"n": result["n"], "few_shot": result["few_shot"], "metrics": metrics}


def _with_interval(found: Mapping[str, Any]) -> dict[str, float | None]:
    """Wilson's of a share, else what the standard error says; without one no interval."""
    value, error, scores = found["value"], found["stderr"], found["scores"]
    if scores is not None and _are_truths(scores):
        _, low, high = share_with_interval(np.array(scores, dtype=bool))
        return {"value": value, "low": low, "high": high}
    half = None if error is None else NORMAL_95 * error
    return {
        "value": value,
        "low": None if half is None else value - half,
        "high": None if half is None else value + half,
    }


def _difference(scores: Sequence[float] | None, first: Sequence[float] | None) -> dict[str, Any] | None:
    """Of two models on the same questions: paired shares, or a paired bootstrap of means."""
    if scores is None or first is None or len(scores) != len(first):
        return None
    if _are_truths(scores) and _are_truths(first):
        return paired_difference_of(np.array(scores, dtype=bool), np.array(first, dtype=bool))
    return asdict(paired_mean_difference(np.array(scores), np.array(first)))


def _are_truths(scores: Sequence[float]) -> bool:
    return set(scores) <= {0, 1}


def _metrics(row: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Metrics with value, standard error and scores; a filter of answers but the usual one is named behind it."""
    for key, value in row.items():
        name, comma, kind = key.partition(",")
        number = _number(value)
        if not comma or name.endswith("_stderr") or number is None:
            continue
        answers = sorted((sample for sample in samples if sample["filter"] == kind), key=lambda each: each["doc_id"])
        scores = [score for each in answers if (score := _number(each.get(name))) is not None]
        whole = scores and len(scores) == len(answers) and np.isclose(np.mean(scores), number)  # a mean of them
        yield (
            name if kind == "none" else f"{name} ({kind})",
            {
                "value": number,
                "stderr": _number(row.get(f"{name}_stderr,{kind}")),
                "scores": scores if whole else None,
            },
        )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float | np.number) and np.isfinite(value) else None


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Without the harness's advice on settings that are chosen here."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingDependencyError("lm-eval", KEY, "pip install 'revocab[harness]'") from error
