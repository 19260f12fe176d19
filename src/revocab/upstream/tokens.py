"""Tokens: the corpus in the source vocabulary and in the target vocabulary."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from revocab import alignment
from revocab.artifacts import TokenizedCorpus
from revocab.runtime.cores import available_cores
from revocab.schema import Backend
from revocab.shards import Shards
from revocab.upstream.text import Text
from revocab.upstream.tokenizers import Tokenizers
from revocab.upstream.workplace import Workplace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Tokens:
    def __init__(self, place: Workplace, text: Text, tokenizers: Tokenizers) -> None:
        self.place, self.text, self.tokenizers = place, text, tokenizers

    @cached_property
    def source_shards(self) -> Shards:
        return self._shards(self.tokenizers.source)

    @cached_property
    def target_shards(self) -> Shards:
        return self._shards(self.tokenizers.target)

    @cached_property
    def source_folder(self) -> Path:
        return self.source_shards.tokens()

    @cached_property
    def target_folder(self) -> Path:
        return self.target_shards.tokens()

    @cached_property
    def source(self) -> TokenizedCorpus:
        return TokenizedCorpus.load(self.source_folder)

    @cached_property
    def target(self) -> TokenizedCorpus:
        return TokenizedCorpus.load(self.target_folder)

    def _shards(self, tokenizer: PreTrainedTokenizerBase) -> Shards:
        config = self.place.config
        return Shards(
            corpus_folder=self.text.folder,
            tokenizer=tokenizer,
            shard_bytes=config.tokenization.shard_mb * 10**6,
            window=self._window(),
            device=self.place.device,
            token_cache=self.place.token_cache,
            cache=self.place.cache,
            workers=config.tokenization.workers or available_cores(),
        )

    def _window(self) -> int | None:
        """Neighbours to either side that are counted, where vectors are needed that are made of counts."""
        config = self.place.config
        if not alignment.needs_vectors(config.alignment.method):
            return None
        if config.embedding.backend is Backend.cooccurrence:
            return config.embedding.cooccurrence.window
        return config.embedding.glove.window if config.embedding.backend is Backend.glove else None
