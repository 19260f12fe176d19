"""A corpus cut into shards that are tokenized and counted on their own, each a cache entry, and what they add up to.

Windows do not cross documents and counts are whole numbers, so what comes out is the same to the bit however the
corpus is cut and wherever, in whatever order, the shards are made. A kill loses the shards in work and no other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revocab import vectors, vocabulary
from revocab.artifacts import Corpus, Documents, TokenizedCorpus
from revocab.runtime import fingerprints
from revocab.runtime.cache import Cache
from revocab.runtime.cores import available_cores
from revocab.runtime.workers import for_each

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SUMMED_AT_ONCE = 32  # shards whose counts are added up in one go


@dataclass(frozen=True, kw_only=True)
class Shards:
    """One corpus in one vocabulary. Pickles, so that a shard can be made in any process that sees the caches."""

    corpus_folder: Path  # of a `Corpus` in the cache: its name stands for its content
    tokenizer: "PreTrainedTokenizerBase"
    shard_bytes: int  # of text
    window: int | None = None  # neighbours to either side that are counted; null: none are
    device: str = "cpu"  # that counts
    token_cache: Cache
    cache: Cache
    workers: int = 1  # processes

    @cached_property
    def borders(self) -> list[tuple[int, int]]:
        """First document of each shard, and the one behind its last."""
        return vocabulary.cut_into_shards(self._documents, self.shard_bytes)

    @property
    def _documents(self) -> Documents:
        """Mapped anew for each shard: pages of text that were read leave this process with the map."""
        return Corpus.load(self.corpus_folder).train

    @cached_property
    def _identity(self) -> dict[str, str]:
        return {"corpus": self.corpus_folder.name, "tokenizer": fingerprints.of_tokenizer(self.tokenizer)}

    @cached_property
    def _threads(self) -> int:
        return max(1, available_cores() // min(self.workers, len(self.borders)))

    # --- one shard

    def make(self, index: int) -> None:
        self.tokens_of(index)
        if self.window is not None:
            self.counts_of(index)

    def tokens_of(self, index: int) -> Path:
        first, last = self.borders[index]
        return self.token_cache.get(
            "token_shards",
            {**self._identity, "documents": [first, last]},
            lambda folder: vocabulary.tokenize_corpus(folder, self._documents, self.tokenizer, first=first, last=last),
            quiet=True,
        )

    def counts_of(self, index: int) -> Path:
        def build(folder: Path) -> Mapping[str, Any]:
            tokens = TokenizedCorpus.load(self.tokens_of(index))
            assert self.window is not None
            return vectors.count_shard(folder, tokens, self.window, device=self.device, threads=self._threads)

        key = {**self._identity, "documents": list(self.borders[index]), "window": self.window}
        return self.cache.get("count_shards", key, build, quiet=True)

    # --- all of them

    @property
    def tokens_entry(self) -> Path:
        """The folder that `tokens` returns, made or not."""
        return self.token_cache.entry("tokens", self._identity)

    def make_all(self, part: int = 0, parts: int = 1) -> int:
        """Make every `parts`-th shard from number `part` on, those that exist excepted; returns how many these are."""
        chosen = range(part, len(self.borders), parts)
        for_each(
            self.make,
            chosen,
            workers=self.workers,
            threads=self._threads,
            name="shards",
            key="tokenization.workers",
        )
        return len(chosen)

    def tokens(self) -> Path:
        """Return the folder of the whole `TokenizedCorpus`."""

        def build(folder: Path) -> Mapping[str, Any]:
            self.make_all()
            return vocabulary.join_shards(folder, [self.tokens_of(index) for index in range(len(self.borders))])

        return self.token_cache.get("tokens", self._identity, build)

    def counts(self) -> Path:
        """Return the folder of the `PairCounts` of the whole corpus."""

        def build(folder: Path) -> Mapping[str, Any]:
            self.make_all()
            folders = [self.counts_of(index) for index in range(len(self.borders))]
            while len(folders) > SUMMED_AT_ONCE:
                groups = range(0, len(folders), SUMMED_AT_ONCE)
                folders = [self._sum(folders[start : start + SUMMED_AT_ONCE]) for start in groups]
            return vectors.add_shards(folder, folders)

        return self.cache.get("counts", {**self._identity, "window": self.window}, build)

    def _sum(self, folders: Sequence[Path]) -> Path:
        key = {"of": [folder.name for folder in folders]}
        return self.cache.get("count_sums", key, lambda folder: vectors.add_shards(folder, folders), quiet=True)
