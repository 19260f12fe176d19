"""Writing a model as a plain Hugging Face folder that is either complete or not there."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revocab.errors import ResourceError
from revocab.initialisation.ids import tokenizer_length
from revocab.runtime.files import disk_errors, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

PROBE = "Acute  myocarditis, 12345 naïve\n\n\tx = f(1); <s> Ünïcode 😀"  # where kinds of tokenizers differ


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write config, safetensors, generation config and tokenizer to `folder`, replacing what was there.

    Everything is written beside it first and renamed at the end: a kill leaves the old folder or the new one.

    Raises:
        ResourceError: the disk is full, or the folder cannot be written.
    """
    from safetensors import SafetensorError

    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _make_generation_config_valid(model)
        with disk_errors(folder):
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            _name_tokenizer_class(temporary)
            _replace(temporary, folder)
        _check_tokenizer(tokenizer, folder)
    except SafetensorError as error:
        raise ResourceError(
            f"Cannot write the model to {folder}: {error}. Free space or choose another folder."
        ) from error
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
