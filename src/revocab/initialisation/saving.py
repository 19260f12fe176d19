"""Writing a model as a plain Hugging Face folder that is either complete or not there."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write config, safetensors, generation config and tokenizer to `folder`, replacing what was there.

    Everything is written beside it first and renamed at the end: a kill leaves the old folder or the new one.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _make_generation_config_valid(model)
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        _replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(new: Path, folder: Path) -> None:
    """Rename `new` to `folder`; a folder that is not empty cannot be renamed over, so it steps aside first."""
    if not folder.exists():
        new.replace(folder)
        return
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    folder.replace(old)
    new.replace(folder)
    shutil.rmtree(old)


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
