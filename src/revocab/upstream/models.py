"""Models: the source model, and others that are compared with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from revocab import initialisation
from revocab.runtime import embedded, fingerprints
from revocab.upstream import gguf
from revocab.upstream.workplace import Workplace

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Models:
    def __init__(self, place: Workplace) -> None:
        self.place, self.config, self.retries = place, place.config, place.retries

    def load(self, name: str, gguf_file: str | None = None) -> PreTrainedModel:
        where, file = gguf.plain(self.place, embedded.locate(name, "models.source_model"), gguf_file)
        return self.retries.download(
            f"models.source_model {name}",
            lambda: initialisation.load_model(
                where,
                gguf_file=file,
                trust_remote_code=self.config.models.trust_remote_code,
                attention="flash_attention_2" if self.config.vocab.use_flash_attn else "sdpa",
            ),
        )

    def load_source(self) -> PreTrainedModel:
        return self.load(self.config.models.source_model, self.config.models.gguf_file)

    def origin(self, name: str, gguf_file: str | None = None) -> dict[str, Any]:
        """What a model is known by where its scores are kept."""
        return {"model": fingerprints.of_model(embedded.locate(name, "models.source_model"), gguf_file)}

    def source_origin(self) -> dict[str, Any]:
        return self.origin(self.config.models.source_model, self.config.models.gguf_file)
