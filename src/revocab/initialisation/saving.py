"""Writing a model as a plain Hugging Face folder that is either complete or not there."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from revocab.errors import ModelError, ResourceError
from revocab.initialisation.ids import tokenizer_length
from revocab.initialisation.loading import load_model
from revocab.runtime.files import disk_errors, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

PROBE = "Acute  myocarditis, 12345 naïve\n\n\tx = f(1); <s> Ünïcode 😀"  # where kinds of tokenizers differ


PROBE_IDS = 16  # tokens, spread over the table, whose logits are compared
TOLERANCE = 1e-4  # of the largest logit


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *, trust_remote_code: bool = False
) -> None:
    """Write config, safetensors, generation config and tokenizer to `folder`, replacing what was there.

    Everything is written beside it first, loaded again and its logits compared with the model's; then it is renamed: a
    kill or a mismatch leaves the old folder. The model is moved to the CPU, where for a moment it is in memory twice.

    Raises:
        ModelError: what was written does not load, or is another model.
        ResourceError: the disk is full, or the folder cannot be written.
    """
    with _beside(folder) as temporary:
        _make_generation_config_valid(model)
        with disk_errors(folder):
            _write(model, temporary)
            tokenizer.save_pretrained(temporary)
            _name_tokenizer_class(temporary)
        _check_logits(model, temporary, trust_remote_code)
    _check_tokenizer(tokenizer, folder)


def save_adapter(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, adapter: Path, folder: Path) -> None:
    """Write to `folder` what makes the source model this one: adapters, both embedding tables, tokenizer.

    Args:
        model: the trained model, adapters merged; its tables go to `tables.safetensors`, by name, a tied one once.
        adapter: folder that peft has written.

    Raises:
        ResourceError: the disk is full, or the folder cannot be written.
    """
    from safetensors.torch import save_file

    modules = [model.get_input_embeddings(), model.get_output_embeddings()]
    ours = {id(parameter) for module in modules if module is not None for parameter in module.parameters()}
    tables = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if id(p) in ours}
    with _beside(folder) as temporary, disk_errors(folder):
        shutil.copytree(adapter, temporary)
        save_file(tables, temporary / "tables.safetensors")
        tokenizer.save_pretrained(temporary)
        _name_tokenizer_class(temporary)


@contextmanager
def _beside(folder: Path) -> Generator[Path]:
    """A path beside `folder` to write to, which takes its place if the body succeeds and is removed if not."""
    from safetensors import SafetensorError

    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        yield temporary
        with disk_errors(folder):
            _replace(temporary, folder)
    except SafetensorError as error:
        raise ResourceError(
            f"Cannot write the model to {folder}: {error}. Free space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(model: PreTrainedModel, folder: Path) -> None:
    model.save_pretrained(folder)


@torch.no_grad()
def _check_logits(model: PreTrainedModel, folder: Path, trust_remote_code: bool) -> None:
    """Raise ModelError if the model in `folder` does not give the logits of `model`."""
    ids = torch.linspace(0, len(_input_table(model)) - 1, PROBE_IDS).long()[None]
    model.to(torch.device("cpu"))
    expected = model(input_ids=ids, use_cache=False).logits.float()
    attention = getattr(model.config, "_attn_implementation", None) or "sdpa"
    try:
        loaded = load_model(str(folder), trust_remote_code=trust_remote_code, attention=attention)
    except ModelError as error:
        raise ModelError(f"The model that was written does not load again, and is not kept: {error}") from error
    found = loaded(input_ids=ids, use_cache=False).logits.float()
    off = float((found - expected).abs().max()) if found.shape == expected.shape else math.inf
    largest = float(expected.abs().max())
    if not off <= TOLERANCE * largest:
        raise ModelError(
            "The model that was written does not load as the model that was trained: logits differ by up to "
            f"{off:.3g}, the largest is {largest:.3g}. It is not kept; the checkpoints are."
        )


def _input_table(model: Any) -> torch.Tensor:
    return model.get_input_embeddings().weight


def _replace(new: Path, folder: Path) -> None:
    """Rename `new` to `folder`; a folder that is not empty cannot be renamed over, so it steps aside first."""
    if not folder.exists():
        new.replace(folder)
        return
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    folder.replace(old)
    new.replace(folder)
    shutil.rmtree(old)


def _name_tokenizer_class(folder: Path) -> None:
    """Without a name in its config, AutoTokenizer would choose the class by the model's type: the old tokenizer's."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if (folder / "tokenizer.json").exists() and not config.get("tokenizer_class"):
        write_json(path, config | {"tokenizer_class": "PreTrainedTokenizerFast"})


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """For some model types transformers insists on a class of its own, which cuts text in another way: say so."""
    from transformers import AutoTokenizer

    loaded: Any = AutoTokenizer.from_pretrained(folder)
    if tokenizer_length(loaded) != tokenizer_length(tokenizer) or loaded(PROBE).input_ids != tokenizer(PROBE).input_ids:
        log.warning(
            "AutoTokenizer reads the tokenizer in %s as %s, which cuts text in another way. "
            "Load it by PreTrainedTokenizerFast.from_pretrained.",
            folder,
            type(loaded).__name__,
        )


def _make_generation_config_valid(model: PreTrainedModel) -> None:
    """Published models may set a temperature without sampling; transformers reads that but refuses to write it."""
    config = getattr(model, "generation_config", None)
    if config is None:
        return
    try:
        config.validate(strict=True)
    except ValueError as error:
        log.warning("The generation config sets sampling values without sampling: do_sample is set. (%s)", error)
        config.do_sample = True
