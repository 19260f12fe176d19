"""A small model's GGUF file, written out once as a plain folder: reading one takes up to 20 s, and every job would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from revocab import initialisation, vocabulary
from revocab.runtime import fingerprints
from revocab.upstream.workplace import Workplace

LARGEST = 2**30  # bytes of a file; reading a larger one is little beside the work that it is for, and its copy is large
MODEL = "model"


def plain(place: Workplace, where: str, gguf_file: str | None) -> tuple[str, str | None]:
    """Where to read a model or its tokenizer from: its folder in the cache without a file, else what was given.

    Raises:
        ModelError: the file holds no model and tokenizer that can be read.
    """
    path = Path(where).expanduser() / (gguf_file or "")
    if gguf_file is None or not path.is_file() or path.stat().st_size > LARGEST:
        return where, gguf_file
    trust = place.config.models.trust_remote_code

    def build(folder: Path) -> dict[str, Any]:
        model = initialisation.load_model(where, gguf_file=gguf_file, trust_remote_code=trust)
        tokenizer = vocabulary.load_tokenizer(where, gguf_file=gguf_file, trust_remote_code=trust)
        initialisation.save_model(model, tokenizer, folder / MODEL, trust_remote_code=trust)
        return {"parameters": model.num_parameters()}

    return str(place.cache.get("gguf", fingerprints.of_model(where, gguf_file), build) / MODEL), None
