"""Which parameters a stage trains: the tables by role, everything, the ends of the body, or adapters of its layers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from revocab.errors import ConfigError, ModelError
from revocab.training.settings import LoraSettings, StageSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ALL_LINEAR = "all-linear"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A model made ready for a stage."""

    module: nn.Module  # what is trained: the model itself, or the model wrapped with adapters
    changed: tuple[str, ...]  # parameters of the plain model that the stage changes, a tied table once
    tables: tuple[str, ...]  # parameters of `module` that are embedding tables and trained
    finish: Callable[[], PreTrainedModel]  # gives the plain model back, adapters merged
    save_adapter: Callable[[Path], object] | None = None  # write the adapters alone to a folder, before `finish`

    @property
    def trainable_parameters(self) -> int:
        return sum(p.numel() for p in self.module.parameters() if p.requires_grad)


def prepare(model: PreTrainedModel, settings: StageSettings) -> Prepared:
    """Set what requires gradients, in place.

    By `settings.kind`: `tables` both embedding tables; `full` everything; `first_last` both tables and the first and
    the last layer of the body; `lora` adapters of the body; `lora_tables` adapters and both tables.

    Raises:
        ConfigError: LoRA target modules that the model does not have.
        ModelError: `first_last` of a model whose layers are not found.
    """
    tables = _table_parameters(model)
    if settings.lora is not None:
        return _with_adapters(model, settings.lora, settings.seed, tables if settings.kind == "lora_tables" else ())
    if settings.kind == "full":
        model.requires_grad_(True)
    else:
        model.requires_grad_(False)
        for parameter in trained_parameters(model, settings):
            parameter.requires_grad_(True)
    changed = tuple(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    return Prepared(module=model, changed=changed, tables=tables, finish=lambda: model.requires_grad_(True))


def trained_parameters(model: PreTrainedModel, settings: StageSettings) -> list[nn.Parameter]:
    """Those of the plain model that `settings.kind` trains as they are; adapters come on top of them.

    Raises:
        ModelError: `first_last` of a model whose layers are not found.
    """
    if settings.kind == "full":
        return list(model.parameters())
    layers = body_layers(model) if settings.kind == "first_last" else []
    parts = [*layers[:1], *layers[-1:], *(_tables(model) if settings.kind != "lora" else [])]
    return [parameter for part in parts for parameter in part.parameters()]


def _tables(model: Any) -> list[nn.Module]:
    """The modules of the input and the output table, whatever the architecture calls them."""
    return [table for table in (model.get_input_embeddings(), model.get_output_embeddings()) if table is not None]


def _table_parameters(model: nn.Module) -> tuple[str, ...]:
    """Their names, a tied table once; works for a plain model and for one with adapters."""
    ours = {id(parameter) for table in _tables(model) for parameter in table.parameters()}
    return tuple(name for name, parameter in model.named_parameters() if id(parameter) in ours)


def body_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The list of modules that has as many members as the config has layers.

    Raises:
        ModelError: there is no such list.
    """
    count = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return list(module)
    raise ModelError(f"The layers of {type(model).__name__} are not found: choose lora=full or lora=r64.")


def table_rows(model: PreTrainedModel) -> int:
    """Rows of the input table."""
    table: Any = model.get_input_embeddings()
    return len(table.weight)


def _with_adapters(model: PreTrainedModel, lora: LoraSettings, seed: int, tables: tuple[str, ...]) -> Prepared:
    """Adapters by peft; the named tables are trained beside it, as plain parameters.

    peft can train tables too (`modules_to_save`), but would make a copy of each and untie tied ones.
    """
    from peft import LoraConfig, get_peft_model

    targets = lora_targets(model, lora.target_modules)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # ty: ignore[invalid-argument-type] -- a factor; peft only annotates it as an integer
        lora_dropout=lora.dropout,
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)  # of all devices; adapters start from the same values in a run that resumes
        adapted = get_peft_model(model, config)
    for name in tables:
        model.get_parameter(name).requires_grad_(True)

    def finish() -> PreTrainedModel:
        plain: Any = adapted.merge_and_unload()
        for leftover in ("peft_config", "_hf_peft_config_loaded"):
            plain.__dict__.pop(leftover, None)
        return plain.requires_grad_(True)

    return Prepared(
        module=adapted,
        changed=(*tables, *(f"{name}.weight" for name in targets)),
        tables=_table_parameters(adapted) if tables else (),
        finish=finish,
        save_adapter=lambda folder: adapted.save_pretrained(str(folder), save_embedding_layers=False),
    )


def lora_targets(model: PreTrainedModel, wanted: tuple[str, ...]) -> list[str]:
    """Full names of the body's linear layers whose last part is wanted.

    Raises:
        ConfigError: a wanted name that no linear layer of the body has.
    """
    linear = _linear_layers(model)
    available = sorted({name.rpartition(".")[2] for name in linear})
    names = set(available) if tuple(wanted) == (ALL_LINEAR,) else set(wanted)
    missing = sorted(names - set(available))
    if missing or not names:
        raise ConfigError(
            "vocab.lora_target_modules",
            ", ".join(missing),
            f"names of linear layers of {type(model).__name__}: {', '.join(available)}",
            f"Or {ALL_LINEAR} for all of them.",
        )
    return [name for name in linear if name.rpartition(".")[2] in names]


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of all linear modules but the output table, which stays frozen with its tied partner."""
    from transformers.pytorch_utils import Conv1D

    tables = _tables(model)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and not any(module is table for table in tables)
    ]


@contextmanager
def training_mode(model: PreTrainedModel, *, gradient_checkpointing: bool) -> Generator[None]:
    """Dropout on and key-value cache off while the body runs; afterwards evaluation mode and the old cache setting."""
    config = model.config.get_text_config(decoder=True)
    use_cache = getattr(config, "use_cache", None)
    config.use_cache = False
    model.train()
    if gradient_checkpointing:
        _switch(model, "activation_checkpointing_enable", "gradient_checkpointing_enable")
    try:
        yield
    finally:
        if gradient_checkpointing:
            _switch(model, "activation_checkpointing_disable", "gradient_checkpointing_disable")
        config.use_cache = use_cache
        model.eval()


def _switch(model: Any, name: str, older_name: str) -> None:
    """Call the method by the name that the installed transformers has."""
    (getattr(model, name, None) or getattr(model, older_name))()
