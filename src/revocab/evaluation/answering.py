"""Question answering by likelihood: how likely a model takes each possible answer to be, behind its prompt.

Legend of tensor names: R rows (answers) of a batch, P tokens of the part of the prompt that goes through the model
once, L tokens of the longest row behind it, V ids of the tokenizer.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from revocab.artifacts import AnswerScore
from revocab.errors import DataError
from revocab.evaluation.likelihood import cross_entropy_in_slices, evaluating, num_ids, token_ids
from revocab.evaluation.questions import Question
from revocab.runtime.progress import bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Prompts share a pass of the model if they are equally long; cut to a multiple of this many tokens, more of them are.
PROMPT_STEP = 8


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The ids of one question: each answer behind the prompt, and how many of the first ids all of them share."""

    rows: tuple[list[int], ...]  # prefix, prompt, answer
    shared: int  # every row is the same before it and scored from it on; at least 1

    @property
    def prompt_tokens(self) -> int:
        """Tokens that go through the model once for all answers; one is left, to predict the first of each answer."""
        return (self.shared - 1) // PROMPT_STEP * PROMPT_STEP

    @property
    def longest(self) -> int:
        return max(map(len, self.rows))


def score_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    max_length: int,
    batch_tokens: int,
    device: str,
) -> AnswerScore:
    """The log-likelihood of every answer of every question, in the order given.

    A prompt with its answer is tokenised as one text, so that the tokens are those that the model knows. What is scored
    are the tokens behind the longest beginning that the prompt and all answers share: where a tokenizer merges the end
    of a prompt with an answer, the merged token counts, for each answer alike. Tokenising, the one prefix before the
    text, and the ids that take probability are as in `score_text`. A prompt that is too long loses its beginning.

    Args:
        max_length: tokens of a prompt with its answer, prefix included.
        batch_tokens: tokens of a batch; memory grows with batch_tokens x V.
        device: where the model is moved to (and stays).

    Raises:
        DataError: no questions, or an answer for which there is no room.
        ModelError: see `score_text`.
    """
    if not questions:
        raise DataError("There is no question to answer. Give a file with at least one.")
    encoded = encode(tokenizer, questions, max_length)
    vocabulary_size = num_ids(tokenizer, model)
    nats: list[np.ndarray] = [np.empty(0)] * len(questions)
    model.to(torch.device(device))
    with evaluating(model), bar("Answering", total=len(questions), unit="question") as progress:
        for batch in batches_of(encoded, batch_tokens):
            chosen = [encoded[number] for number in batch]
            for number, values in zip(batch, _answer_nats(model, chosen, vocabulary_size), strict=True):
                nats[number] = values
            progress.update(len(batch))
    answers = [choice for question in questions for choice in question.choices]
    return AnswerScore(
        nats=np.concatenate(nats),
        bytes=np.array([len(answer.encode("utf-8", errors="replace")) for answer in answers], dtype=np.int64),
        tokens=np.array([len(row) - each.shared for each in encoded for row in each.rows], dtype=np.int64),
        offsets=np.cumsum([0, *(len(question.choices) for question in questions)], dtype=np.int64),
        gold=np.array([question.gold for question in questions], dtype=np.int64),
    )


def encode(tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question], max_length: int) -> list[Encoded]:
    """The ids of each question, none of its rows longer than `max_length`."""
    texts: list[str] = []
    for question in questions:
        prompt = question.prompt.rstrip()  # a space there would be another token than the one that begins a word
        texts += [prompt, *(f"{prompt} {choice}" for choice in question.choices)]
    ids = iter(token_ids(tokenizer, [text.encode("utf-8", errors="replace").decode() for text in texts]))
    encoded = []
    for number, question in enumerate(questions):
        prompt_ids = next(ids)
        rows = list(itertools.islice(ids, len(question.choices)))
        encoded.append(_fitted(rows, _shared(prompt_ids, rows), max_length, number))
    return encoded


def _shared(prompt: list[int], rows: list[list[int]]) -> int:
    """How many ids all rows begin with that the prompt begins with too; of each row one is left at least."""
    same = itertools.takewhile(lambda ids: len(set(ids)) == 1, zip(prompt, *rows, strict=False))
    return min(sum(1 for _ in same), min(map(len, rows)) - 1)


def _fitted(rows: list[list[int]], shared: int, max_length: int, number: int) -> Encoded:
    """Without the first tokens of the prompt, but with the prefix, where a row would be too long."""
    over = max(0, max(map(len, rows)) - max_length)
    if over >= shared:
        longest = max(len(row) - shared for row in rows)
        raise DataError(
            f"Question {number} (counted from 0) has an answer of {longest} tokens, and the model reads {max_length} "
            "at once. Remove the question."
        )
    if over:
        rows, shared = [[row[0], *row[1 + over :]] for row in rows], shared - over
    return Encoded(rows=tuple(rows), shared=shared)


def batches_of(encoded: Sequence[Encoded], batch_tokens: int) -> Iterator[list[int]]:
    """Numbers of questions whose prompts are cut to one length, longest first; at least one question each."""
    batch: list[int] = []
    rows = 0
    order = sorted(range(len(encoded)), key=lambda n: (-encoded[n].prompt_tokens, -encoded[n].longest))
    for number in order:
        first = encoded[batch[0]] if batch else encoded[number]
        added = len(encoded[number].rows)
        full = first.longest * (rows + added) > batch_tokens
        if batch and (full or encoded[number].prompt_tokens != first.prompt_tokens):
            yield batch
            batch, rows = [], 0
        batch.append(number)
        rows += added
    if batch:
        yield batch


def _answer_nats(model: PreTrainedModel, batch: Sequence[Encoded], vocabulary_size: int) -> list[np.ndarray]:
    """Per question the float64 log-likelihoods of its answers."""
    owners = [owner for owner, each in enumerate(batch) for _ in each.rows]
    rows = [row for each in batch for row in each.rows]
    cache = _read_prompts(model, batch, owners)
    start = batch[0].prompt_tokens if cache is not None else 0
    device = next(model.parameters()).device
    ids_RL = torch.zeros(len(rows), max(map(len, rows)) - start, dtype=torch.long)
    for number, row in enumerate(rows):  # padding stands behind, where no token of an answer sees it
        ids_RL[number, : len(row) - start] = torch.tensor(row[start:])
    ids_RL = ids_RL.to(device)
    read = {"past_key_values": cache, "use_cache": True} if cache is not None else {"use_cache": False}
    logits_RLV = model(input_ids=ids_RL, **read).logits
    nats_RL = -cross_entropy_in_slices(logits_RLV[:, :-1, :vocabulary_size], ids_RL[:, 1:]).double().cpu().numpy()
    # nats_RL[r, k] belongs to the token at start + k + 1
    sums = [
        nats_L[batch[owner].shared - start - 1 : len(row) - start - 1].sum()
        for nats_L, row, owner in zip(nats_RL, rows, owners, strict=True)
    ]
    values = iter(sums)
    return [np.array(list(itertools.islice(values, len(each.rows)))) for each in batch]


def _read_prompts(model: PreTrainedModel, batch: Sequence[Encoded], owners: list[int]) -> Any:
    """Keys and values of the prompts, one row per answer; None where there is nothing to share, or no such cache."""
    length = batch[0].prompt_tokens
    if length == 0:
        return None
    device = next(model.parameters()).device
    ids_BP = torch.tensor([each.rows[0][:length] for each in batch], device=device)
    few_logits = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    cache = getattr(model(input_ids=ids_BP, use_cache=True, **few_logits), "past_key_values", None)
    if not hasattr(cache, "batch_select_indices"):  # a recurrent model: its rows are read whole, with the same result
        return None
    cache.batch_select_indices(torch.tensor(owners, device=device))
    return cache
