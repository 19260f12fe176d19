"""Speed and memory of the stages on a GPU, or several, beside the known recipe, in one run, with random weights.

    python benchmarks/gpu_training.py --shape mistral-7b --json speed.json
    python benchmarks/gpu_training.py --shape mistral-7b --devices 2 --only tables --json two.json  # beside one GPU
    python benchmarks/gpu_training.py --table docs/results/gpu_training.json  # what docs/performance.md shows

The recipe: gradient checkpointing, eager code, everything that is trained in bfloat16, adapters as peft makes them.
Needed TFLOP/s count 4 floating-point operations per frozen weight of the body and token, 6 per trained one, and what
attention needs (causal, so half of the square); what is computed twice counts once.
"""

import argparse
import gc
import itertools
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from revocab.artifacts import TokenizedCorpus
from revocab.runtime.files import write_json
from revocab.training import Hardware, LoraSettings, StageSettings, train_stage

VOCABULARY = 32_768
SHAPES = {
    "mistral-7b": (MistralForCausalLM, MistralConfig, (4096, 14336, 32, 32, 8), False, 2048),
    "llama-1b": (LlamaForCausalLM, LlamaConfig, (2048, 8192, 16, 32, 8), False, 2048),
    "smollm2-135m": (LlamaForCausalLM, LlamaConfig, (576, 1536, 30, 9, 3), True, 1024),
    "tiny": (LlamaForCausalLM, LlamaConfig, (64, 128, 2, 4, 2), True, 64),
}
LORA = LoraSettings(r=64, alpha=16, dropout=0.1, target_modules=("all-linear",))


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A row of the table."""

    kind: str  # tables | lora | full
    way: str  # recipe | ours | ours, plain kernels | ours, fp8
    batch: int  # sequences of a micro-batch
    accumulation: int = 1
    checkpointing: bool = False
    dropout: float = 0.1
    strategy: str = "auto"  # ddp | fsdp: on as many GPUs as --devices says


ARMS = {
    "mistral-7b": [
        Arm(kind="tables", way="recipe", batch=4, checkpointing=True),
        Arm(kind="tables", way="ours", batch=4),
        Arm(kind="tables", way="ours", batch=4, accumulation=4),
        Arm(kind="tables", way="ours", batch=8),
        Arm(kind="tables", way="ours", batch=1, accumulation=4),
        Arm(kind="tables", way="ours", batch=4, accumulation=4, strategy="ddp"),
        Arm(kind="tables", way="ours, fp8", batch=4),
        Arm(kind="tables", way="ours, fp8", batch=4, accumulation=4),
        Arm(kind="lora", way="recipe", batch=4, checkpointing=True),
        Arm(kind="lora", way="ours", batch=4),
        Arm(kind="lora", way="ours", batch=1, accumulation=4),
        Arm(kind="lora", way="ours", batch=4, accumulation=4, strategy="ddp"),
        Arm(kind="lora", way="ours, fp8", batch=2, accumulation=2),
        Arm(kind="full", way="recipe", batch=4, checkpointing=True),
        Arm(kind="full", way="ours", batch=4, checkpointing=True),  # 116 GB for weights, gradients, AdamW alone
        Arm(kind="full", way="ours", batch=4, strategy="fsdp"),
    ],
    "llama-1b": [
        Arm(kind="full", way="recipe", batch=4, checkpointing=True),
        Arm(kind="full", way="ours", batch=4),
        Arm(kind="full", way="ours", batch=4, strategy="ddp"),
        Arm(kind="full", way="ours", batch=4, strategy="fsdp"),
    ],
    "smollm2-135m": [
        Arm(kind="tables", way="recipe", batch=16, accumulation=2, checkpointing=True),
        Arm(kind="tables", way="ours, plain kernels", batch=32),
        Arm(kind="tables", way="ours", batch=32),
        Arm(kind="lora", way="recipe", batch=16, accumulation=2, checkpointing=True),
        Arm(kind="lora", way="ours", batch=32),
        Arm(kind="full", way="recipe", batch=16, accumulation=2, checkpointing=True),
        Arm(kind="full", way="ours", batch=32),
    ],
    "tiny": [
        Arm(kind=kind, way=way, batch=2, accumulation=2, checkpointing=way == "recipe")
        for kind in ("tables", "lora", "full")
        for way in ("recipe", "ours")
    ]
    + [Arm(kind=kind, way="ours", batch=2, accumulation=2, strategy="ddp") for kind in ("tables", "lora")],
}


def new_model(shape: str, device: str):
    """Random weights in bfloat16, made on the device."""
    kind, config_of, (hidden, intermediate, layers, heads, groups), tied, length = SHAPES[shape]
    config = config_of(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        max_position_embeddings=length,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return kind(config)
    finally:
        torch.set_default_dtype(torch.float32)


def random_corpus(tokens: int) -> TokenizedCorpus:
    """Tokens of very different frequency, so that there is something to learn."""
    random = np.random.default_rng(0)
    ids = (random.zipf(1.2, tokens) % VOCABULARY).astype(np.uint16)
    offsets = np.arange(0, tokens + 1, 512)
    return TokenizedCorpus(
        tokens=ids, offsets=offsets, vocabulary_size=VOCABULARY, text_bytes=4 * tokens, special_ids=()
    )


def settings_of(arm: Arm, steps: int, length: int, devices: int) -> StageSettings:
    """Every device computes as many micro-batches of a step as one alone would, so a step of several reads more."""
    return StageSettings(
        name="stage1" if arm.kind == "tables" else "stage2",
        kind=arm.kind,
        steps=steps,
        learning_rate=2e-4,
        table_learning_rate=None,
        batch_size=arm.batch,
        gradient_accumulation=arm.accumulation * devices,
        max_seq_length=length,
        warmup_share=0.03,
        weight_decay=0.01,
        gradient_clip=1.0,
        skip_nonfinite=False,
        bf16=True,
        fp8=arm.way.endswith("fp8"),
        optimizer="adamw_torch_fused",
        shuffle=False,
        seed=0,
        start_document=0,
        lora=replace(LORA, dropout=arm.dropout) if arm.kind == "lora" else None,
        checkpoint_every=0,
        gradient_checkpointing=arm.checkpointing,
        log_every=1,
    )


def ours(model, corpus: TokenizedCorpus, arm: Arm, steps: int, length: int, device: str, devices: int) -> dict:
    """`train_stage` as a job calls it; the first third of the steps is not timed."""
    hardware = Hardware(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=devices,
        strategy=arm.strategy,
        num_workers=0,
        kernels="plain" if "plain" in arm.way else "auto",
    )
    if arm.kind == "full":
        model.float()
    elif arm.kind == "tables":
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            table.float()
        model.tie_weights()
    if devices > 1:
        model.cpu()  # from where a job hands it over
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "metrics.jsonl"
        _, record = train_stage(
            model, corpus, settings_of(arm, steps, length, devices), hardware, folder=None, metrics_path=metrics
        )
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return {
        **speed_of([line["seconds"] for line in lines], lines[0]["tokens"]),
        "peak_gib": record.peak_memory_bytes / 2**30,
        "kernels": record.kernels,
        "losses": shown([line["loss"] for line in lines]),
        "trainable": record.trainable_parameters,
    }


def recipe(model, corpus: TokenizedCorpus, arm: Arm, steps: int, length: int, device: str, devices: int) -> dict:
    """A short loop over what transformers and peft offer as they are, on one device."""
    assert devices == 1
    from peft import LoraConfig, get_peft_model

    model.requires_grad_(arm.kind == "full")
    if arm.kind == "tables":
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            table.weight.requires_grad_(True)
    elif arm.kind == "lora":
        model = get_peft_model(
            model, LoraConfig(r=LORA.r, lora_alpha=LORA.alpha, lora_dropout=arm.dropout, target_modules="all-linear")
        )
        model.enable_input_require_grads()
    model.gradient_checkpointing_enable()
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0.01)
    size = arm.batch * length
    losses, ends = [], []
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for step in range(steps):
        for number in range(step * arm.accumulation, (step + 1) * arm.accumulation):
            ids = torch.from_numpy(corpus.tokens[number * size : (number + 1) * size].astype(np.int64))
            ids = ids.view(arm.batch, length).to(device)
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss / arm.accumulation
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach() * arm.accumulation))  # waits for the device
        ends.append(time.perf_counter())
    return {
        **speed_of(ends, arm.accumulation * size),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0,
        "kernels": "eager",
        "losses": shown(losses),
        "trainable": sum(p.numel() for p in trained),
    }


def speed_of(ends: list[float], tokens: int) -> dict:
    """From the seconds at which steps of so many tokens ended; the first third, in which all is set up, is left out.

    The median step counts, so that a step that waited for something else of the machine does not.
    """
    seconds = [after - before for before, after in itertools.pairwise(ends)][max(1, len(ends) // 3) - 1 :]
    return {
        "tokens_per_second": tokens / statistics.median(seconds),
        "step_seconds": [round(each, 4) for each in seconds],
    }


def shown(losses: list[float]) -> list[float]:
    return [losses[len(losses) * third // 3] for third in range(3)] + [losses[-1]]


def needed_flops(shape: str, arm: Arm) -> float:
    """Per token, forward and backward."""
    _, _, (hidden, intermediate, layers, heads, groups), _, length = SHAPES[shape]
    layer = hidden * (2 * hidden + 2 * hidden * groups // heads) + 3 * hidden * intermediate
    table = VOCABULARY * hidden
    per_weight = 6 if arm.kind == "full" else 4
    attention = layers * 2 * 2 * (length / 2) * hidden * 3  # two products, forward and twice that backward
    adapters = 0
    if arm.kind == "lora":
        sides = 4 * hidden + 2 * (hidden + hidden * groups // heads) + 3 * (hidden + intermediate)
        adapters = 6 * layers * LORA.r * sides
    return per_weight * layers * layer + (4 if arm.kind == "lora" else 6) * table + attention + adapters


def measure(shape: str, arm: Arm, steps: int, device: str, devices: int) -> dict:
    length = SHAPES[shape][4]
    corpus = random_corpus((steps + 1) * arm.batch * arm.accumulation * length * devices)
    run = recipe if arm.way == "recipe" else ours
    result = run(new_model(shape, device), corpus, arm, steps, length, device, devices)
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return {"shape": shape, **asdict(arm), "devices": devices, "length": length, **result}


def way_of(row: dict) -> str:
    """Of a measured row, or of an arm that failed; files of before there were several devices say nothing of them."""
    devices = row.get("devices", 1)
    return f"{row['way']}, {row['strategy']} on {devices} GPUs" if devices > 1 else row["way"]


def batch_of(row: dict) -> str:
    return f"{row['accumulation']} x {row['batch']} x {row['length']}"


def times(row: dict) -> str:
    return "–" if row["times_recipe"] is None else f"{row['times_recipe']:.2f}"


def table(rows: list[dict]) -> str:
    """Markdown of measured rows."""
    lines = [
        "| shape | trained | way | micro-batches per step | tokens/s | x recipe | TFLOP/s | peak GiB | GPU | commit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["shape"], row["kind"], way_of(row), batch_of(row), f"{row['tokens_per_second']:,.0f}", times(row)]
        cells += [f"{row['tflops']:.0f}", f"{row['peak_gib']:.1f}", row["device"], row.get("commit", "")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), default=["mistral-7b"])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--devices", type=int, default=1, help="GPUs of the arms on several; with 1 there are none")
    parser.add_argument("--only", default="", help="arms whose kind and way contain this")
    parser.add_argument("--without", default="nothing", help="not those that contain this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="show what such a file holds, and measure nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())["rows"]))
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows: list[dict] = []
    print(f"torch {torch.__version__}")
    print(f"{'shape':14}{'stage':8}{'way':26}{'batch':>12}{'tokens/s':>11}{'x recipe':>10}{'TFLOP/s':>9}{'GiB':>7}")
    for shape, arm in chosen(arguments):
        rows.append(tried(shape, arm, arguments, device, rows))
        if arguments.json:
            write_json(arguments.json, {"torch": torch.__version__, "rows": rows})


def chosen(arguments: argparse.Namespace) -> list[tuple[str, Arm]]:
    """The arms that --only, --without and --devices leave."""
    said = [
        (shape, arm, f"{arm.kind} {arm.way} {arm.batch} {arm.strategy}")
        for shape in arguments.shape
        for arm in ARMS[shape]
    ]
    return [
        (shape, arm)
        for shape, arm, words in said
        if arguments.only in words
        and arguments.without not in words
        and (arm.strategy == "auto" or arguments.devices > 1)
    ]


def tried(shape: str, arm: Arm, arguments: argparse.Namespace, device: str, before: list[dict]) -> dict:
    """Measure an arm and say what came out; one that fails is a result, and the others go on."""
    devices = 1 if arm.strategy == "auto" else arguments.devices
    try:
        row = measure(shape, arm, arguments.steps, device, devices)
    except Exception as error:
        row = {"shape": shape, **asdict(arm), "devices": devices, "error": f"{type(error).__name__}: {error}"[:400]}
        print(f"{shape:14}{arm.kind:8}{way_of(row):26} {row['error']}", flush=True)
        return row
    speed = row["tokens_per_second"]
    base = [
        each["tokens_per_second"]
        for each in [*before, row]
        if "error" not in each and (each["shape"], each["kind"], each["way"]) == (shape, arm.kind, "recipe")
    ]
    row["times_recipe"] = speed / base[0] if base else None
    row["tflops"] = speed * needed_flops(shape, arm) / 1e12
    row["device"] = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(
        f"{shape:14}{arm.kind:8}{way_of(row):26}{batch_of(row):>12}{speed:11,.0f}{times(row):>10}"
        f"{row['tflops']:9.0f}{row['peak_gib']:7.1f}  {row['kernels']}, losses "
        + " ".join(f"{loss:.3f}" for loss in row["losses"]),
        flush=True,
    )
    return row


if __name__ == "__main__":
    main()
