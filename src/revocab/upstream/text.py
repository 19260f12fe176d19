"""Text: the corpus that is trained on, and the documents that models are scored on and nothing is trained on."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

from revocab import corpus as corpora
from revocab.artifacts import Corpus
from revocab.errors import ConfigError
from revocab.runtime import embedded
from revocab.runtime.files import write_json
from revocab.runtime.progress import track
from revocab.upstream.questions import Questions
from revocab.upstream.workplace import Workplace

TEXT_OF = attrgetter("text")
HELDOUT = "heldout"  # name of the corpus's own held-out part where no evaluation.datasets are given


class Text:
    def __init__(self, place: Workplace, questions: Questions) -> None:
        self.config, self.cache, self.retries = place.config, place.cache, place.retries
        self.questions = questions

    # --- trained on

    @cached_property
    def folder(self) -> Path:
        """The corpus without the documents that models are evaluated on."""
        settings = asdict(self.config.corpus)
        inputs = [embedded.locate(name, "corpus.inputs") for name in settings.pop("inputs")]
        settings["min_line_length"] = max(settings["min_line_length"], self.config.tokenization.min_line_length)
        reserved = self._reserved(inputs)
        key = {**settings, "inputs": corpora.fingerprint(inputs), "reserved": list(reserved.values())}
        if self.questions.asked:
            key["questions"] = self.questions.digests
        kind_field = self.config.evaluation.kind_field
        if kind_field is not None:  # it says of what kind held-out documents are, and chooses none of them
            key["kind_field"] = kind_field
        if settings["overlap_words"]:
            key["stock_phrase"] = corpora.STOCK_PHRASE

        def build(folder: Path) -> dict[str, int]:
            evaluated: dict[str, Iterable[str]] = {
                corpora.dataset_name(name): _texts(self._evaluation_documents(name, **reserved[name]))
                for name in reserved
            }
            evaluated |= self.questions.texts
            return corpora.build_corpus(folder, inputs, evaluated=evaluated, kind_field=kind_field, **settings)

        return self.retries.download("corpus.inputs", lambda: self.cache.get("corpus", key, build))

    @cached_property
    def corpus(self) -> Corpus:
        return Corpus.load(self.folder)

    @property
    def report(self) -> dict[str, Any]:
        """What was read and what of it was left out; `removed.jsonl` in the folder lists what evaluation forbids."""
        sources = json.loads((self.folder / "sources.json").read_text(encoding="utf-8"))
        return {"folder": str(self.folder), "counts": dict(self.corpus.counts), "sources": sources}

    def _reserved(self, inputs: list[str]) -> dict[str, dict[str, Any]]:
        """What the corpus must not hold, by data set: settings of `_evaluation_documents`.

        All of a data set; but of one that the corpus is itself read from, only the documents that are scored.
        """
        evaluated = self.config.evaluation
        trained_on = {_place(name) for name in inputs}
        return {
            name: {
                "source": corpora.fingerprint([name]),
                "text_field": evaluated.text_field,
                "max_samples": evaluated.max_samples if _place(name) in trained_on else None,
            }
            for name in self._dataset_inputs.values()
        }

    # --- scored on

    @cached_property
    def datasets(self) -> dict[str, list[str]]:
        """What every model is scored on: the same documents, in the order of their hashes, cut to the same length."""
        evaluated = self.config.evaluation
        if not (evaluated.enabled and evaluated.bpb):
            return {}
        cut = evaluated.max_characters
        return {name: [text[:cut] for text in texts] for name, texts in self.heldout.items()}

    @property
    def names(self) -> list[str]:
        """Of the data sets, also where none is scored."""
        return list(self._dataset_inputs) or [HELDOUT]

    @cached_property
    def heldout(self) -> dict[str, list[str]]:
        """Whole documents that nothing is trained on, by data set: `evaluation.max_samples` of each."""
        return {name: list(_texts(documents)) for name, documents in self._heldout.items()}

    @cached_property
    def kinds(self) -> dict[str, list[str | None]]:
        """Of what kind each document of `heldout` is; None where its row does not say.

        Raises:
            ConfigError: no document has the field that the config names.
        """
        kinds = {name: [document.kind for document in documents] for name, documents in self._heldout.items()}
        named = self.config.evaluation.kind_field
        if named is not None and not any(kind for each in kinds.values() for kind in each):
            raise ConfigError("evaluation.kind_field", named, "a field of the held-out documents, with a word in it")
        return kinds

    @cached_property
    def _heldout(self) -> dict[str, list[corpora.Document]]:
        evaluated = self.config.evaluation
        chosen = {
            stem: self._evaluation_documents(
                name,
                source=corpora.fingerprint([name]),
                text_field=evaluated.text_field,
                max_samples=evaluated.max_samples,
            )
            for stem, name in self._dataset_inputs.items()
        }
        if not chosen:
            chosen = {HELDOUT: corpora.first_by_hash(self._corpus_heldout(), evaluated.max_samples, TEXT_OF)}
        return {name: list(documents) for name, documents in chosen.items()}

    def _corpus_heldout(self) -> Iterable[corpora.Document]:
        """The corpus's own held-out part. A corpus of an older cache does not say of what kinds its documents are."""
        heldout, path = self.corpus.heldout, self.folder / corpora.KINDS
        kinds = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else [None] * len(heldout)
        return (corpora.Document(heldout[index], kinds[index]) for index in range(len(heldout)))

    @cached_property
    def _dataset_inputs(self) -> dict[str, str]:
        """Where each of `evaluation.datasets` is read from, by the stems of their files."""
        evaluated = self.config.evaluation
        names = [embedded.locate(name, "evaluation.datasets") for name in evaluated.datasets]
        stems = [corpora.dataset_name(name) for name in names]
        if len(set(stems)) < len(stems):
            hint = f"The stems of these files are {', '.join(stems)}; rename one."
            raise ConfigError("evaluation.datasets", evaluated.datasets, "files whose stems differ", hint)
        return dict(zip(stems, names, strict=True))

    def _evaluation_documents(
        self, name: str, *, source: Any, text_field: str | None, max_samples: int | None
    ) -> Iterable[corpora.Document]:
        """Whole documents of a data set; with `max_samples` those of the smallest hashes, found once and kept."""
        kind_field = self.config.evaluation.kind_field

        def documents() -> Iterable[corpora.Document]:
            return corpora.read_with_kinds(
                [name], text_field=text_field, kind_field=kind_field, key="evaluation.datasets"
            )

        if max_samples is None:
            return documents()

        def choose() -> list[corpora.Document]:
            stream = track(documents(), f"choosing from {name}", unit="document")
            return corpora.first_by_hash(stream, max_samples, TEXT_OF)

        def build(folder: Path) -> dict[str, int]:
            chosen = self.retries.download(f"evaluation.datasets {name}", choose)
            write_json(folder / "documents.json", chosen)
            return {"documents": len(chosen)}

        key = {"source": source, "text_field": text_field, "kind_field": kind_field, "max_samples": max_samples}
        chosen = json.loads((self.cache.get("evaluation", key, build) / "documents.json").read_text(encoding="utf-8"))
        return [corpora.Document(*document) for document in chosen]


def _texts(documents: Iterable[corpora.Document]) -> Iterable[str]:
    return map(TEXT_OF, documents)


def _place(name: str) -> str:
    """One name for an input, however its path is written; a Hub data set's own."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name
