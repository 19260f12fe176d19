"""One job of train.py: from the source model to the adapted one, with every score and record on the way."""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from revocab import initialisation, reporting, stages, training
from revocab.artifacts import TokenizedCorpus
from revocab.errors import ResourceError
from revocab.findings import Findings
from revocab.kinds import by_kind
from revocab.learning import learning_curves
from revocab.runtime.files import write_json, write_text
from revocab.runtime.hardware import device_name, package_versions
from revocab.runtime.job import JobFolder
from revocab.runtime.retry import Retries, StageOutOfMemoryError, is_out_of_memory, smaller_batch
from revocab.schema import Baseline, Config, TrainerConfig
from revocab.upstream import Upstream

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
LARGE_MODEL = 1_000_000_000  # parameters


def adapt(config: Config, job: JobFolder, labels: dict[str, Any], loggers: Sequence[Any]) -> dict[str, Any]:
    """summary.json of one job. A stage without memory is tried again with a smaller micro-batch and as many more of
    them; the job then starts as after a kill: finished stages are read back, the stage goes on from its checkpoint.

    Raises:
        ResourceError: the micro-batch cannot be made smaller, or was so `pipeline.max_retries` times.
    """
    retries = Retries(config.pipeline.max_retries, config.pipeline.retry_backoff)
    while True:
        try:
            return Adaptation(config, job, labels, loggers, retries).run()
        except StageOutOfMemoryError as error:
            stage, reason, batch = error.stage, error.reason, error.batch
        smaller = smaller_batch(*batch)
        if smaller is None or not retries.left(stage):
            raise ResourceError(out_of_memory(stage, batch, config.vocab.max_seq_length, reason))
        changed = {"batch_size": smaller[0], "gradient_accumulation": smaller[1]}
        config = replace(config, vocab=replace(config.vocab, find_batch_size=False, **changed))
        free_memory()
        retries.wait(stage, reason, **changed)


def out_of_memory(stage: str, batch: tuple[int, int], length: int, reason: str) -> str:
    size, accumulation = batch
    hint = "lower vocab.max_seq_length, set vocab.gradient_checkpointing=true, or choose lora=r64"
    if size > 1:
        product = size * accumulation
        hint = f"set vocab.batch_size=1 vocab.gradient_accumulation={product}, which gives the same steps; or {hint}"
    return f"{stage}: micro-batches of {size} x {length} tokens do not fit into memory: {hint}. ({reason})"


def free_memory() -> None:
    gc.collect()  # models are full of cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def write_reports(upstream: Upstream, job: JobFolder) -> dict[str, Any]:
    """Leave `corpus.json` and `alignment_report.json`; returns the latter, with a key `terms` where there are some."""
    upstream.begin()
    write_json(job.path / "corpus.json", upstream.text.report)
    terms = upstream.tokenizers.terms
    report = {**upstream.aligned.report, **({"terms": terms} if terms else {})}
    write_json(job.path / "alignment_report.json", report)
    return report


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def bytes_per_token(tokens: TokenizedCorpus) -> float:
    """Of the training corpus, the marks between documents counted as tokens: what a step reads, in bytes."""
    return tokens.text_bytes / len(tokens.tokens)


def on_devices(trainer: TrainerConfig) -> str:
    return f", {trainer.strategy.value} on {trainer.devices} devices" if trainer.devices > 1 else ""


def without_points(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a stage; what was scored on the way stands in the learning curves."""
    return {key: value for key, value in record.items() if key != "on_the_way"}


class Adaptation:
    def __init__(
        self, config: Config, job: JobFolder, labels: dict[str, Any], loggers: Sequence[Any], retries: Retries
    ) -> None:
        self.config, self.job, self.labels, self.loggers, self.retries = config, job, labels, loggers, retries
        self.upstream = Upstream(config, retries)
        self.found = Findings()

    def run(self) -> dict[str, Any]:
        """Returns summary.json."""
        training.require_optimizer(self.config.vocab.stage2_optimizer)  # first: before hours of work, not after
        _ = self.upstream.scorer.groups  # so are the questions of a task that cannot be read
        report = write_reports(self.upstream, self.job)
        tokenizer, scorer = self.upstream.tokenizers.target, self.upstream.scorer
        model = self.initialised_model()
        if self.config.vocab.enabled:
            for settings, name in zip(self.stages(), ("stage1", "final"), strict=False):
                shared = name == "stage1" and self.config.vocab.share_stage1
                model = self.train_shared(model, settings) if shared else self.train(model, settings)
                self.found.note(name, scorer.score(model, tokenizer))
            self.found.scores.setdefault("final", self.found.scores["stage1"])  # without stage 2
        self.found.note_answers("final", scorer.answer(model, tokenizer))
        self.found.segments["adapted"] = scorer.segments(model, tokenizer)
        self.save(model)
        del model  # the baseline needs its memory
        if self.config.baseline is Baseline.source_cpt:
            self.train_source()
        summary = self.summary(report)
        write_json(self.job.path / "segments.json", self.found.segments)
        self.write_cards(summary)
        return summary

    # --- models

    def initialised_model(self) -> PreTrainedModel:
        """The source model with the target vocabulary; scored before, after, and after a probe that is thrown away."""
        model = self.upstream.models.load_source()
        if self.config.scale.name == "tiny" and model.num_parameters() > LARGE_MODEL:
            log.warning("scale=tiny is made for the embedded model; for one of this size choose scale=small or full")
        self.score_source(model)
        self.replace_vocabulary(model)
        self.score_initialised(model)
        return model

    def score_source(self, model: PreTrainedModel) -> None:
        tokenizer, origin = self.upstream.tokenizers.source, self.upstream.models.source_origin()
        self.found.note("source", self.upstream.scorer.scores(origin, tokenizer, lambda: model))
        self.found.note_answers("source", self.upstream.scorer.answers(origin, tokenizer, lambda: model))
        self.found.segments["source"] = self.upstream.scorer.segments(model, tokenizer)

    def replace_vocabulary(self, model: PreTrainedModel) -> None:
        """Give the model the tables that the alignment makes, and make sure that they can be trained."""
        facts = initialisation.replace_vocabulary(
            model,
            self.upstream.aligned.alignment,
            self.upstream.tokenizers.target,
            pad_to_multiple_of=self.config.models.pad_to_multiple_of,
        )
        log.info("Tables: %s", ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items()))
        for settings in self.stages() if self.config.vocab.enabled else ():
            training.check_stage(model, self.upstream.tokens.target, settings)
        for settings in self.runs():
            self.check_memory(model, settings, self.upstream.tokens.target)

    def initialised_origin(self) -> dict[str, Any]:
        """What decides the initialised model."""
        return self.upstream.models.source_origin() | {
            "alignment": self.upstream.aligned.folder.name,
            "padding": self.config.models.pad_to_multiple_of,
        }

    def score_initialised(self, model: PreTrainedModel) -> None:
        """Scores at once and, where the config asks for it, after the probe."""
        upstream, tokenizer, origin = self.upstream, self.upstream.tokenizers.target, self.initialised_origin()
        self.found.note("init", upstream.scorer.scores(origin, tokenizer, lambda: model))
        if self.config.vocab.probe_steps > 0:
            settings = stages.probe(self.config)
            origin |= {"probe": asdict(settings), "tokens": upstream.tokens.target_folder.name}
            scores = upstream.scorer.scores(origin, tokenizer, lambda: self.train(model, settings), undo=model)
            self.found.note("probe", scores)

    def train_source(self) -> None:
        """The baseline: the source model trained on as many bytes with its own tokenizer; jobs that agree share it."""
        upstream = self.upstream
        ratio = bytes_per_token(upstream.tokens.target) / bytes_per_token(upstream.tokens.source)
        settings = stages.source_cpt(self.config, ratio)

        def trained() -> tuple[PreTrainedModel, dict[str, Any]]:
            model = upstream.models.load_source()
            self.check_memory(model, settings, upstream.tokens.source)
            model = self.train(model, settings)
            record = self.found.records.pop(settings.name).as_dict()
            return model, record | {"bytes": round(record["tokens"] * bytes_per_token(upstream.tokens.source))}

        origin = upstream.models.source_origin() | {
            "tokens": upstream.tokens.source_folder.name,
            "source_cpt": asdict(
                replace(settings, **training.WITHOUT_CHECKPOINTS, log_every=1)
            ),  # these change no weight
            "on_the_way": self.on_the_way(),
        }
        tokenizer = upstream.tokenizers.source
        scores, answers, self.found.baseline = upstream.scorer.scores_and_record(origin, tokenizer, trained)
        self.found.note("source_cpt", scores)
        self.found.note_answers("source_cpt", answers)
        shutil.rmtree(self.stage_folder(settings.name), ignore_errors=True)  # the cache has what is needed of it

    # --- stages

    def stages(self) -> list[training.StageSettings]:
        """Stage 1, and stage 2 if it has steps."""
        second = stages.stage2(self.config, len(self.upstream.text.corpus.train))
        return [stages.stage1(self.config), *([second] if second.steps else [])]

    def runs(self) -> list[training.StageSettings]:
        """All that the initialised model is trained in, the probe first."""
        vocab = self.config.vocab
        probe = [stages.probe(self.config)] if vocab.probe_steps > 0 else []
        return [*probe, *(self.stages() if vocab.enabled else ())]

    def searches_batch(self, settings: training.StageSettings) -> bool:
        """Not for a probe: jobs share it, and it is short."""
        return self.config.vocab.find_batch_size and settings.name != "probe"

    def check_memory(self, model: PreTrainedModel, settings: training.StageSettings, tokens: TokenizedCorpus) -> None:
        if self.searches_batch(settings):  # what is found is at least a micro-batch of one
            settings = replace(settings, batch_size=1, gradient_accumulation=settings.sequences_per_step)
        hardware = stages.hardware(self.config, scratch=self.job.path / "checkpoints")
        training.check_memory(model, settings, hardware, vocabulary_size=tokens.vocabulary_size)

    def train(self, model: PreTrainedModel, settings: training.StageSettings) -> PreTrainedModel:
        """Run one stage; a probe leaves no trace but its score."""
        probe, source = settings.name == "probe", settings.name == "source_cpt"
        folder = None if probe else self.stage_folder(settings.name)
        kept = not (probe or source)  # metrics of what other jobs share would be in one of them alone
        tokens = self.upstream.tokens.source if source else self.upstream.tokens.target
        hardware = stages.hardware(self.config, scratch=self.job.path / "checkpoints")
        if self.searches_batch(settings):
            path = self.job.path / "checkpoints" / "batch_sizes.json"
            done = folder is not None and training.is_done(folder)
            settings, found = training.with_best_batch(model, tokens, settings, hardware, path=path, done=done)
            self.found.batches |= {settings.name: found} if found else {}
        tokenizer = self.upstream.tokenizers.source if source else self.upstream.tokenizers.target
        self.announce(settings)
        try:
            model, record = training.train_stage(
                model,
                tokens,
                settings,
                hardware,
                folder=folder,
                metrics_path=self.job.path / "metrics.jsonl" if kept else None,
                loggers=self.loggers if kept else (),
                heldout=None if probe else self.upstream.scorer.heldout(tokenizer),
            )
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            batch = settings.batch_size, settings.gradient_accumulation
            raise StageOutOfMemoryError(settings.name, " ".join(str(error).split())[:300], batch) from error
        if folder is not None:
            self.found.records[settings.name] = record
            self.found.resumes += [{"stage": settings.name, "step": step} for step in training.resumed_from(folder)]
        return model

    def train_shared(self, model: PreTrainedModel, settings: training.StageSettings) -> PreTrainedModel:
        """As `train`, but of jobs that train the same from the same start only one does; the others read it back."""
        hardware = stages.hardware(self.config, scratch=self.job.path)
        inputs = self.initialised_origin() | {
            "settings": settings.digest(),
            "tokens": self.upstream.tokens.target_folder.name,
            "device": [self.upstream.device, hardware.devices, hardware.strategy, hardware.kernels],
            "on_the_way": self.on_the_way(),
            "datasets": self.upstream.scorer.datasets_key() if self.config.evaluation.every_steps else None,
        }
        free_memory()  # of what scoring has used: the job that this one may wait for can be on the same GPU
        trained = training.shared_stage(
            self.upstream.cache,
            inputs,
            stage=settings.name,
            folder=self.stage_folder(settings.name),
            metrics_path=self.job.path / "metrics.jsonl",
            train=lambda: self.train(model, settings),
            loggers=self.loggers,
        )
        return trained or self.train(model, settings)

    def announce(self, settings: training.StageSettings) -> None:
        log.info(
            "%s: %s, %d steps of %d x %d x %d tokens, learning rate %g%s%s",
            settings.name, settings.kind, settings.steps, settings.gradient_accumulation, settings.batch_size,
            settings.max_seq_length, settings.learning_rate,
            f" (tables {settings.table_learning_rate:g})" if settings.table_learning_rate is not None else "",
            on_devices(self.config.trainer),
        )  # fmt: skip

    def stage_folder(self, stage: str) -> Path:
        return self.job.path / "checkpoints" / stage

    # --- what is left

    def save(self, model: PreTrainedModel) -> None:
        """Export what the config asks for."""
        tokenizer, trust = self.upstream.tokenizers.target, self.config.models.trust_remote_code
        if self.config.save_model:
            initialisation.save_model(model, tokenizer, self.job.path / "model", trust_remote_code=trust)
        if self.config.save_adapter and self.config.vocab.enabled:
            adapter = self.stage_folder("stage2") / "adapter"
            initialisation.save_adapter(model, tokenizer, adapter, self.job.path / "adapter")

    def write_cards(self, summary: Mapping[str, Any]) -> None:
        """README.md of what is saved: written last, for it holds the scores."""
        models = self.config.models
        for name in ("model", "adapter"):
            if (self.job.path / name).is_dir():
                card = reporting.model_card(
                    summary, source=models.source_model, target=models.target_tokenizer, kind=name
                )
                write_text(self.job.path / name / "README.md", card)

    def summary(self, report: Mapping[str, Any]) -> dict[str, Any]:
        found = self.found
        records = {name: without_points(record.as_dict()) for name, record in found.records.items()}
        return {
            "run_id": self.job.run_id,
            "resumes": found.resumes,
            "retries": self.retries.noted,
            "labels": self.labels,
            "scale": {"name": self.config.scale.name, "step_factor": self.config.scale.step_factor},
            "seed": self.config.seed,
            "device": device_name(self.upstream.device) + on_devices(self.config.trainer),
            "versions": package_versions(),
            "bpb": found.by_dataset("bits_per_byte"),
            "bpb_difference": found.differences(self.config.seed),
            "perplexity": found.by_dataset("perplexity"),
            "bytes_per_token": found.bytes_per_token(),
            "kinds": self.kinds(),
            "learning_curves": self.curves(),
            "alignment": {key: value for key, value in report.items() if isinstance(value, int | float)},
            "terms": self.upstream.tokenizers.terms,
            **({"batches": found.batches} if found.batches else {}),
            **records,
            **({"baseline": without_points(found.baseline)} if found.baseline else {}),
            "disk": {name: folder_bytes(self.job.path / name) for name in ("checkpoints", "model", "adapter")},
            "qa": found.qa(),
            "groups": self.upstream.scorer.groups,
            "checks": self.checks(records, report),
        }

    def on_the_way(self) -> list[int | None]:
        """Steps between scores while a model trains, and the documents of a data set that they are of."""
        evaluated = self.config.evaluation
        return [evaluated.every_steps, evaluated.curve_samples if evaluated.every_steps else None]

    def curves(self) -> dict[str, dict[str, Any]]:
        _, documents = self.on_the_way()
        ratio = bytes_per_token(self.upstream.tokens.target) if self.found.records else 0.0
        found = self.found
        return learning_curves(found.scores, found.records, ratio, found.baseline, documents)

    def kinds(self) -> dict[str, dict[str, Any]]:
        if not self.upstream.text.datasets:
            return {}
        return by_kind(self.upstream.text.kinds, self.found.scores, "final" if "final" in self.found.scores else "init")

    def checks(self, records: Mapping[str, Any], report: Mapping[str, Any]) -> list[dict[str, Any]]:
        limits = reporting.Limits(**asdict(self.config.limits), warmup_share=self.config.vocab.warmup_share)
        return reporting.checklist(
            stage1=records.get("stage1"),
            stage2=records.get("stage2"),
            metrics=reporting.read_metrics(self.job.path / "metrics.jsonl"),
            alignment=report,
            limits=limits,
        )
