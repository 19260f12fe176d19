"""Training a prepared model in stages: embedding tables alone, then the body by LoRA or in full.

`train_stage` is one call of Lightning's `Trainer.fit` with a fresh optimiser; probe, stage 1 and stage 2 differ only in
their `StageSettings`. A stage that was killed continues from its last checkpoint, a finished one is read back.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from revocab.training.batch_search import with_best_batch
    from revocab.training.checkpoints import is_done, resumed_from
    from revocab.training.heldout import HeldOut
    from revocab.training.memory_check import check_memory
    from revocab.training.optimisation import require_optimizer
    from revocab.training.settings import WITHOUT_CHECKPOINTS, Hardware, Kind, LoraSettings, StageSettings
    from revocab.training.stage import check_stage, train_stage
    from revocab.training.taking_over import shared_stage

# Where each name is. A module is imported when a name of it is first used: Lightning takes seconds of a start, and
# who aligns or evaluates does not train.
_MODULES = {
    "with_best_batch": "batch_search",
    "is_done": "checkpoints",
    "resumed_from": "checkpoints",
    "HeldOut": "heldout",
    "check_memory": "memory_check",
    "require_optimizer": "optimisation",
    "WITHOUT_CHECKPOINTS": "settings",
    "Hardware": "settings",
    "Kind": "settings",
    "LoraSettings": "settings",
    "StageSettings": "settings",
    "check_stage": "stage",
    "train_stage": "stage",
    "shared_stage": "taking_over",
}

__all__ = [
    "WITHOUT_CHECKPOINTS",
    "Hardware",
    "HeldOut",
    "Kind",
    "LoraSettings",
    "StageSettings",
    "check_memory",
    "check_stage",
    "is_done",
    "require_optimizer",
    "resumed_from",
    "shared_stage",
    "train_stage",
    "with_best_batch",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
