"""Held-out text scored while a stage trains, so that it can be said after how much text and time a model was how good.

A score touches neither weights nor random numbers nor the order of the data: a stage ends with the same bits with and
without. Its time is not counted as training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch

from revocab.training.metrics import StageMetrics
from revocab.training.module import StageModule

Score = Callable[[torch.nn.Module, bool], dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What is scored on the way, and how often."""

    every: int  # optimiser steps; the last step is left to whoever scores the finished model
    score: Score  # (model, whether to compute in bfloat16) -> bits per byte by data set; pickles


class HeldOutScores(pl.Callback):
    """Scores behind every so many steps; the values stand on the line of their step in `metrics.jsonl`.

    Must come before `StageMetrics` among the callbacks. With several devices each of them scores all of it: the parts
    of a sharded model are put together by all, and nobody is waited for longer.
    """

    def __init__(self, heldout: HeldOut, metrics: StageMetrics, *, bytes_per_token: float) -> None:
        self.heldout, self.metrics, self.bytes_per_token = heldout, metrics, bytes_per_token
        self._scored = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._scored = trainer.global_step  # the checkpoint has its line

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, StageModule)
        settings, step = self.metrics.settings, trainer.global_step  # moves with the last micro-batch of a step
        if step == self._scored or step % self.heldout.every or step == settings.steps:
            return
        self._scored = step
        with self.metrics.paused():
            scores = self.heldout.score(pl_module.model, settings.bf16)
        tokens = step * settings.sequences_per_step * settings.max_seq_length
        self.metrics.add(step, {"bytes": round(tokens * self.bytes_per_token), "bpb": scores})
