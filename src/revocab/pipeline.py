"""The only place where the steps meet: align, train and evaluate, each a function of one typed configuration."""

import functools
import gc
import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import PreTrainedModel

from revocab import evaluation, initialisation, reporting, training
from revocab.artifacts import AnswerScore, StageRecord, TextScore, TokenizedCorpus
from revocab.errors import ConfigError, ResourceError
from revocab.runtime import fingerprints, seeds
from revocab.runtime.files import disk_errors, write_json, write_text
from revocab.runtime.hardware import device_name, package_versions
from revocab.runtime.job import JobFolder, read_json
from revocab.runtime.retry import Retries, StageOutOfMemoryError, is_out_of_memory, smaller_batch
from revocab.schema import Baseline, Config, NonFinite, Stage2Train, VocabConfig
from revocab.upstream import Upstream

log = logging.getLogger(__name__)
LARGE_MODEL = 1_000_000_000  # parameters


def align(config: Config, job: JobFolder, labels: dict[str, Any], resolved: dict[str, Any]) -> float:
    """Align the two vocabularies and leave `alignment_report.json`; returns the coverage.

    With `tokenization.part` it only makes this part of the shards, for a later command without; returns their number.
    """
    begin(job, resolved)
    upstream = Upstream(config)
    if config.tokenization.part is not None:
        return make_part(upstream, config.tokenization.part, config.tokenization.parts, job)
    report = write_reports(upstream, job)
    job.write_status("completed")
    for key in ("target_tokens", "exact", "aligned", "fallback", "zero_initialised"):
        log.info("%-18s %8d", key.replace("_", " "), report[key])
    log.info("%-18s %8.1f %%", "coverage", 100 * report["coverage"])
    for name, key in (("BLEU-1", "bleu1"), ("semantic score", "semantic_score"), ("held-out top-1", "heldout_top1")):
        if report[key] is not None:
            log.info("%-18s %8.3f", name, report[key])
    log.info("report: %s", job.path / "alignment_report.json")
    return float(report["coverage"])


def write_reports(upstream: Upstream, job: JobFolder) -> dict[str, Any]:
    """Leave `corpus.json` and `alignment_report.json`; returns the latter."""
    write_json(job.path / "corpus.json", upstream.corpus_report)
    report = {**upstream.alignment_report, **upstream.terms_report}
    write_json(job.path / "alignment_report.json", report)
    return report


def make_part(upstream: Upstream, part: int, parts: int, job: JobFolder) -> float:
    shards = (upstream.source_shards, upstream.target_shards)
    made = sum(each.make_all(part, parts) for each in shards)
    total = sum(len(each.borders) for each in shards)
    log.info("part %d of %d: %d of %d shards are in the cache", part, parts, made, total)
    job.write_status("completed")
    return float(made)


def evaluate(config: Config, job: JobFolder, labels: dict[str, Any], resolved: dict[str, Any]) -> float:
    """Score `models.source_model` and the models of `evaluation.models`; leave `scores.json`; returns the first BPB."""
    begin(job, resolved)
    upstream = Upstream(config)
    _ = upstream.questions  # read first: a task that cannot be read shows before the work, not after
    baseline = [config.evaluation.baseline_model] if config.evaluation.baseline_model else []
    results: dict[str, dict[str, Any]] = {}
    terms: dict[str, dict[str, Any]] = {}
    speed: dict[str, Any] = {}
    answers: dict[str, dict[str, AnswerScore]] = {}
    first_scores: dict[str, TextScore] = {}
    for name in dict.fromkeys([config.models.source_model, *config.evaluation.models, *baseline]):
        first = name == config.models.source_model
        tokenizer = upstream.source_tokenizer if first else upstream.tokenizer(name, "evaluation.models")
        gguf_file = config.models.gguf_file if first else None
        origin = {"model": fingerprints.of_model(upstream.locate(name), gguf_file)}
        model = functools.cache(functools.partial(upstream.model, name, gguf_file))
        scores = upstream.scores(origin, tokenizer, model)
        for task, score in upstream.answers(origin, tokenizer, model).items():
            answers.setdefault(task, {})[name] = score
        for dataset, score in scores.items():
            texts, compared = upstream.datasets[dataset], first_scores.get(dataset)
            row = evaluation.text_row(score, texts, first=compared, seed=config.seed)
            results.setdefault(dataset, {})[name] = row
        for dataset, row in upstream.term_compression(tokenizer).items():
            terms.setdefault(dataset, {})[name] = row
        if config.evaluation.speed_bytes and upstream.datasets:
            speed[name] = upstream.speed(model(), tokenizer)
        first_scores = first_scores or scores
    qa = {
        task: {
            name: {**evaluation.accuracies(score), "by_gold": evaluation.by_gold(score, upstream.questions[task])}
            for name, score in models.items()
        }
        for task, models in answers.items()
    }
    written = {"bpb": results, "qa": qa, "terms": terms, "speed": speed}
    write_answers(job.path / "answers.jsonl", answers)
    write_json(job.path / "scores.json", written)
    log_accuracies(qa)
    table = evaluation.scores_table(written)
    write_text(job.path / "scores.md", f"{table}\n")
    log.info("\n%s\n\nscores: %s", table, job.path / "scores.json")
    job.write_status("completed")
    bpb = next(iter(results.values()), None)
    return float(bpb[config.models.source_model]["value"]) if bpb else math.nan


def log_accuracies(qa: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    for task, models in qa.items():
        for name, row in models.items():
            log.info(
                "%s, %s: %.1f %% right (95 %%: %.1f to %.1f; guessing %.1f) of %d",
                task, name, *(100 * row[key] for key in ("accuracy", "low", "high", "chance")), row["n"],
            )  # fmt: skip


def write_answers(path: Path, answers: Mapping[str, Mapping[str, AnswerScore]]) -> None:
    """A line per question and model, with the log-likelihood of each answer; no file without questions."""
    lines = [
        json.dumps({"task": task, "model": name, **answer})
        for task, models in answers.items()
        for name, score in models.items()
        for answer in score.rows()
    ]
    if lines:
        write_text(path, "\n".join(lines) + "\n")


def train(config: Config, job: JobFolder, labels: dict[str, Any], resolved: dict[str, Any]) -> float:
    """The whole way of one job; returns the final BPB of the first held-out set.

    Raises:
        ConfigError: `tokenization.part`, which makes no alignment to train from.
    """
    if config.tokenization.part is not None:
        raise ConfigError("tokenization.part", config.tokenization.part, "null in train.py", "align.py makes parts.")
    if job.completed:
        log.info("%s is finished already; nothing to do", job.path)
        return final_bpb(read_json(job.path / "summary.json") or {})
    begin(job, resolved)
    names = {key: key.removesuffix(".enabled").split(".")[-1] for key in labels}
    log.info("Job %s: %s", job.run_id, ", ".join(f"{names[key]} {value}" for key, value in labels.items()))
    logger = reporting.make_logger(
        config.logger.kind.value,
        project=config.logger.project,
        group=config.sweep_name,
        name=job.path.name,
        tags=[config.preset],
        config=resolved,
        run_id=job.run_id,
        folder=job.path,
    )
    exit_code = 1
    try:
        summary = adapt(config, job, labels, [logger] if logger else [])
        write_json(job.path / "summary.json", summary)
        reporting.log_summary(logger, summary)
        job.write_status("completed")
        exit_code = 0
    finally:
        reporting.finish(logger, exit_code)
    return final_bpb(summary)


def begin(job: JobFolder, resolved: Mapping[str, Any]) -> None:
    """Say that the job runs, and with what."""
    with disk_errors(job.path):
        job.path.mkdir(parents=True, exist_ok=True)
        job.write_status("running")
        write_text(job.path / "config.yaml", yaml.safe_dump(dict(resolved), sort_keys=False, allow_unicode=True))


def adapt(config: Config, job: JobFolder, labels: dict[str, Any], loggers: Sequence[Any]) -> dict[str, Any]:
    """summary.json of one job. A stage without memory is tried again with a smaller micro-batch and as many more of
    them; the job then starts as after a kill: finished stages are read back, the stage goes on from its checkpoint.

    Raises:
        ResourceError: the micro-batch cannot be made smaller, or was so `pipeline.max_retries` times.
    """
    retries = Retries(config.pipeline.max_retries, config.pipeline.retry_backoff)
    batch = (config.vocab.batch_size, config.vocab.gradient_accumulation)
    while True:
        try:
            return Adaptation(config, job, labels, loggers, retries, batch).run()
        except StageOutOfMemoryError as error:
            stage, reason = error.stage, error.reason
        smaller = smaller_batch(*batch)
        if smaller is None or not retries.left(stage):
            raise ResourceError(out_of_memory(stage, batch, config.vocab.max_seq_length, reason))
        batch = smaller
        free_memory()
        retries.wait(stage, reason, batch_size=batch[0], gradient_accumulation=batch[1])


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


def final_bpb(summary: Mapping[str, Any]) -> float:
    sets = list(summary.get("bpb", {}).values())
    return float(sets[0]["final"]) if sets and sets[0].get("final") is not None else math.nan


def stage2_kind(vocab: VocabConfig) -> training.Kind:
    if vocab.stage2_train is Stage2Train.first_last:
        return "first_last"
    if not vocab.stage2_use_lora:
        return "full"
    return "lora_tables" if vocab.stage2_train is Stage2Train.body_and_tables else "lora"


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def bytes_per_token(tokens: TokenizedCorpus) -> float:
    """Of the training corpus, the marks between documents counted as tokens: what a step reads, in bytes."""
    return tokens.text_bytes / len(tokens.tokens)


class Adaptation:
    """One job of train.py: every score and record on the way from the source model to the adapted one."""

    def __init__(
        self,
        config: Config,
        job: JobFolder,
        labels: dict[str, Any],
        loggers: Sequence[Any],
        retries: Retries,
        batch: tuple[int, int],  # micro-batch and accumulation: as configured, or smaller after a lack of memory
    ) -> None:
        self.config, self.job, self.labels, self.loggers = config, job, labels, loggers
        self.retries, self.batch = retries, batch
        self.upstream = Upstream(config, retries)
        self.scores: dict[str, dict[str, TextScore]] = {}  # by stage: source, init, probe, stage1, final, source_cpt
        self.answers: dict[str, dict[str, AnswerScore]] = {}  # of the source model, and of what the job ends with
        self.records: dict[str, StageRecord] = {}
        self.baseline: dict[str, Any] = {}  # record of source_cpt, where the config asks for it
        self.resumes: list[dict[str, Any]] = []

    def run(self) -> dict[str, Any]:
        """Returns summary.json."""
        training.require_optimizer(self.config.vocab.stage2_optimizer)  # first: before hours of work, not after
        _ = self.upstream.questions  # so are the questions of a task that cannot be read
        report = write_reports(self.upstream, self.job)
        model = self.initialised_model()
        if self.config.vocab.enabled:
            for settings, name in zip(self.stages(), ("stage1", "final"), strict=True):
                model = self.train(model, settings)
                self.note(name, self.upstream.score(model, self.upstream.target_tokenizer))
        self.note_answers("final", self.upstream.answer(model, self.upstream.target_tokenizer))
        if self.config.save_model:
            initialisation.save_model(
                model,
                self.upstream.target_tokenizer,
                self.job.path / "model",
                trust_remote_code=self.config.models.trust_remote_code,
            )
        if self.config.save_adapter and self.config.vocab.enabled:
            adapter = self.stage_folder("stage2") / "adapter"
            initialisation.save_adapter(model, self.upstream.target_tokenizer, adapter, self.job.path / "adapter")
        del model  # the baseline needs its memory
        if self.config.baseline is Baseline.source_cpt:
            self.train_source()
        summary = self.summary(report)
        self.write_cards(summary)
        return summary

    def write_cards(self, summary: Mapping[str, Any]) -> None:
        """README.md of what is saved: written last, for it holds the scores."""
        for name in ("model", "adapter"):
            if (self.job.path / name).is_dir():
                models = self.config.models
                card = reporting.model_card(
                    summary, source=models.source_model, target=models.target_tokenizer, kind=name
                )
                write_text(self.job.path / name / "README.md", card)

    def initialised_model(self) -> PreTrainedModel:
        """The source model with the target vocabulary; scored before, after, and after a probe that is thrown away."""
        upstream, models = self.upstream, self.config.models
        model = upstream.model(models.source_model, models.gguf_file)
        if self.config.scale.name == "tiny" and model.num_parameters() > LARGE_MODEL:
            log.warning("scale=tiny is made for the embedded model; for one of this size choose scale=small or full")
        origin = {"model": fingerprints.of_model(upstream.locate(models.source_model), models.gguf_file)}
        self.note("source", upstream.scores(origin, upstream.source_tokenizer, lambda: model))
        self.note_answers("source", upstream.answers(origin, upstream.source_tokenizer, lambda: model))
        facts = initialisation.replace_vocabulary(
            model, upstream.alignment, upstream.target_tokenizer, pad_to_multiple_of=models.pad_to_multiple_of
        )
        log.info("Tables: %s", ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items()))
        for settings in self.stages() if self.config.vocab.enabled else ():
            training.check_stage(model, upstream.target_tokens, settings)
        origin |= {"alignment": upstream.alignment_folder.name, "padding": models.pad_to_multiple_of}
        self.note("init", upstream.scores(origin, upstream.target_tokenizer, lambda: model))
        if self.config.vocab.probe_steps > 0:
            settings = self.probe()
            origin |= {"probe": asdict(settings), "tokens": upstream.target_tokens_folder.name}
            scores = upstream.scores(origin, upstream.target_tokenizer, lambda: self.train(model, settings), undo=model)
            self.note("probe", scores)
        return model

    def train_source(self) -> None:
        """The baseline: the source model trained on as many bytes with its own tokenizer; jobs that agree share it."""
        upstream, models = self.upstream, self.config.models
        settings = self.source_cpt()

        def trained() -> tuple[PreTrainedModel, dict[str, Any]]:
            model = self.train(upstream.model(models.source_model, models.gguf_file), settings)
            record = self.records.pop(settings.name).as_dict()
            return model, record | {"bytes": round(record["tokens"] * bytes_per_token(upstream.source_tokens))}

        origin = {
            "model": fingerprints.of_model(upstream.locate(models.source_model), models.gguf_file),
            "tokens": upstream.source_tokens_folder.name,
            "source_cpt": asdict(replace(settings, checkpoint_every=0, log_every=1)),  # these change no weight
        }
        scores, self.baseline = upstream.scores_and_record(origin, upstream.source_tokenizer, trained)
        self.note("source_cpt", scores)
        shutil.rmtree(self.stage_folder(settings.name), ignore_errors=True)  # the cache has what is needed of it

    def note(self, stage: str, scores: dict[str, TextScore]) -> None:
        """Keep the scores of a stage, and say them: a job that is stopped has said what it knew."""
        self.scores[stage] = scores
        said = ", ".join(f"{name} {score.bits_per_byte:.4f}" for name, score in scores.items())
        if said:
            log.info("%-6s  %s", stage, said)

    def note_answers(self, stage: str, answers: dict[str, AnswerScore]) -> None:
        """The same for the answers."""
        self.answers[stage] = answers
        found = {task: evaluation.accuracies(score)["accuracy"] for task, score in answers.items()}
        said = ", ".join(f"{task} {100 * accuracy:.1f} %" for task, accuracy in found.items())
        if said:
            log.info("%-6s  %s right", stage, said)

    # --- stages

    def stages(self) -> tuple[training.StageSettings, training.StageSettings]:
        """Stage 1 and stage 2."""
        vocab = self.config.vocab
        return self.stage("stage1", "tables", vocab.stage1_steps, vocab.lr_stage1), self.stage2("stage2")

    def stage(self, name: str, kind: training.Kind, nominal_steps: int, learning_rate: float) -> training.StageSettings:
        """Settings of a stage at this scale."""
        vocab, trainer = self.config.vocab, self.config.trainer
        return training.StageSettings(
            name=name,
            kind=kind,
            steps=max(1, round(nominal_steps * self.config.scale.step_factor)),
            learning_rate=learning_rate,
            table_learning_rate=None,
            batch_size=self.batch[0],
            gradient_accumulation=self.batch[1],
            max_seq_length=vocab.max_seq_length,
            warmup_share=vocab.warmup_share,
            weight_decay=vocab.weight_decay,
            gradient_clip=vocab.gradient_clip,
            skip_nonfinite=vocab.nonfinite is NonFinite.skip,
            bf16=vocab.bf16,
            optimizer="adamw_torch",
            shuffle=vocab.shuffle,
            seed=seeds.derive(self.config.seed, name),
            start_document=self.offset() if name == "stage2" else 0,
            lora=self.lora() if kind in ("lora", "lora_tables") else None,
            checkpoint_every=trainer.checkpoint_every_steps,
            gradient_checkpointing=vocab.gradient_checkpointing,
            log_every=trainer.log_every_steps,
        )

    def stage2(self, name: str) -> training.StageSettings:
        """Stage 2, or what is trained like it."""
        vocab = self.config.vocab
        settings = self.stage(name, stage2_kind(vocab), vocab.stage2_steps, vocab.lr_stage2)
        return replace(settings, table_learning_rate=vocab.lr_tables, optimizer=vocab.stage2_optimizer)

    def source_cpt(self) -> training.StageSettings:
        """As stage 2, from the corpus's first document on, for the bytes of both stages."""
        vocab, factor = self.config.vocab, self.config.scale.step_factor
        settings = self.stage2("source_cpt")
        steps = sum(max(1, round(nominal * factor)) for nominal in (vocab.stage1_steps, vocab.stage2_steps))
        ratio = bytes_per_token(self.upstream.target_tokens) / bytes_per_token(self.upstream.source_tokens)
        return replace(settings, steps=max(1, round(steps * ratio)))

    def probe(self) -> training.StageSettings:
        """The same short run for every initialisation: tables only, its own cosine, no weight decay."""
        vocab = self.config.vocab
        settings = self.stage("probe", "tables", 1, vocab.probe_lr)
        return replace(settings, steps=vocab.probe_steps, weight_decay=0.0, checkpoint_every=0)

    def lora(self) -> training.LoraSettings:
        vocab = self.config.vocab
        modules = tuple(vocab.lora_target_modules)
        return training.LoraSettings(
            r=vocab.lora_r, alpha=vocab.lora_alpha, dropout=vocab.lora_dropout, target_modules=modules
        )

    def offset(self) -> int:
        """The document that stage 2 reads from: as counted, or at a smaller scale the same share of the corpus."""
        vocab, documents = self.config.vocab, len(self.upstream.corpus.train)
        if not self.config.scale.keep_offset_share:
            return vocab.train_start_idx_stage2
        return round(vocab.train_start_idx_stage2 / vocab.offset_corpus_documents * documents) % documents

    def train(self, model: PreTrainedModel, settings: training.StageSettings) -> PreTrainedModel:
        """Run one stage; a probe leaves no trace but its score."""
        probe = settings.name == "probe"
        folder = None if probe else self.stage_folder(settings.name)
        source = settings.name == "source_cpt"
        kept = not (probe or source)  # metrics of what other jobs share would be in one of them alone
        log.info(
            "%s: %s, %d steps of %d x %d x %d tokens, learning rate %g%s%s",
            settings.name, settings.kind, settings.steps, settings.gradient_accumulation, settings.batch_size,
            settings.max_seq_length, settings.learning_rate,
            f" (tables {settings.table_learning_rate:g})" if settings.table_learning_rate is not None else "",
            self.on_devices(),
        )  # fmt: skip
        try:
            model, record = training.train_stage(
                model,
                self.upstream.source_tokens if source else self.upstream.target_tokens,
                settings,
                self.hardware(),
                folder=folder,
                metrics_path=self.job.path / "metrics.jsonl" if kept else None,
                loggers=self.loggers if kept else (),
            )
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise StageOutOfMemoryError(settings.name, " ".join(str(error).split())[:300]) from error
        if folder is not None:
            self.records[settings.name] = record
            self.resumes += [{"stage": settings.name, "step": step} for step in training.resumed_from(folder)]
        return model

    def stage_folder(self, stage: str) -> Path:
        return self.job.path / "checkpoints" / stage

    def on_devices(self) -> str:
        trainer = self.config.trainer
        return f", {trainer.strategy.value} on {trainer.devices} devices" if trainer.devices > 1 else ""

    def hardware(self) -> training.Hardware:
        trainer = self.config.trainer
        return training.Hardware(
            accelerator=trainer.accelerator.value,
            devices=trainer.devices,
            strategy=trainer.strategy.value,
            num_workers=trainer.num_workers,
            scratch=self.job.path / "checkpoints",
        )

    # --- summary

    def summary(self, report: Mapping[str, Any]) -> dict[str, Any]:
        stages: dict[str, Any] = {name: record.as_dict() for name, record in self.records.items()}
        target = self.scores["init"]
        return {
            "run_id": self.job.run_id,
            "resumes": self.resumes,
            "retries": self.retries.noted,
            "labels": self.labels,
            "scale": {"name": self.config.scale.name, "step_factor": self.config.scale.step_factor},
            "seed": self.config.seed,
            "device": device_name(self.upstream.device) + self.on_devices(),
            "versions": package_versions(),
            "bpb": self.by_dataset("bits_per_byte"),
            "perplexity": self.by_dataset("perplexity"),
            "bytes_per_token": {
                name: {"source": self.scores["source"][name].bytes_per_token, "target": target[name].bytes_per_token}
                for name in self.upstream.datasets
            },
            "alignment": {key: value for key, value in report.items() if isinstance(value, int | float)},
            "terms": self.upstream.terms,
            **stages,
            **({"baseline": self.baseline} if self.baseline else {}),
            "disk": {name: folder_bytes(self.job.path / name) for name in ("checkpoints", "model", "adapter")},
            "qa": self.qa(),
            "checks": self.checks(stages, report),
        }

    def qa(self) -> dict[str, dict[str, Any]]:
        """By task the accuracy of the adapted model, and with `source_` before it that of the source model."""
        found = {}
        for task, score in self.answers["final"].items():
            source = evaluation.accuracies(self.answers["source"][task])
            before = {f"source_{name}": value for name, value in source.items() if name not in ("n", "chance")}
            found[task] = {**evaluation.accuracies(score), **before}
        return found

    def by_dataset(self, measure: str) -> dict[str, dict[str, float]]:
        return {
            name: {stage: getattr(scores[name], measure) for stage, scores in self.scores.items()}
            for name in self.upstream.datasets
        }

    def checks(self, stages: Mapping[str, Any], report: Mapping[str, Any]) -> list[dict[str, Any]]:
        limits = reporting.Limits(**asdict(self.config.limits), warmup_share=self.config.vocab.warmup_share)
        return reporting.checklist(
            stage1=stages.get("stage1"),
            stage2=stages.get("stage2"),
            metrics=reporting.read_metrics(self.job.path / "metrics.jsonl"),
            alignment=report,
            limits=limits,
        )
