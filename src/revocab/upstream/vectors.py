"""Token vectors: learned from a tokenized corpus by the backend that the config chooses."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from revocab import vectors
from revocab.artifacts import TokenizedCorpus, TokenVectors
from revocab.runtime import seeds
from revocab.schema import Backend
from revocab.shards import Shards
from revocab.upstream.tokens import Tokens
from revocab.upstream.workplace import Workplace


class Vectors:
    def __init__(self, place: Workplace, tokens: Tokens) -> None:
        self.config, self.cache, self.device = place.config, place.cache, place.device
        self.tokens = tokens

    def entry(self, shards: Shards) -> Path:
        """The folder that `folder` returns, made or not."""
        return self.cache.entry("vectors", self._key(shards))

    def folder(self, shards: Shards) -> Path:
        """Where the vectors of one side are; learned if they are not there."""

        def build(folder: Path) -> Mapping[str, Any]:
            learned = self._learn(shards, folder)
            learned.save(folder)
            return {"known": int(learned.known.sum()), "vocabulary": len(learned.counts)}

        return self.cache.get("vectors", self._key(shards), build)

    def _key(self, shards: Shards) -> dict[str, Any]:
        embedding = self.config.embedding
        chosen = getattr(embedding, embedding.backend.value)
        key = {"tokens": shards.tokens_entry.name, "backend": embedding.backend.value, "dim": embedding.dim}
        return {**key, **asdict(chosen), "seed": self.config.seed}

    def _learn(self, shards: Shards, folder: Path) -> TokenVectors:
        embedding, seed = self.config.embedding, seeds.derive(self.config.seed, "vectors")
        if embedding.backend is Backend.fasttext:
            chosen = embedding.fasttext
            return vectors.fasttext_vectors(
                TokenizedCorpus.load(shards.tokens()),
                dim=embedding.dim,
                window=chosen.window,
                epochs=chosen.epochs,
                min_count=chosen.mincount,
                learning_rate=chosen.lr,
                threads=chosen.thread,
                seed=seed,
                work_folder=folder,
            )
        counts = vectors.PairCounts.load(shards.counts())
        settings = asdict(embedding.glove if embedding.backend is Backend.glove else embedding.cooccurrence)
        settings.pop("window")  # is in the counts
        if embedding.backend is Backend.glove:
            return vectors.glove_vectors(
                counts, dim=embedding.dim, seed=seed, device=self.device, work_folder=folder, **settings
            )
        return vectors.cooccurrence_vectors(counts, dim=embedding.dim, seed=seed, device=self.device, **settings)
