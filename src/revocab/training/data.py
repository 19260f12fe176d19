"""Packed sequences out of a flat memory map of tokens, in an order that can be continued exactly.

Letters: N tokens of the corpus, L tokens of a sequence, B sequences of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from revocab.artifacts import TokenizedCorpus
from revocab.errors import ConfigError, DataError
from revocab.training.settings import StageSettings


class PackedSequences(Dataset):
    """The corpus cut into N // L sequences that do not overlap, from one document's first token on.

    Behind the last token reading goes on with the first one. The last N % L tokens before the start are in no sequence.
    Indexed by a list of B numbers it gives a (B, L) int64 tensor.
    """

    def __init__(self, tokens: TokenizedCorpus, length: int, start_document: int) -> None:
        if not 0 <= start_document < max(len(tokens), 1):
            raise ConfigError(
                "vocab.train_start_idx_stage2",
                start_document,
                f"below {len(tokens)}, the number of documents in the corpus",
                "Choose offset=none, or a corpus that is large enough.",
            )
        self.tokens, self.length = tokens.tokens, length
        self.start = int(tokens.offsets[start_document])

    def __len__(self) -> int:
        return len(self.tokens) // self.length

    def __getitem__(self, index: list[int]) -> torch.Tensor:
        return torch.from_numpy(np.stack([self._sequence(number) for number in index]))

    def _sequence(self, number: int) -> np.ndarray:
        begin = (self.start + number * self.length) % len(self.tokens)
        piece = self.tokens[begin : begin + self.length]
        if len(piece) < self.length:
            piece = np.concatenate([piece, self.tokens[: self.length - len(piece)]])
        return piece.astype(np.int64)


class ReadingOrder(Sampler[list[int]]):
    """Lists of B sequence numbers, one per micro-batch of this process, for the whole stage.

    `total` sequences are read, pass after pass over the `available` ones: in file order, or each pass in a permutation
    of its own of the whole corpus, so that a short stage sees a sample of all of it and not its first documents.
    With several processes, each takes every `world_size`-th micro-batch, so that a step sees the micro-batches that it
    sees with one.

    Args:
        start: micro-batches that were already consumed; iteration begins behind them.
    """

    def __init__(
        self,
        *,
        available: int,
        total: int,
        batch_size: int,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
    ) -> None:
        self.available, self.total, self.batch_size = available, total, batch_size
        self.shuffle, self.seed, self.rank, self.world_size = shuffle, seed, rank, world_size
        self.start = start

    def __len__(self) -> int:
        """Micro-batches of this process in the whole stage, consumed or not: Lightning counts from its start."""
        return self.total // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        passes: dict[int, Sequence[int] | np.ndarray] = {}
        for batch in range(self.start, len(self)):
            first = (batch * self.world_size + self.rank) * self.batch_size
            positions = range(first, first + self.batch_size)
            needed = {position // self.available for position in positions}
            passes = {number: passes[number] if number in passes else self._pass(number) for number in needed}
            yield [int(passes[p // self.available][p % self.available]) for p in positions]

    def _pass(self, number: int) -> Sequence[int] | np.ndarray:
        """The order in which pass `number` reads its sequences; a stage may end before a pass does."""
        if not self.shuffle:
            return range(self.available)
        return np.random.default_rng([self.seed, number]).permutation(self.available)


class StageData(pl.LightningDataModule):
    """The data of one stage; its checkpoint state is the number of optimiser steps done.

    Raises:
        DataError: the corpus holds less than one optimiser step reads.
        ConfigError: `start_document` is beyond the corpus.
    """

    def __init__(self, tokens: TokenizedCorpus, settings: StageSettings, *, num_workers: int) -> None:
        super().__init__()
        self.settings, self.num_workers = settings, num_workers
        check_size(tokens, settings)
        self.vocabulary_size = tokens.vocabulary_size
        self.bytes_per_token = tokens.text_bytes / len(tokens.tokens)  # of the corpus, marks between documents counted
        self.sequences = PackedSequences(tokens, settings.max_seq_length, settings.start_document)
        self.steps_done = 0

    def train_dataloader(self) -> DataLoader:
        settings, trainer = self.settings, self._trainer
        order = ReadingOrder(
            available=len(self.sequences),
            total=settings.steps * settings.sequences_per_step,
            batch_size=settings.batch_size,
            shuffle=settings.shuffle,
            seed=settings.seed,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            start=self.steps_done * trainer.accumulate_grad_batches,
        )
        on_gpu = trainer.strategy.root_device.type == "cuda"
        return DataLoader(
            self.sequences, sampler=order, batch_size=None, num_workers=self.num_workers, pin_memory=on_gpu
        )

    @property
    def _trainer(self) -> pl.Trainer:
        assert self.trainer is not None  # Lightning sets it before it asks for data
        return self.trainer

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._trainer.global_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps_done = state_dict["steps"]


def check_size(tokens: TokenizedCorpus, settings: StageSettings) -> None:
    """Raise DataError if the corpus holds fewer sequences than one optimiser step reads."""
    sequences = settings.sequences_per_step
    available = len(tokens.tokens) // settings.max_seq_length
    if available < sequences:
        raise DataError(
            f"The corpus has {len(tokens.tokens):,} tokens, one packed batch needs "
            f"{sequences * settings.max_seq_length:,} ({sequences} sequences of {settings.max_seq_length} tokens). "
            "Give more text (corpus.inputs), or lower vocab.max_seq_length, vocab.batch_size or "
            "vocab.gradient_accumulation."
        )
