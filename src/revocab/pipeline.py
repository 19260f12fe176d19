"""The only place where the steps meet: align, train and evaluate, each a function of one typed configuration."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import yaml

from revocab import comparison, reporting
from revocab.adaptation import adapt, write_reports
from revocab.errors import ConfigError
from revocab.runtime.files import disk_errors, write_json, write_text
from revocab.runtime.job import JobFolder, read_json
from revocab.schema import Config
from revocab.upstream import Upstream

log = logging.getLogger(__name__)


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


def make_part(upstream: Upstream, part: int, parts: int, job: JobFolder) -> float:
    shards = (upstream.tokens.source_shards, upstream.tokens.target_shards)
    made = sum(each.make_all(part, parts) for each in shards)
    total = sum(len(each.borders) for each in shards)
    log.info("part %d of %d: %d of %d shards are in the cache", part, parts, made, total)
    job.write_status("completed")
    return float(made)


def evaluate(config: Config, job: JobFolder, labels: dict[str, Any], resolved: dict[str, Any]) -> float:
    """Score `models.source_model` and the models of `evaluation.models`; leave `scores.json`; returns the first BPB."""
    begin(job, resolved)
    upstream = Upstream(config)
    _ = upstream.scorer.groups, upstream.harness.tasks  # first: what cannot be read shows before the work, not after
    models = comparison.compared_models(config)
    scored = {name: comparison.score_model(upstream, config, name) for name in models}
    written = comparison.write_scores(job.path, scored, upstream, config.seed)
    job.write_status("completed")
    bpb = next(iter(written["bpb"].values()), None)
    return float(bpb[config.models.source_model]["value"]) if bpb else math.nan


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


def final_bpb(summary: Mapping[str, Any]) -> float:
    sets = list(summary.get("bpb", {}).values())
    return float(sets[0]["final"]) if sets and sets[0].get("final") is not None else math.nan
