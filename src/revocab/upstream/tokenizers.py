"""Tokenizers: the source model's, and the one that it is moved to, with domain terms where the config asks for them."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revocab import vocabulary
from revocab.errors import ModelError
from revocab.runtime import embedded, fingerprints
from revocab.upstream import gguf
from revocab.upstream.text import Text
from revocab.upstream.workplace import Workplace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Tokenizers:
    def __init__(self, place: Workplace, text: Text) -> None:
        self.place, self.config, self.cache, self.retries = place, place.config, place.cache, place.retries
        self.text = text

    def load(self, name: str, key: str, gguf_file: str | None = None) -> PreTrainedTokenizerBase:
        """Load the tokenizer that the config names under `key`."""
        where, trust = embedded.locate(name, key), self.config.models.trust_remote_code

        def load() -> PreTrainedTokenizerBase:
            try:
                folder, file = gguf.plain(self.place, where, gguf_file)
                return vocabulary.load_tokenizer(folder, gguf_file=file, trust_remote_code=trust)
            except ModelError as error:
                raise ModelError(f"{key}: {error}") from error

        return self.retries.download(f"{key} {name}", load)

    @cached_property
    def source(self) -> PreTrainedTokenizerBase:
        models = self.config.models
        if models.source_tokenizer is not None:
            return self.load(models.source_tokenizer, "models.source_tokenizer")
        return self.load(models.source_model, "models.source_model", models.gguf_file)

    @cached_property
    def given_target(self) -> PreTrainedTokenizerBase:
        """As the config names it, without domain terms."""
        return self.load(self.config.models.target_tokenizer, "models.target_tokenizer")

    @cached_property
    def target(self) -> PreTrainedTokenizerBase:
        """What the model is moved to: the given one, with domain terms where the config asks for them."""
        if not self.config.term_mining.enabled:
            return self.given_target
        return vocabulary.load_tokenizer(str(self._terms_folder))

    @cached_property
    def _terms_folder(self) -> Path:
        """The target tokenizer with the terms of the corpus."""
        settings = asdict(self.config.term_mining)
        settings.pop("enabled")
        given = self.given_target
        key = {**settings, "corpus": self.text.folder.name, "tokenizer": fingerprints.of_tokenizer(given)}
        return self.cache.get(
            "terms", key, lambda folder: vocabulary.add_terms(folder, self.text.corpus.train, given, **settings)
        )

    @cached_property
    def terms(self) -> dict[str, Any]:
        """What was mined and added, and what it saves on the held-out sets; empty without domain terms."""
        if not self.config.term_mining.enabled:
            return {}
        counts = json.loads((self._terms_folder / "terms.json").read_text(encoding="utf-8"))["counts"]
        return {
            **counts,
            **vocabulary.token_savings(self.given_target, self.target, self.text.datasets, counts["added"]),
        }
