"""What a job needs before it trains: corpus, tokenized corpora, token vectors, alignment, scores of known models.

Each is made once, kept in the cache under a hash of what decides it, and shared by every job that needs the same.
"""

import itertools
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from revocab import alignment as alignments
from revocab import corpus as corpora
from revocab import evaluation, initialisation, vectors, vocabulary
from revocab.artifacts import (
    Alignment,
    AnswerScore,
    Boundaries,
    Corpus,
    TextScore,
    TokenizedCorpus,
    TokenVectors,
    Vocabulary,
)
from revocab.errors import ConfigError, ModelError
from revocab.runtime import embedded, fingerprints, seeds
from revocab.runtime.cache import Cache, digest
from revocab.runtime.files import write_json
from revocab.runtime.progress import track
from revocab.runtime.retry import Retries
from revocab.schema import Accelerator, Backend, Config
from revocab.shards import Shards
from revocab.vectors.cores import available_cores

log = logging.getLogger(__name__)
MAPPED_DOCUMENTS, MAPPED_CHARACTERS = 200, 1500  # held-out text that an alignment is scored on: at most this much
PROMPTS, PROMPT_CHARACTERS = 4, 200  # that a model writes on from where its speed is measured
HELDOUT = "heldout"  # name of the corpus's own held-out part where no evaluation.datasets are given


class Upstream:
    """Artifacts of one configuration, each made when it is first asked for."""

    def __init__(self, config: Config, retries: Retries | None = None) -> None:
        self.config = config
        self.retries = retries or Retries(config.pipeline.max_retries, config.pipeline.retry_backoff)
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("trainer.accelerator", "gpu", "cpu where torch sees no GPU", "Add trainer=cpu.")
        devices = config.trainer.devices
        if self.device == "cuda" and devices > torch.cuda.device_count():
            expected = f"at most {torch.cuda.device_count()}, the GPUs that torch sees"
            raise ConfigError("trainer.devices", devices, expected)
        self.cache = Cache(Path(config.paths.cache_dir))
        tokens = config.tokenization.cache_dir
        self.token_cache = Cache(Path(tokens)) if tokens else self.cache

    @property
    def device(self) -> str:
        return "cuda" if self.config.trainer.accelerator is Accelerator.gpu else "cpu"

    # --- models and tokenizers

    def locate(self, name: str, key: str = "models.source_model") -> str:
        return embedded.locate(name, key)

    def tokenizer(self, name: str, key: str = "models.source_model", gguf_file: str | None = None) -> Any:
        where, trust = self.locate(name, key), self.config.models.trust_remote_code

        def load() -> PreTrainedTokenizerBase:
            try:
                return vocabulary.load_tokenizer(where, gguf_file=gguf_file, trust_remote_code=trust)
            except ModelError as error:
                raise ModelError(f"{key}: {error}") from error

        return self.retries.download(f"{key} {name}", load)

    @cached_property
    def source_tokenizer(self) -> PreTrainedTokenizerBase:
        models = self.config.models
        if models.source_tokenizer is not None:
            return self.tokenizer(models.source_tokenizer, "models.source_tokenizer")
        return self.tokenizer(models.source_model, gguf_file=models.gguf_file)

    @cached_property
    def given_target_tokenizer(self) -> PreTrainedTokenizerBase:
        """As the config names it, without domain terms."""
        return self.tokenizer(self.config.models.target_tokenizer, "models.target_tokenizer")

    @cached_property
    def target_tokenizer(self) -> PreTrainedTokenizerBase:
        """What the model is moved to: the given one, with domain terms where the config asks for them."""
        if not self.config.term_mining.enabled:
            return self.given_target_tokenizer
        return vocabulary.load_tokenizer(str(self.terms_folder))

    @cached_property
    def terms_folder(self) -> Path:
        """The target tokenizer with the terms of the corpus."""
        settings = asdict(self.config.term_mining)
        settings.pop("enabled")
        given = self.given_target_tokenizer
        key = {**settings, "corpus": self.corpus_folder.name, "tokenizer": fingerprints.of_tokenizer(given)}
        return self.cache.get(
            "terms", key, lambda folder: vocabulary.add_terms(folder, self.corpus.train, given, **settings)
        )

    @cached_property
    def terms(self) -> dict[str, Any]:
        """What was mined and added, and what it saves on the held-out sets; empty without domain terms."""
        if not self.config.term_mining.enabled:
            return {}
        counts = json.loads((self.terms_folder / "terms.json").read_text(encoding="utf-8"))["counts"]
        saved = vocabulary.token_savings(
            self.given_target_tokenizer, self.target_tokenizer, self.datasets, counts["added"]
        )
        return {**counts, **saved}

    @property
    def terms_report(self) -> dict[str, Any]:
        """`terms` as a part of a report that has it only where there are terms."""
        return {"terms": self.terms} if self.terms else {}

    def model(self, name: str, gguf_file: str | None = None) -> PreTrainedModel:
        return self.retries.download(
            f"models.source_model {name}",
            lambda: initialisation.load_model(
                self.locate(name),
                gguf_file=gguf_file,
                trust_remote_code=self.config.models.trust_remote_code,
                attention="flash_attention_2" if self.config.vocab.use_flash_attn else "sdpa",
            ),
        )

    # --- text

    @cached_property
    def corpus_folder(self) -> Path:
        """The corpus without the documents that models are evaluated on."""
        settings = asdict(self.config.corpus)
        inputs = [self.locate(name, "corpus.inputs") for name in settings.pop("inputs")]
        settings["min_line_length"] = max(settings["min_line_length"], self.config.tokenization.min_line_length)
        reserved = self._reserved(inputs)
        key = {**settings, "inputs": corpora.fingerprint(inputs), "reserved": list(reserved.values())}
        if self.questions:
            key["questions"] = self._questions_digests

        def build(folder: Path) -> dict[str, int]:
            evaluated: dict[str, Iterable[str]] = {
                corpora.dataset_name(name): self._evaluation_documents(name, **reserved[name]) for name in reserved
            }
            for task, questions in self.questions.items():
                evaluated[task] = [f"{each.prompt} {each.choices[each.gold]}" for each in questions]
            return corpora.build_corpus(folder, inputs, evaluated=evaluated, **settings)

        return self.retries.download("corpus.inputs", lambda: self.cache.get("corpus", key, build))

    @cached_property
    def corpus(self) -> Corpus:
        return Corpus.load(self.corpus_folder)

    @property
    def corpus_report(self) -> dict[str, Any]:
        """What was read and what of it was left out; `removed.jsonl` in the folder lists what evaluation forbids."""
        sources = json.loads((self.corpus_folder / "sources.json").read_text(encoding="utf-8"))
        return {"folder": str(self.corpus_folder), "counts": dict(self.corpus.counts), "sources": sources}

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

    @cached_property
    def _dataset_inputs(self) -> dict[str, str]:
        """Where each of `evaluation.datasets` is read from, by the stems of their files."""
        evaluated = self.config.evaluation
        names = [self.locate(name, "evaluation.datasets") for name in evaluated.datasets]
        stems = [corpora.dataset_name(name) for name in names]
        if len(set(stems)) < len(stems):
            hint = f"The stems of these files are {', '.join(stems)}; rename one."
            raise ConfigError("evaluation.datasets", evaluated.datasets, "files whose stems differ", hint)
        return dict(zip(stems, names, strict=True))

    def _evaluation_documents(
        self, name: str, *, source: Any, text_field: str | None, max_samples: int | None
    ) -> Iterable[str]:
        """Whole documents of a data set; with `max_samples` those of the smallest hashes, found once and kept."""

        def documents() -> Iterable[str]:
            return corpora.read_documents([name], text_field=text_field, key="evaluation.datasets")

        if max_samples is None:
            return documents()

        def choose() -> list[str]:
            return corpora.first_by_hash(track(documents(), f"choosing from {name}", unit="document"), max_samples)

        def build(folder: Path) -> dict[str, int]:
            chosen = self.retries.download(f"evaluation.datasets {name}", choose)
            write_json(folder / "documents.json", chosen)
            return {"documents": len(chosen)}

        key = {"source": source, "text_field": text_field, "max_samples": max_samples}
        return json.loads((self.cache.get("evaluation", key, build) / "documents.json").read_text(encoding="utf-8"))

    @cached_property
    def datasets(self) -> dict[str, list[str]]:
        """What every model is scored on: the same documents, in the order of their hashes, cut to the same length."""
        evaluated = self.config.evaluation
        if not (evaluated.enabled and evaluated.bpb):
            return {}
        cut = evaluated.max_characters
        return {name: [text[:cut] for text in texts] for name, texts in self._heldout_documents.items()}

    @cached_property
    def _heldout_documents(self) -> dict[str, list[str]]:
        """Whole documents that nothing is trained on, by data set: `evaluation.max_samples` of each."""
        evaluated = self.config.evaluation
        chosen: dict[str, Iterable[str]] = {
            stem: self._evaluation_documents(
                name,
                source=corpora.fingerprint([name]),
                text_field=evaluated.text_field,
                max_samples=evaluated.max_samples,
            )
            for stem, name in self._dataset_inputs.items()
        }
        if not chosen:
            heldout = self.corpus.heldout
            texts = (heldout[index] for index in range(len(heldout)))
            chosen = {HELDOUT: corpora.first_by_hash(texts, evaluated.max_samples)}
        return {name: list(texts) for name, texts in chosen.items()}

    def term_compression(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """By data set: what the tokenizer makes of its terms, and of sentences with and without them."""
        return {name: vocabulary.term_compression(tokenizer, *parts) for name, parts in self._term_sentences.items()}

    @cached_property
    def _term_sentences(self) -> dict[str, tuple[list[str], list[str], list[str]]]:
        """By data set: its terms, its sentences that hold one, those that hold none."""
        top_k = self.config.evaluation.domain_terms
        found: dict[str, tuple[list[str], list[str], list[str]]] = {}
        for name, texts in self.datasets.items() if top_k else ():
            terms = vocabulary.domain_terms(texts, top_k=top_k)
            found[name] = (terms, *vocabulary.split_by_terms(texts, terms))
        return found

    # --- questions

    @cached_property
    def questions(self) -> dict[str, list[evaluation.Question]]:
        """What every model is asked, by task; empty where the config asks for none."""
        evaluated = self.config.evaluation
        if not (evaluated.enabled and evaluated.qa):
            return {}
        given = evaluated.qa_style.value
        tasks, asked = list(self._tasks()), {}
        names = [task for task, _, _ in tasks]
        if len(set(names)) < len(names):
            hint = f"They are called {', '.join(names)}; rename one."
            raise ConfigError("evaluation.tasks", evaluated.tasks, "tasks whose names differ", hint)
        for task, sources, known in tasks:
            style = given if given != "task" else known.style if known else "text"
            asked[task] = [evaluation.pose(item, style) for item in self._items(task, sources, known)]
        return asked

    @cached_property
    def _questions_digests(self) -> dict[str, str]:
        return {task: digest([asdict(each) for each in questions]) for task, questions in self.questions.items()}

    def _tasks(self) -> Iterator[tuple[str, list[str], evaluation.Task | None]]:
        """Name and sources of each task, and what is known of it; a folder stands for a task per file."""
        for name in self.config.evaluation.tasks:
            if name in evaluation.TASKS and not Path(name).exists():
                yield name, list(evaluation.TASKS[name].sources), evaluation.TASKS[name]
                continue
            place = self.locate(name, "evaluation.tasks")
            if "/" not in place and not Path(place).exists():
                known = ", ".join(evaluation.TASKS)
                raise ConfigError("evaluation.tasks", name, f"{known}, or a .jsonl file or a folder that exists")
            for source in corpora.resolve_inputs([place]):
                yield corpora.dataset_name(str(source)), [str(source)], None

    def _items(self, task: str, sources: list[str], known: evaluation.Task | None) -> list[dict[str, Any]]:
        """The questions of a task as data, read once and kept: those of the smallest hashes, or all."""
        samples = self.config.evaluation.qa_samples

        def rows() -> Iterator[Any]:
            for source in corpora.resolve_inputs(sources):
                for row in corpora.read_rows(source, key="evaluation.tasks"):
                    yield known.read(row) if known else row

        def build(folder: Path) -> dict[str, int]:
            items = track(evaluation.read_items(rows(), ", ".join(sources)), f"reading {task}", unit="question")
            lines: Iterable[str] = (json.dumps(item, ensure_ascii=False) for item in items)
            lines = list(lines) if samples is None else corpora.first_by_hash(lines, samples)
            write_json(folder / "items.json", [json.loads(line) for line in lines])
            return {"questions": len(lines)}

        key = {"task": task if known else None, "sources": corpora.fingerprint(sources), "samples": samples}
        folder = self.retries.download(f"evaluation.tasks {task}", lambda: self.cache.get("questions", key, build))
        return json.loads((folder / "items.json").read_text(encoding="utf-8"))

    # --- tokens and vectors

    def _shards(self, tokenizer: PreTrainedTokenizerBase) -> Shards:
        embedding, tokenization = self.config.embedding, self.config.tokenization
        needed = alignments.needs_vectors(self.config.alignment.method)
        counted = {Backend.cooccurrence: embedding.cooccurrence, Backend.glove: embedding.glove}.get(embedding.backend)
        return Shards(
            corpus_folder=self.corpus_folder,
            tokenizer=tokenizer,
            shard_bytes=tokenization.shard_mb * 10**6,
            window=counted.window if counted and needed else None,
            device=self.device,
            token_cache=self.token_cache,
            cache=self.cache,
            workers=tokenization.workers or available_cores(),
        )

    @cached_property
    def source_shards(self) -> Shards:
        return self._shards(self.source_tokenizer)

    @cached_property
    def target_shards(self) -> Shards:
        return self._shards(self.target_tokenizer)

    @cached_property
    def source_tokens_folder(self) -> Path:
        return self.source_shards.tokens()

    @cached_property
    def target_tokens_folder(self) -> Path:
        return self.target_shards.tokens()

    @cached_property
    def source_tokens(self) -> TokenizedCorpus:
        return TokenizedCorpus.load(self.source_tokens_folder)

    @cached_property
    def target_tokens(self) -> TokenizedCorpus:
        return TokenizedCorpus.load(self.target_tokens_folder)

    def _vectors_folder(self, shards: Shards) -> Path:
        embedding = self.config.embedding
        chosen = getattr(embedding, embedding.backend.value)
        key = {"tokens": shards.tokens().name, "backend": embedding.backend.value, "dim": embedding.dim}
        key |= {**asdict(chosen), "seed": self.config.seed}
        return self.cache.get("vectors", key, lambda folder: self._learn(shards, folder))

    def _learn(self, shards: Shards, folder: Path) -> dict[str, Any]:
        embedding, seed = self.config.embedding, seeds.derive(self.config.seed, "vectors")
        if embedding.backend is Backend.fasttext:
            chosen = embedding.fasttext
            learned = vectors.fasttext_vectors(
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
        elif embedding.backend is Backend.glove:
            settings = asdict(embedding.glove)
            settings.pop("window")  # is in the counts
            counts = vectors.PairCounts.load(shards.counts())
            learned = vectors.glove_vectors(
                counts, dim=embedding.dim, seed=seed, device=self.device, work_folder=folder, **settings
            )
        else:
            settings = asdict(embedding.cooccurrence)
            settings.pop("window")  # is in the counts
            counts = vectors.PairCounts.load(shards.counts())
            learned = vectors.cooccurrence_vectors(counts, dim=embedding.dim, seed=seed, device=self.device, **settings)
        learned.save(folder)
        return {"known": int(learned.known.sum()), "vocabulary": len(learned.counts)}

    # --- alignment

    @cached_property
    def _problem(self) -> alignments.Problem:
        source = vocabulary.read_vocabulary(self.source_tokenizer)
        target = vocabulary.read_vocabulary(self.target_tokenizer)
        learn = alignments.needs_vectors(self.config.alignment.method)
        return alignments.Problem(
            source=source,
            target=target,
            exact=vocabulary.exact_pairs(source, target),
            exact_by_string=vocabulary.exact_pairs(source, target, by="string"),
            roles=vocabulary.role_pairs(source, target),
            pieces=vocabulary.cut_into_pieces(self.source_tokenizer, source, target),
            source_vectors=TokenVectors.load(self._vectors_folder(self.source_shards)) if learn else None,
            target_vectors=TokenVectors.load(self._vectors_folder(self.target_shards)) if learn else None,
            boundaries=self._boundaries(source, target) if self.config.alignment.boundary_share else None,
            source_counts=vectors.token_counts(self.source_tokens) if self.config.alignment.frequency_shift else None,
            target_counts=vectors.token_counts(self.target_tokens),
        )

    def _boundaries(self, source: Vocabulary, target: Vocabulary) -> Boundaries:
        folders = self.source_tokens_folder, self.target_tokens_folder

        def build(folder: Path) -> dict[str, Any]:
            corpora = (TokenizedCorpus.load(tokens) for tokens in folders)
            counted = vocabulary.count_boundaries(*corpora, source, target)
            counted.save(folder)
            return {"documents": counted.documents, "documents_left_out": counted.documents_left_out}

        return Boundaries.load(self.cache.get("boundaries", {"tokens": [folder.name for folder in folders]}, build))

    @cached_property
    def alignment_folder(self) -> Path:
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
        settings = alignments.Settings(**values)
        key = {
            **{name: value for name, value in asdict(settings).items() if name not in ("device", "rows_at_once")},
            "source": fingerprints.of_tokenizer(self.source_tokenizer),
            "target": fingerprints.of_tokenizer(self.target_tokenizer),
            "target_tokens": self.target_tokens_folder.name,
        }
        if alignments.needs_vectors(chosen.method) or chosen.boundary_share or chosen.frequency_shift:
            key["source_tokens"] = self.source_tokens_folder.name
        if alignments.needs_vectors(chosen.method):
            both = (self.source_shards, self.target_shards)
            key["vectors"] = [self._vectors_folder(shards).name for shards in both]
        return self.cache.get("alignment", key, lambda folder: self._align(folder, settings))

    def _align(self, folder: Path, settings: alignments.Settings) -> dict[str, Any]:
        alignment = alignments.align(self._problem, settings)
        report = alignments.report(alignment, self._problem)
        alignment.save(folder)
        write_json(folder / "alignment_report.json", report)
        return {name: report[name] for name in ("target_tokens", "exact", "aligned", "fallback", "zero_initialised")}

    @cached_property
    def alignment(self) -> Alignment:
        return Alignment.load(self.alignment_folder)

    @cached_property
    def alignment_report(self) -> dict[str, Any]:
        """What the alignment did to tokens, and what it does to text."""
        report = json.loads((self.alignment_folder / "alignment_report.json").read_text())
        return {**report, **self._text_scores}

    @cached_property
    def _text_scores(self) -> dict[str, Any]:
        """BLEU-1 and semantic score of held-out text, an artifact of its own: other text makes no new alignment."""
        documents = itertools.chain.from_iterable(self._heldout_documents.values())
        texts = [text[:MAPPED_CHARACTERS] for text in corpora.first_by_hash(documents, MAPPED_DOCUMENTS)]
        name = self.config.alignment.semantic_model
        model = alignments.locate_sentence_model(name) if name else None
        key = {
            "alignment": self.alignment_folder.name,
            "texts": fingerprints.of_texts(texts),
            "semantic_model": fingerprints.of_model(model, None) if model else None,
        }
        folder = self.cache.get("mapped_text", key, lambda folder: self._score_text(folder, texts, model))
        return json.loads((folder / "scores.json").read_text())

    def _score_text(self, folder: Path, texts: list[str], model: str | None) -> dict[str, Any]:
        source = self.source_tokenizer
        source_ids = vocabulary.encode_texts(source, texts)
        mapped = alignments.map_documents(self.alignment, vocabulary.encode_texts(self.target_tokenizer, texts))
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

    # --- scores

    def score(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, TextScore]:
        """Score a model on every data set, in full precision."""
        evaluated, length = self.config.evaluation, context_length(model)
        return {
            name: evaluation.score_text(
                model, tokenizer, texts, max_length=length, batch_tokens=evaluated.batch_tokens, device=self.device
            )
            for name, texts in self.datasets.items()
        }

    def answer(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, AnswerScore]:
        """Ask a model the questions of every task."""
        batch_tokens, length = self.config.evaluation.batch_tokens, context_length(model)
        return {
            task: evaluation.score_answers(
                model, tokenizer, questions, max_length=length, batch_tokens=batch_tokens, device=self.device
            )
            for task, questions in self.questions.items()
        }

    def answers(
        self, origin: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, model: Callable[[], PreTrainedModel]
    ) -> dict[str, AnswerScore]:
        """As `scores`, for the answers."""
        if not self.questions:
            return {}
        key = {**origin, "tokenizer": fingerprints.of_tokenizer(tokenizer), "questions": self._questions_digests}

        def build(folder: Path) -> dict[str, Any]:
            answered = self.answer(model(), tokenizer)
            for number, score in enumerate(answered.values()):
                score.save(folder / f"{number}.npz")
            return {"accuracy": {task: evaluation.accuracies(score)["accuracy"] for task, score in answered.items()}}

        folder = self.cache.get("answers", key, build)
        return {task: AnswerScore.load(folder / f"{number}.npz") for number, task in enumerate(self.questions)}

    def scores(
        self,
        origin: Mapping[str, Any],
        tokenizer: PreTrainedTokenizerBase,
        model: Callable[[], PreTrainedModel],
        undo: PreTrainedModel | None = None,
    ) -> dict[str, TextScore]:
        """Scores of a model that jobs share, from the cache where `origin` (what made it) was scored before.

        `undo` names a model whose embedding tables `model()` changes; they are put back after the scoring.
        """
        if not self.datasets:  # nor is the model made: no probe is run for nothing
            return {}

        def build(folder: Path) -> dict[str, Any]:
            with initialisation.restored_tables(undo) if undo is not None else nullcontext():
                return self._write_scores(folder, self.score(model(), tokenizer))

        return self._read_scores(self.cache.get("scores", self._scores_key(origin, tokenizer), build))

    def scores_and_record(
        self,
        origin: Mapping[str, Any],
        tokenizer: PreTrainedTokenizerBase,
        model: Callable[[], tuple[PreTrainedModel, Mapping[str, Any]]],
    ) -> tuple[dict[str, TextScore], dict[str, Any]]:
        """As `scores`, for a model that comes with a record of how it was made, which jobs share as well."""

        def build(folder: Path) -> dict[str, Any]:
            made, record = model()
            write_json(folder / "record.json", record)
            return self._write_scores(folder, self.score(made, tokenizer))

        folder = self.cache.get("scores", self._scores_key(origin, tokenizer), build)
        return self._read_scores(folder), json.loads((folder / "record.json").read_text(encoding="utf-8"))

    def _scores_key(self, origin: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        return {
            **origin,
            "tokenizer": fingerprints.of_tokenizer(tokenizer),
            "datasets": {name: fingerprints.of_texts(texts) for name, texts in self.datasets.items()},
        }

    def _write_scores(self, folder: Path, scores: Mapping[str, TextScore]) -> dict[str, Any]:
        for number, score in enumerate(scores.values()):
            score.save(folder / f"{number}.npz")
        return {"bpb": {name: score.bits_per_byte for name, score in scores.items()}}

    def _read_scores(self, folder: Path) -> dict[str, TextScore]:
        return {name: TextScore.load(folder / f"{number}.npz") for number, name in enumerate(self.datasets)}

    def speed(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """How fast a model writes behind the first documents of the first data set."""
        texts = next(iter(self.datasets.values()))[:PROMPTS]
        return evaluation.generation_speed(
            model,
            tokenizer,
            [text[:PROMPT_CHARACTERS] for text in texts],
            num_bytes=self.config.evaluation.speed_bytes,
            max_length=context_length(model),
            device=self.device,
        )


MAX_CONTEXT = 2048  # longer contexts than any recipe here trains on


def context_length(model: PreTrainedModel) -> int:
    """Tokens that a document is scored in at a time."""
    return min(getattr(model.config, "max_position_embeddings", None) or MAX_CONTEXT, MAX_CONTEXT)


def _place(name: str) -> str:
    """One name for an input, however its path is written; a Hub data set's own."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name
