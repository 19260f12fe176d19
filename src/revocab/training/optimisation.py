"""AdamW with weight decay on matrices, and a cosine schedule with linear warm-up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from revocab.errors import ConfigError
from revocab.training.settings import StageSettings

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw_torch": AdamW,
    "adamw_torch_fused": partial(AdamW, fused=True),
}
OptimiserFactory = Callable[[nn.Module], tuple[Optimizer, LambdaLR]]


def optimiser_factory(settings: StageSettings) -> OptimiserFactory:
    """A function that makes the optimiser and the schedule for the trainable parameters of a module.

    Raises:
        ConfigError: an optimiser that is not known.
    """
    if settings.optimizer not in OPTIMIZERS:
        raise ConfigError("vocab.stage2_optimizer", settings.optimizer, f"one of {', '.join(OPTIMIZERS)}")

    def make(module: nn.Module) -> tuple[Optimizer, LambdaLR]:
        groups = parameter_groups(module.parameters(), settings.weight_decay)
        optimiser = OPTIMIZERS[settings.optimizer](groups, lr=settings.learning_rate)
        factor = partial(learning_rate_factor, steps=settings.steps, warmup=warmup_steps(settings))
        return optimiser, LambdaLR(optimiser, factor)

    return make


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict]:
    """Trainable parameters in two groups: what has a matrix's shape decays, norms and biases do not.

    Embedding tables decay too: AdamW's decay pulls every row by lr * weight_decay in every step, seen or not.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def warmup_steps(settings: StageSettings) -> int:
    """The share rounded up, but at least one step is left for the cosine."""
    return min(math.ceil(settings.warmup_share * settings.steps), settings.steps - 1)


def learning_rate_factor(step: int, *, steps: int, warmup: int) -> float:
    """Factor on the peak learning rate for optimiser step `step`, counted from 0.

    Warm-up rises linearly, (step + 1) / (warmup + 1), so that no step is wasted at 0; the cosine
    (1 + cos(pi (step - warmup) / (steps - warmup))) / 2 starts from 1 and would be 0 in the step after the last.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / (steps - warmup))))
