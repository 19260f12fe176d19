"""Folders of jobs as train.py leaves them, with numbers that look like those of a real run."""

import json
import os
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

STAGES = ("stage1", "stage2")


@pytest.fixture
def make_job():
    return write_job


@pytest.fixture
def sweep(tmp_path):
    """A sweep of four: two finished, one failed early, one whose process is gone."""
    folder = tmp_path / "table"
    write_job(folder / "a", labels={"preset": "paper"}, quality=1.0, command="python train.py preset=paper")
    write_job(folder / "b", labels={"preset": "optimal", "vocab.lr_stage1": 2e-5}, quality=0.9, alignment="exact")
    write_job(folder / "c", labels={"preset": "best"}, state="failed", error="no space\nleft", summary=False)
    write_job(
        folder / "d", labels={"preset": "research"}, state="running", summary=False, status={"pid": dead_process()}
    )
    return folder


def dead_process():
    """The number of a process that has just ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def write_job(
    folder: Path,
    *,
    labels=None,
    state="completed",
    error=None,
    datasets=("bio.heldout",),
    quality=1.0,
    steps=60,
    seed=0,
    summary=True,
    status=None,
    alignment="mixed",
    command=None,
    tasks=(),
):
    """Write one job. quality: factor of the scores; status: fields that replace those of status.json."""
    folder.mkdir(parents=True)
    labels = {"preset": "paper", "vocab.lr_stage1": 6.4e-4, "seed": seed} | (labels or {})
    metrics = make_metrics(steps, seed)
    report = make_alignment(alignment, seed)
    fields = {"state": state, "error": error, "started": "2026-11-24T08:00:00+0000", "seconds": 61.25}
    write(folder / "status.json", fields | {"pid": os.getpid(), "host": socket.gethostname()} | (status or {}))
    (folder / "config.yaml").write_text(yaml.safe_dump(make_config(labels, command)))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics))
    write(folder / "alignment_report.json", report)
    if summary:
        write(folder / "summary.json", make_summary(labels, datasets, quality, metrics, report, seed, tasks))
    return folder


def make_config(labels, command):
    config = {"models": {"source_model": "tiny"}, "command": command}
    for key, value in labels.items():
        node = config
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return config


def make_metrics(steps, seed):
    generator = np.random.default_rng(seed)
    records = []
    for stage, start, end in (("stage1", 4.6, 3.1), ("stage2", 3.1, 2.6)):
        for step in range(1, steps + 1):
            loss = end + (start - end) * np.exp(-step / (steps / 4)) + generator.normal(0, 0.03)
            norm = 0.45 + 0.6 * np.exp(-step / 8) + generator.gamma(2, 0.02)
            records.append(
                {
                    "stage": stage,
                    "step": step,
                    "loss": float(loss),
                    "lr": float(6.4e-4 * 0.5 * (1 + np.cos(np.pi * step / steps))),
                    "grad_norm": float(norm),
                    "tokens": step * 8192,
                    "seconds": step * 0.21,
                }
            )
    return records


def make_alignment(method, seed=0):
    generator = np.random.default_rng(seed)
    words = ["liver", "protein", " kinase", " of", "ÄÖ", "\n", "<b>", "</script>"]
    counts = np.histogram(np.clip(generator.normal(0.55, 0.18, 2800), 0, 1), bins=20, range=(0, 1))
    return {
        "method": method,
        "target_tokens": 8000,
        "exact": 5000,
        "aligned": 2800,
        "fallback": 200,
        "zero_initialised": 0,
        "coverage": 0.975,
        "coverage_seen": 0.99,
        "hub_share_top100": 0.12,
        "origins": {"exact": 4996, "role": 4, "mixed": 2800, "unseen": 200},
        "similarity_histogram": {"edges": counts[1].tolist(), "counts": counts[0].tolist()},
        "heldout": {"procrustes": {"top1": 0.82, "top5": 0.93}},
        "hubs": [{"id": i, "token": word, "weight": 6.5 - i / 3, "rows": 60 - 7 * i} for i, word in enumerate(words)],
        "weakest_frequent": [
            {
                "id": i,
                "token": word,
                "count": 900 - i,
                "origin": "mixed",
                "nearest": [["the", 0.5], [" and", 0.3], ["in", 0.2]],
                "similarity": 0.1 + i / 50,
            }
            for i, word in enumerate(words)
        ],
        "frequent_without_evidence": [],
    }


def make_summary(labels, datasets, quality, metrics, report, seed, tasks):
    bpb = {"source": 1.0, "init": 1.42, "probe": 1.13, "stage1": 0.97 * quality, "final": 0.88 * quality}
    scores = {name: {k: round(v * (1 + 0.31 * i), 6) for k, v in bpb.items()} for i, name in enumerate(datasets)}
    return {
        "run_id": f"{abs(hash(json.dumps(labels))) % 16**12:012x}",
        "resumes": [],
        "labels": labels,
        "scale": {"name": "tiny", "step_factor": 0.02},
        "seed": seed,
        "device": "cpu",
        "versions": {"torch": "2.13.0"},
        "bpb": scores,
        "perplexity": {name: {k: 2 ** (4 * v) for k, v in bpb.items()} for name in datasets},
        "bytes_per_token": {name: {"source": 3.41, "target": 3.86} for name in datasets},
        "alignment": {key: value for key, value in report.items() if isinstance(value, int | float)},
        **{stage: make_record(stage, metrics) for stage in STAGES},
        "bpb_difference": {
            name: {"final": {"value": row["final"] - row["source"], "low": -0.3, "high": 0.01}}
            for name, row in scores.items()
        },
        "qa": {task: make_answers(quality) for task in tasks},
        "groups": {name: "general" if name in ("general", "arc_easy") else "domain" for name in (*datasets, *tasks)},
        "checks": [
            {"name": "stage 1 loss spikes", "value": 0, "limit": 0, "passed": True},
            {"name": "gradient norms below 1, share", "value": 0.91, "limit": 0.95, "passed": False},
            {"name": "alignment coverage", "value": 0.975, "limit": 0.95, "passed": True},
        ],
    }


def make_answers(quality):
    found = {"n": 200, "chance": 0.25}
    for prefix, accuracy in (("source_", 0.46), ("", 0.46 + (1 - quality) / 2)):
        found |= {f"{prefix}accuracy": accuracy, f"{prefix}low": accuracy - 0.07, f"{prefix}high": accuracy + 0.06}
    return found | {"difference": {"value": (1 - quality) / 2, "low": -0.02, "high": 0.081, "gained": 12, "lost": 2}}


def make_record(stage, metrics):
    loss = [record["loss"] for record in metrics if record["stage"] == stage] or [float("nan")]
    return {
        "kind": "tables" if stage == "stage1" else "full",
        "steps": len(loss),
        "tokens": len(loss) * 8192,
        "seconds": 25.4,
        "tokens_per_second": 38704.2,
        "peak_memory_bytes": 1_812_000_000,
        "trainable_parameters": 2_048_000,
        "loss_first": loss[0],
        "loss_last": loss[-1],
        "loss_max": max(loss),
        "grad_norm_max": 1.05,
        "spikes": 0,
    }


def write(path, value):
    path.write_text(json.dumps(value))
