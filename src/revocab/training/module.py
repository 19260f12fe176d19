"""The one LightningModule: a prepared model, an optimiser, a loss. It does not know which stage it serves."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.distributed.tensor import DTensor

from revocab.training.kernels import Kernels
from revocab.training.optimisation import OptimiserFactory


class StageModule(pl.LightningModule):
    """Trains whatever parameters of `model` require gradients.

    Args:
        model: plain or with adapters.
        kernels: of that model; they are put in when training begins and say which loss to use.
        make_optimiser: gives optimiser and schedule for a module.
        vocabulary_size: tokens that the tokenizer has; logits beyond are left out of the loss.
        gradient_clip: largest norm of all gradients together; 0 clips nothing.
        skip_nonfinite: leave a step out whose loss or gradient is not finite; every step then waits for the device.
        seed: of dropout. Every micro-batch has a seed of its own, so that a resumed run, or one on another number of
            devices, draws what it would have drawn.
    """

    def __init__(
        self,
        model: nn.Module,
        kernels: Kernels,
        make_optimiser: OptimiserFactory,
        *,
        vocabulary_size: int,
        gradient_clip: float,
        skip_nonfinite: bool,
        seed: int,
    ) -> None:
        super().__init__()
        self.model, self.kernels, self.make_optimiser = model, kernels, make_optimiser
        self.vocabulary_size, self.gradient_clip, self.seed = vocabulary_size, gradient_clip, seed
        self.skip_nonfinite = skip_nonfinite
        self._losses: list[torch.Tensor] = []  # of the micro-batches of the running step, where steps may be skipped
        self.strict_loading = False  # checkpoints hold only what is trained
        self.micro_batch_loss: torch.Tensor | None = None  # Lightning hands out a share of it under accumulation
        self.gradient_norm: torch.Tensor | None = None  # of the last optimiser step, before clipping
        self.learning_rate = 0.0  # of the last optimiser step

    def on_fit_start(self) -> None:
        self.kernels.put_in(self.device, self.vocabulary_size)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        seed_dropout(self.device, micro_batch_seed(self.seed, batch_idx * self.trainer.world_size + self.global_rank))
        loss = self.kernels.loss(self.model, batch, self.vocabulary_size)
        self.micro_batch_loss = loss.detach().clone()  # a replayed graph writes to the same place
        if self.skip_nonfinite:
            self._losses.append(self.micro_batch_loss)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimiser, schedule = self.make_optimiser(self.model)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        if not self.kernels.static_gradients or self.trainer.accumulate_grad_batches == 1:
            optimizer.zero_grad()  # behind a graph, its own tensors are then the gradients, until it runs again
            return
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            else:
                parameter.grad.zero_()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Lightning calls this once per optimiser step, between backward and step."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        self.gradient_norm = norm.full_tensor() if isinstance(norm, DTensor) else norm  # of all parts, where sharded
        self.learning_rate = optimizer.param_groups[0]["lr"]
        if self.skip_nonfinite and not self._is_finite(self.gradient_norm):
            for parameter in parameters:
                parameter.grad = None  # an optimiser passes over it: weights, moments and its step count stay
            return
        if self.gradient_clip > 0:
            nn.utils.clip_grads_with_norm_(parameters, self.gradient_clip, self.gradient_norm)

    def _is_finite(self, norm: torch.Tensor) -> bool:
        """Whether the losses of the running step, on all devices, and the norm of its gradients are."""
        losses, self._losses = torch.stack(self._losses), []
        finite = (losses.isfinite().all() & norm.isfinite()).float()
        if self.trainer.world_size > 1:  # all devices must leave out the same steps
            finite = self.trainer.strategy.reduce(finite, reduce_op="min")
        return bool(finite)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Count the micro-batches that Lightning's loop has seen in those that this process sees now.

        They may have been larger then, or shared by another number of devices.
        """
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        seen = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        for counts in (progress["total"], progress["current"]):
            change = seen - counts["ready"]
            counts.update({key: counts[key] + change for key in ("ready", "started", "processed", "completed")})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is trained: the frozen rest comes from the model that the stage starts from."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {name: t for name, t in checkpoint["state_dict"].items() if name in trained}


def seed_dropout(device: torch.device, seed: int) -> None:
    """As torch.manual_seed, which takes milliseconds where a torch built for other accelerators sees none."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def micro_batch_seed(seed: int, number: int) -> int:
    """Far apart for neighbouring seeds; `number` counts micro-batches from the stage's start, over all processes."""
    return (seed * 1_000_003 * 1_000_000_007 + number) % 2**63
