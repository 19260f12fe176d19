"""AdamW with weight decay on matrices, learning rates by group, and a cosine schedule with linear warm-up."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Collection, Iterable
from functools import partial
from importlib import import_module

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from revocab.errors import ConfigError, MissingDependencyError
from revocab.training.settings import StageSettings


def _adamw_8bit(groups: list[dict], lr: float) -> Optimizer:
    """AdamW that keeps its two moments of every matrix in 8 bits (Dettmers et al. 2021, arXiv 2110.02861).

    Parameters of fewer than 4,096 values keep theirs in float32.
    """
    require_optimizer("adamw_8bit")
    return import_module("bitsandbytes").optim.AdamW8bit(groups, lr=lr)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw_torch": AdamW,
    "adamw_torch_fused": partial(AdamW, fused=True),
    "adamw_8bit": _adamw_8bit,
}
OptimiserFactory = Callable[[nn.Module], tuple[Optimizer, LambdaLR]]


def require_optimizer(name: str) -> None:
    """Raise ConfigError for an optimiser that is not known, MissingDependencyError for one without its package."""
    if name not in OPTIMIZERS:
        raise ConfigError("vocab.stage2_optimizer", name, f"one of {', '.join(OPTIMIZERS)}")
    if name == "adamw_8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError(
            "bitsandbytes", "vocab.stage2_optimizer=adamw_8bit", "pip install 'revocab[eightbit]'"
        )


def optimiser_factory(settings: StageSettings, tables: Collection[str] = ()) -> OptimiserFactory:
    """A function that makes the optimiser and the schedule for the trainable parameters of a module.

    Args:
        tables: names of the module's parameters that follow `settings.table_learning_rate`.

    Raises:
        ConfigError: an optimiser that is not known.
        MissingDependencyError: its package is not installed.
    """
    require_optimizer(settings.optimizer)

    def make(module: nn.Module) -> tuple[Optimizer, LambdaLR]:
        apart = tables if settings.table_learning_rate is not None else ()
        groups = parameter_groups(module.named_parameters(), settings.weight_decay, apart, settings.table_learning_rate)
        optimiser = OPTIMIZERS[settings.optimizer](groups, lr=settings.learning_rate)
        factor = partial(learning_rate_factor, steps=settings.steps, warmup=warmup_steps(settings))
        return optimiser, LambdaLR(optimiser, factor)

    return make


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    weight_decay: float,
    tables: Collection[str] = (),
    table_learning_rate: float | None = None,
) -> list[dict]:
    """Trainable parameters in groups: what has a matrix's shape decays, norms and biases do not.

    The parameters named in `tables` have groups of their own, behind the others, with `table_learning_rate`.
    Embedding tables decay too: AdamW's decay pulls every row by lr * weight_decay in every step, seen or not.
    """
    trainable = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    body = [parameter for name, parameter in trainable if name not in tables]
    apart = [parameter for name, parameter in trainable if name in tables]
    groups = [
        {"params": [p for p in members if (p.ndim >= 2) is matrices], "weight_decay": weight_decay * matrices, **rate}
        for members, rate in ((body, {}), (apart, {"lr": table_learning_rate}))
        for matrices in (True, False)
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
