"""Memory estimated before training against the peak that training then reaches, on random weights.

    python benchmarks/memory.py --device cuda --output memory.json     # SmolLM2-135M's shape, under a minute on an H100
    python benchmarks/memory.py --device cpu --tiny                    # a small shape; resident memory of new processes

Three optimiser steps of two micro-batches by `train_stage` itself: what is estimated is what a job would do. On CUDA
the peak is torch's, of allocated tensors, and what it has reserved stands in the file too. On the CPU it is the growth
of a process's resident memory, which also holds what allocator and libraries keep: a check of the order, not of the
percent. What was there before training is not counted. A row that fails is said, and the next one is measured.
"""

import argparse
import gc
import multiprocessing
from dataclasses import asdict
from itertools import product
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from revocab.artifacts import TokenizedCorpus
from revocab.errors import ResourceError
from revocab.runtime.files import write_json
from revocab.runtime.hardware import device_name, git_commit, peak_memory_bytes
from revocab.training import Hardware, LoraSettings, StageSettings, train_stage
from revocab.training.memory import estimate_memory, ways_of

SMOLLM2 = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
TINY = SMOLLM2 | {"vocab_size": 8192, "num_hidden_layers": 6}
LORA = LoraSettings(r=64, alpha=16, dropout=0.1, target_modules=("all-linear",))
GIGABYTE = 10**9


def settings_of(kind: str, batch_size: int, length: int, *, bf16: bool, checkpointed: bool) -> StageSettings:
    return StageSettings(
        name="stage1" if kind == "tables" else "stage2",
        kind=kind,
        steps=3,
        learning_rate=1e-4,
        table_learning_rate=None,
        batch_size=batch_size,
        gradient_accumulation=2,
        max_seq_length=length,
        warmup_share=0.0,
        weight_decay=0.01,
        gradient_clip=1.0,
        skip_nonfinite=False,
        bf16=bf16,
        optimizer="adamw_torch",
        shuffle=False,
        seed=0,
        start_document=0,
        lora=LORA if kind == "lora" else None,
        checkpoint_every=0,
        gradient_checkpointing=checkpointed,
        log_every=1,
    )


def random_corpus(vocabulary_size: int, tokens: int) -> TokenizedCorpus:
    ids = np.random.default_rng(0).integers(0, vocabulary_size, tokens).astype(np.uint16)
    return TokenizedCorpus(
        tokens=ids,
        offsets=np.arange(0, tokens + 1, 100),
        vocabulary_size=vocabulary_size,
        text_bytes=4 * tokens,
        special_ids=(),
    )


def measure(shape: dict, settings: StageSettings, device: str, send) -> None:
    """Send the estimate's parts and the measured peak of one stage, all in bytes."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**shape))
    size = settings.steps * settings.sequences_per_step * settings.max_seq_length
    corpus = random_corpus(shape["vocab_size"], size)
    hardware = Hardware(accelerator="gpu" if device == "cuda" else "cpu", devices=1, strategy="auto", num_workers=0)
    estimate = estimate_memory(model, settings, vocabulary_size=shape["vocab_size"], ways=ways_of(hardware, model))
    weights = sum(parameter.nbytes for parameter in model.parameters())
    before = torch.cuda.memory_allocated() if device == "cuda" else peak_memory_bytes("cpu") - weights
    _, record = train_stage(model, corpus, settings, hardware, folder=None, metrics_path=None)
    found = {"measured": record.peak_memory_bytes - before, "before": before, "kernels": record.kernels}
    if device == "cuda":
        found["reserved"] = torch.cuda.max_memory_reserved()
    send(
        {
            **asdict(estimate),
            "total": estimate.total,
            "largest": max(estimate.parts.items(), key=itemgetter(1)),
            **found,
        }
    )


def measure_row(shape: dict, settings: StageSettings, device: str) -> dict:
    """What `measure` sends, or why there is nothing: on CUDA for want of memory, on the CPU whatever ends a process."""
    if device == "cpu":
        return measure_apart(shape, settings)
    found: list[dict] = []
    try:
        measure(shape, settings, device, found.append)
    except (torch.OutOfMemoryError, ResourceError) as error:
        found.append({"failed": str(error).splitlines()[0]})
    gc.collect()  # only here, where the error no longer holds the tensors
    torch.cuda.empty_cache()
    return found[0]


def measure_apart(shape: dict, settings: StageSettings) -> dict:
    """In a process of its own: on the CPU a peak cannot be reset."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(shape, settings, "cpu", sender.send))
    process.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        found = None
    process.join()
    return found or {"failed": f"the process ended with exit code {process.exitcode}"}


def line_of(row: dict) -> str:
    """A row of the table; in GB."""
    start = f"{row['kind']:8} {row['batch_size']:5} {row['checkpointed']!s:12}  "
    if "failed" in row:
        return f"{start}failed: {row['failed']}"
    peak, measured, least = row["peak"], row["measured"], row["least"]
    name, size = row["largest"]
    return (
        f"{start}{peak / GIGABYTE:11.2f}  {measured / GIGABYTE:11.2f}  {peak / measured:5.2f}  "
        f"{least / measured:11.2f}  {row['before'] / GIGABYTE:6.2f}  {name} {size / GIGABYTE:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--tiny", action="store_true", help="6 layers and 8,192 tokens instead of SmolLM2's 30 and 49,152"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--kinds", nargs="+", default=["tables", "full", "lora"])
    parser.add_argument("--fp32", action="store_true")
    parser.add_argument("--output", type=Path, help="a JSON file")
    arguments = parser.parse_args()
    shape = (TINY if arguments.tiny else SMOLLM2) | {"max_position_embeddings": arguments.length}
    facts = {"commit": git_commit(), "device": device_name(arguments.device), "torch": torch.__version__}
    facts["length"] = arguments.length
    rows = []
    print("kind     batch checkpointed  estimate GB  measured GB  ratio  lower bound  before  largest part")
    for kind, checkpointed, batch in product(arguments.kinds, (False, True), arguments.batches):
        settings = settings_of(kind, batch, arguments.length, bf16=not arguments.fp32, checkpointed=checkpointed)
        found = measure_row(shape, settings, arguments.device)
        rows.append({"kind": kind, "batch_size": batch, "checkpointed": checkpointed, **found})
        print(line_of(rows[-1]), flush=True)
        if arguments.output:
            write_json(arguments.output, {**facts, "rows": rows})


if __name__ == "__main__":
    main()
