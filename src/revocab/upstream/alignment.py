"""The alignment of the two vocabularies, what it rests on, and the report on it."""

import itertools
import json
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from revocab import alignment as alignments
from revocab import corpus as corpora
from revocab import vectors, vocabulary
from revocab.artifacts import Alignment, Boundaries, TokenizedCorpus, TokenVectors, Vocabulary
from revocab.runtime import fingerprints, seeds
from revocab.runtime.cache import is_whole
from revocab.runtime.files import write_json
from revocab.runtime.side_by_side import side_by_side
from revocab.shards import Shards
from revocab.upstream.text import Text
from revocab.upstream.tokenizers import Tokenizers
from revocab.upstream.tokens import Tokens
from revocab.upstream.vectors import Vectors
from revocab.upstream.workplace import Workplace

MAPPED_DOCUMENTS, MAPPED_CHARACTERS = 200, 1500  # held-out text that an alignment is scored on: at most this much


class Aligned:
    def __init__(self, place: Workplace, text: Text, tokenizers: Tokenizers, tokens: Tokens) -> None:
        self.config, self.cache, self.device = place.config, place.cache, place.device
        self.text, self.tokenizers, self.tokens = text, tokenizers, tokens
        self.vectors = Vectors(place, tokens)

    @cached_property
    def alignment(self) -> Alignment:
        return Alignment.load(self.folder)

    @cached_property
    def report(self) -> dict[str, Any]:
        """What the alignment did to tokens, and what it does to text."""
        report = json.loads((self.folder / "alignment_report.json").read_text())
        return {**report, **self._text_scores}

    @cached_property
    def folder(self) -> Path:
        settings = self._settings()
        key = {
            **{name: value for name, value in asdict(settings).items() if name not in ("device", "rows_at_once")},
            "source": fingerprints.of_tokenizer(self.tokenizers.source),
            "target": fingerprints.of_tokenizer(self.tokenizers.target),
            "target_tokens": self.tokens.target_shards.tokens_entry.name,
        }
        if self._needs_source_tokens:
            key["source_tokens"] = self.tokens.source_shards.tokens_entry.name
        if self._needs_vectors:
            key["vectors"] = [self.vectors.entry(shards).name for shards in self._sides.values()]
        if is_whole(self.cache.entry("alignment", key)):
            return self.cache.entry("alignment", key)
        compared = self._make_ready()
        return self.cache.get("alignment", key, lambda folder: self._align(folder, compared, settings))

    def _settings(self) -> alignments.Settings:
        chosen = self.config.alignment
        made_of = {name: value for name, value in asdict(chosen).items() if name != "semantic_model"}
        values: dict[str, Any] = {
            **made_of,
            "similarity": chosen.similarity.value,
            "fallback": chosen.fallback.value,
            "subtoken_weights": chosen.subtoken_weights.value,
            "fit_weights": chosen.fit_weights.value,
            "seed": seeds.derive(self.config.seed, "alignment"),
            "device": self.device,
        }
        return alignments.Settings(**values)

    @property
    def _needs_vectors(self) -> bool:
        return alignments.needs_vectors(self.config.alignment.method)

    @property
    def _needs_source_tokens(self) -> bool:
        chosen = self.config.alignment
        return bool(self._needs_vectors or chosen.boundary_share or chosen.frequency_shift)

    def _align(self, folder: Path, compared: alignments.Problem, settings: alignments.Settings) -> dict[str, Any]:
        problem = self._with_counts(compared)
        alignment = alignments.align(problem, settings)
        report = alignments.report(alignment, problem)
        alignment.save(folder)
        write_json(folder / "alignment_report.json", report)
        return {name: report[name] for name in ("target_tokens", "exact", "aligned", "fallback", "zero_initialised")}

    # --- what it rests on

    @property
    def _sides(self) -> dict[str, Shards]:
        target = {"target": self.tokens.target_shards}
        return {"source": self.tokens.source_shards, **target} if self._needs_source_tokens else target

    def _make_ready(self) -> alignments.Problem:
        """Leave tokens and vectors of either side in the cache and return what the vocabularies alone say."""
        sides = {name: partial(self._make_side, shards) for name, shards in self._sides.items()}
        return side_by_side({**sides, "vocabularies": self._compare})["vocabularies"]

    def _make_side(self, shards: Shards) -> None:
        shards.tokens()
        if self._needs_vectors:
            self.vectors.folder(shards)

    def _compare(self) -> alignments.Problem:
        source = vocabulary.read_vocabulary(self.tokenizers.source)
        target = vocabulary.read_vocabulary(self.tokenizers.target)
        return alignments.Problem(
            source=source,
            target=target,
            exact=vocabulary.exact_pairs(source, target),
            exact_by_string=vocabulary.exact_pairs(source, target, by="string"),
            roles=vocabulary.role_pairs(source, target),
            pieces=vocabulary.cut_into_pieces(self.tokenizers.source, source, target),
        )

    def _with_counts(self, compared: alignments.Problem) -> alignments.Problem:
        """With what the text says of the tokens."""
        chosen, vectors_of = self.config.alignment, {}
        if self._needs_vectors:
            vectors_of = {
                f"{name}_vectors": TokenVectors.load(self.vectors.folder(shards))
                for name, shards in self._sides.items()
            }
        return replace(
            compared,
            **vectors_of,
            boundaries=self._boundaries(compared.source, compared.target) if chosen.boundary_share else None,
            source_counts=vectors.token_counts(self.tokens.source) if chosen.frequency_shift else None,
            target_counts=vectors.token_counts(self.tokens.target),
        )

    def _boundaries(self, source: Vocabulary, target: Vocabulary) -> Boundaries:
        folders = self.tokens.source_folder, self.tokens.target_folder

        def build(folder: Path) -> dict[str, Any]:
            corpora = (TokenizedCorpus.load(tokens) for tokens in folders)
            counted = vocabulary.count_boundaries(*corpora, source, target)
            counted.save(folder)
            return {"documents": counted.documents, "documents_left_out": counted.documents_left_out}

        return Boundaries.load(self.cache.get("boundaries", {"tokens": [folder.name for folder in folders]}, build))

    # --- what it does to text

    @cached_property
    def _text_scores(self) -> dict[str, Any]:
        """BLEU-1 and semantic score of held-out text, an artifact of its own: other text makes no new alignment."""
        documents = itertools.chain.from_iterable(self.text.heldout.values())
        texts = [text[:MAPPED_CHARACTERS] for text in corpora.first_by_hash(documents, MAPPED_DOCUMENTS)]
        name = self.config.alignment.semantic_model
        model = alignments.locate_sentence_model(name) if name else None
        key = {
            "alignment": self.folder.name,
            "texts": fingerprints.of_texts(texts),
            "semantic_model": fingerprints.of_model(model, None) if model else None,
        }
        folder = self.cache.get("mapped_text", key, lambda folder: self._score_text(folder, texts, model))
        return json.loads((folder / "scores.json").read_text())

    def _score_text(self, folder: Path, texts: list[str], model: str | None) -> dict[str, Any]:
        source = self.tokenizers.source
        source_ids = vocabulary.encode_texts(source, texts)
        mapped = alignments.map_documents(self.alignment, vocabulary.encode_texts(self.tokenizers.target, texts))
        scores: dict[str, Any] = {**alignments.bleu1(mapped, source_ids), "semantic_score": None}
        if model:
            found = [[token for token in ids if token is not None] for ids in mapped]
            decoded = vocabulary.decode_texts(source, found)
            scores["semantic_score"] = alignments.semantic_score(texts, decoded, model, self.device)
        scores["mapped_text"] = {
            "documents": len(texts),
            "target_tokens": sum(map(len, mapped)),
            "source_tokens": sum(map(len, source_ids)),
            "misses": sum(ids.count(None) for ids in mapped),
        }
        write_json(folder / "scores.json", scores)
        return {"bleu1": scores["bleu1"], "semantic_score": scores["semantic_score"]}
