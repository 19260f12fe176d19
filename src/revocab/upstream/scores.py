"""Scores of models: bits per byte of the data sets, answers to the questions, terms of the domain, speed.

Those of models that jobs share are kept in the cache.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from revocab import evaluation, initialisation, training, vocabulary
from revocab.artifacts import AnswerScore, TextScore
from revocab.errors import ConfigError
from revocab.runtime import fingerprints
from revocab.runtime.files import write_json
from revocab.upstream.questions import Questions
from revocab.upstream.text import Text
from revocab.upstream.workplace import Workplace

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROMPTS, PROMPT_CHARACTERS = 4, 200  # that a model writes on from where its speed is measured
SENTENCES = 3  # of each data set, that are shown token by token
TOKENS_BESIDE_TRAINING = 2048  # of a batch, while optimiser and gradients are in memory as well
MAX_CONTEXT = 2048  # longer contexts than any recipe here trains on


@dataclass(frozen=True, kw_only=True)
class OnTheWay:
    """Scores a model that is in training, where it is; travels to the processes that train it."""

    tokenizer: PreTrainedTokenizerBase
    texts: dict[str, list[str]]  # by data set
    batch_tokens: int

    def __call__(self, model: torch.nn.Module, bf16: bool) -> dict[str, float]:
        """Bits per byte by data set."""
        known: Any = model  # a transformers model, with or without adapters around its layers
        return {
            name: evaluation.score_text(
                known,
                self.tokenizer,
                texts,
                max_length=context_length(known),
                batch_tokens=self.batch_tokens,
                device=str(next(model.parameters()).device),
                bf16=bf16,
            ).bits_per_byte
            for name, texts in self.texts.items()
        }


class Scorer:
    def __init__(self, place: Workplace, text: Text, questions: Questions) -> None:
        self.config, self.cache, self.device = place.config.evaluation, place.cache, place.device
        self.text, self.questions = text, questions
        self._threads: int | None = None  # that models write with: what the first one is fastest with

    @cached_property
    def groups(self) -> dict[str, str]:
        """By data set and task `domain` or `general`: what is lost there was forgotten.

        Raises:
            ConfigError: `evaluation.general` names one that there is not.
        """
        names = [*self.text.names, *self.questions.asked, *self.config.harness_tasks]
        for name in self.config.general:
            if name not in names:
                raise ConfigError("evaluation.general", name, f"among the data sets and tasks: {', '.join(names)}")
        known = [name for name, task in evaluation.TASKS.items() if task.general]
        return {name: "general" if name in (*self.config.general, *known) else "domain" for name in names}

    # --- text

    def score(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, TextScore]:
        """Score a model on every data set, in full precision."""
        batch_tokens, length = self.config.batch_tokens, context_length(model)
        return {
            name: evaluation.score_text(
                model, tokenizer, texts, max_length=length, batch_tokens=batch_tokens, device=self.device
            )
            for name, texts in self.text.datasets.items()
        }

    def scores(
        self,
        origin: Mapping[str, Any],
        tokenizer: PreTrainedTokenizerBase,
        model: Callable[[], PreTrainedModel],
        undo: PreTrainedModel | None = None,
    ) -> dict[str, TextScore]:
        """Scores of a model that jobs share, from the cache where `origin` (what made it) was scored before.

        `undo` names a model whose embedding tables `model()` changes; they are put back after the scoring.
        """
        if not self.text.datasets:  # nor is the model made: no probe is run for nothing
            return {}

        def build(folder: Path) -> dict[str, Any]:
            with initialisation.restored_tables(undo) if undo is not None else nullcontext():
                return self._write_scores(folder, self.score(model(), tokenizer))

        return self._read_scores(self.cache.get("scores", self._scores_key(origin, tokenizer), build))

    def scores_and_record(
        self,
        origin: Mapping[str, Any],
        tokenizer: PreTrainedTokenizerBase,
        model: Callable[[], tuple[PreTrainedModel, Mapping[str, Any]]],
    ) -> tuple[dict[str, TextScore], dict[str, AnswerScore], dict[str, Any]]:
        """Scores and answers of a model that comes with a record of how it was made, which jobs share as well."""

        def build(folder: Path) -> dict[str, Any]:
            made, record = model()
            write_json(folder / "record.json", record)
            accuracy = self._write_answers(folder, self.answer(made, tokenizer), prefix="answers")
            return self._write_scores(folder, self.score(made, tokenizer)) | accuracy

        key = self._scores_key(origin, tokenizer)
        if self.questions.asked:
            key["questions"] = self.questions.digests
        folder = self.cache.get("scores", key, build)
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        return self._read_scores(folder), self._read_answers(folder, prefix="answers"), record

    def _scores_key(self, origin: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        return {
            **origin,
            "tokenizer": fingerprints.of_tokenizer(tokenizer),
            "datasets": self.datasets_key(),
        }

    def datasets_key(self) -> dict[str, str]:
        """Hashes of the held-out texts by name."""
        return {name: fingerprints.of_texts(texts) for name, texts in self.text.datasets.items()}

    def _write_scores(self, folder: Path, scores: Mapping[str, TextScore]) -> dict[str, Any]:
        for number, score in enumerate(scores.values()):
            score.save(folder / f"{number}.npz")
        return {"bpb": {name: score.bits_per_byte for name, score in scores.items()}}

    def _read_scores(self, folder: Path) -> dict[str, TextScore]:
        return {name: TextScore.load(folder / f"{number}.npz") for number, name in enumerate(self.text.datasets)}

    # --- text, while a model is in training

    def heldout(self, tokenizer: PreTrainedTokenizerBase) -> training.HeldOut | None:
        """What to score on the way: the first documents of each data set; None where the config asks for nothing."""
        if not (self.config.every_steps and self.text.datasets):
            return None
        texts = {name: documents[: self.config.curve_samples] for name, documents in self.text.datasets.items()}
        tokens = min(self.config.batch_tokens, TOKENS_BESIDE_TRAINING)
        score = OnTheWay(tokenizer=tokenizer, texts=texts, batch_tokens=tokens)
        return training.HeldOut(every=self.config.every_steps, score=score)

    def segments(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
        """A few held-out sentences as {dataset, text, tokens: [{text, bytes, whole, bits}]}, see `Segment`."""
        datasets = self.text.datasets
        sentences = [(name, text) for name in datasets for text in evaluation.sentences(datasets[name], SENTENCES)]
        if not sentences:
            return []
        texts = [text for _, text in sentences]
        batch_tokens, length = self.config.batch_tokens, context_length(model)
        rows = evaluation.token_bits(
            model, tokenizer, texts, max_length=length, batch_tokens=batch_tokens, device=self.device
        )
        segments = vocabulary.segments_of(tokenizer, texts, [ids for ids, _ in rows])
        return [
            {
                "dataset": name,
                "text": text,
                "tokens": [{**part._asdict(), "bits": value} for part, value in zip(parts, bits, strict=True)],
            }
            for (name, text), parts, (_, bits) in zip(sentences, segments, rows, strict=True)
        ]

    # --- questions

    def answer(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, AnswerScore]:
        """Ask a model the questions of every task."""
        batch_tokens, length = self.config.batch_tokens, context_length(model)
        return {
            task: evaluation.score_answers(
                model, tokenizer, questions, max_length=length, batch_tokens=batch_tokens, device=self.device
            )
            for task, questions in self.questions.asked.items()
        }

    def answers(
        self, origin: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, model: Callable[[], PreTrainedModel]
    ) -> dict[str, AnswerScore]:
        """As `scores`, for the answers."""
        if not self.questions.asked:
            return {}
        key = {**origin, "tokenizer": fingerprints.of_tokenizer(tokenizer), "questions": self.questions.digests}

        def build(folder: Path) -> dict[str, Any]:
            return self._write_answers(folder, self.answer(model(), tokenizer))

        return self._read_answers(self.cache.get("answers", key, build))

    def _write_answers(self, folder: Path, answers: Mapping[str, AnswerScore], prefix: str = "") -> dict[str, Any]:
        for number, score in enumerate(answers.values()):
            score.save(folder / f"{prefix}{number}.npz")
        return {"accuracy": {task: evaluation.accuracies(score)["accuracy"] for task, score in answers.items()}}

    def _read_answers(self, folder: Path, prefix: str = "") -> dict[str, AnswerScore]:
        names = enumerate(self.questions.asked)
        return {task: AnswerScore.load(folder / f"{prefix}{number}.npz") for number, task in names}

    # --- terms and speed

    def term_compression(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """By data set: what the tokenizer makes of its terms, and of sentences with and without them."""
        return {name: vocabulary.term_compression(tokenizer, *parts) for name, parts in self._term_sentences.items()}

    @cached_property
    def _term_sentences(self) -> dict[str, tuple[list[str], list[str], list[str]]]:
        """By data set: its terms, its sentences that hold one, those that hold none."""
        top_k = self.config.domain_terms
        found: dict[str, tuple[list[str], list[str], list[str]]] = {}
        for name, texts in self.text.datasets.items() if top_k else ():
            terms = vocabulary.domain_terms(texts, top_k=top_k)
            found[name] = (terms, *vocabulary.split_by_terms(texts, terms))
        return found

    def speed(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """How fast a model writes behind the first documents of the first data set."""
        texts = next(iter(self.text.datasets.values()))[:PROMPTS]
        speed = evaluation.generation_speed(
            model,
            tokenizer,
            [text[:PROMPT_CHARACTERS] for text in texts],
            num_bytes=self.config.speed_bytes,
            max_length=context_length(model),
            device=self.device,
            threads=self._threads,
        )
        self._threads = speed["threads"]
        return speed


def context_length(model: PreTrainedModel) -> int:
    """Tokens that a document is scored in at a time."""
    return min(getattr(model.config, "max_position_embeddings", None) or MAX_CONTEXT, MAX_CONTEXT)
