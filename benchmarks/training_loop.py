"""Speed of a stage on the CPU beside a plain PyTorch loop that does the same steps, in one run.

    OMP_NUM_THREADS=2 python benchmarks/training_loop.py

Both train the tied table of a Llama of 2 million parameters: same sequences, AdamW, clipping, schedule. They take
turns, and the best round of each counts, since other work on the machine only ever slows one down. On a busy machine
look at the processor seconds.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from revocab.artifacts import TokenizedCorpus
from revocab.training import Hardware, StageSettings, train_stage
from revocab.training.optimisation import learning_rate_factor, warmup_steps

VOCABULARY = 4096
CPU = Hardware(accelerator="cpu", devices=1, strategy="auto", num_workers=0)


def settings_of(steps: int) -> StageSettings:
    return StageSettings(
        name="stage1",
        kind="tables",
        steps=steps,
        learning_rate=2e-3,
        table_learning_rate=None,
        batch_size=2,
        gradient_accumulation=2,
        max_seq_length=64,
        warmup_share=0.03,
        weight_decay=0.01,
        gradient_clip=1.0,
        skip_nonfinite=False,
        bf16=False,
        optimizer="adamw_torch",
        shuffle=False,
        seed=0,
        start_document=0,
        lora=None,
        checkpoint_every=5,
        gradient_checkpointing=False,
        log_every=1,
    )


def small_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=160,
        intermediate_size=416,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=5,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def random_corpus() -> TokenizedCorpus:
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, 400_000).astype(np.uint16)
    offsets = np.arange(0, len(tokens) + 1, 200)
    return TokenizedCorpus(
        tokens=tokens, offsets=offsets, vocabulary_size=VOCABULARY, text_bytes=4 * len(tokens), special_ids=()
    )


def plain_loop(model: LlamaForCausalLM, corpus: TokenizedCorpus, settings: StageSettings) -> tuple[float, float]:
    """Seconds and last loss of the shortest loop that makes the same steps."""
    model.train().requires_grad_(False)
    table = model.get_input_embeddings().weight.requires_grad_(True)
    optimiser = torch.optim.AdamW([table], lr=settings.learning_rate, weight_decay=settings.weight_decay)
    shape = (settings.gradient_accumulation, settings.batch_size, settings.max_seq_length)
    size, loss_of_step = int(np.prod(shape)), 0.0
    began = time.perf_counter()
    for step in range(settings.steps):
        batch = torch.from_numpy(corpus.tokens[step * size : (step + 1) * size].astype(np.int64)).view(shape)
        factor = learning_rate_factor(step, steps=settings.steps, warmup=warmup_steps(settings))
        optimiser.param_groups[0]["lr"] = settings.learning_rate * factor
        optimiser.zero_grad()
        loss_of_step = 0.0
        for ids in batch:
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss / settings.gradient_accumulation
            loss.backward()
            loss_of_step += loss.item()
        torch.nn.utils.clip_grad_norm_([table], settings.gradient_clip)
        optimiser.step()
    return time.perf_counter() - began, loss_of_step


def stage(model: LlamaForCausalLM, corpus: TokenizedCorpus, settings: StageSettings) -> tuple[float, float]:
    """Seconds of the whole call, set-up, checkpoints and result included, and the last loss."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        path = Path(folder)
        _, record = train_stage(model, corpus, settings, CPU, folder=path / "s", metrics_path=path / "metrics.jsonl")
        return time.perf_counter() - began, record.loss_last  # the mean over the last tenth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    corpus, settings = random_corpus(), settings_of(arguments.steps)
    plain_loop(small_model(), corpus, settings_of(2))
    stage(small_model(), corpus, settings_of(2))
    seconds: dict[str, list[float]] = {"plain": [], "stage": []}
    processor: dict[str, list[float]] = {"plain": [], "stage": []}
    for number in range(arguments.rounds):
        for name, train in (("plain", plain_loop), ("stage", stage)):
            model = small_model()
            before = time.process_time()
            took, loss = train(model, corpus, settings)
            processor[name].append(time.process_time() - before)
            seconds[name].append(took)
            print(
                f"round {number + 1}  {name}  {took:6.2f} s, {processor[name][-1]:6.2f} s of processors, "
                f"last loss {loss:.4f}",
                flush=True,
            )
    plain, ours = min(seconds["plain"]), min(seconds["stage"])
    tokens = settings.steps * settings.sequences_per_step * settings.max_seq_length
    parameters = sum(parameter.numel() for parameter in small_model().parameters())
    print(f"{parameters:,} parameters, {torch.get_num_threads()} threads, {tokens:,} tokens")
    print(f"plain loop {tokens / plain:,.0f} tokens/s, stage {tokens / ours:,.0f} tokens/s, ratio {ours / plain:.3f}")
    print(f"ratio of processor seconds {min(processor['stage']) / min(processor['plain']):.3f}")


if __name__ == "__main__":
    main()
