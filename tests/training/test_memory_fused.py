"""Memory estimated beforehand where kernels are fused: against stand-ins on the CPU, and peaks measured on an H100."""

from contextlib import contextmanager

import pytest
import torch
import transformers
from torch.nn import functional

from revocab.training import LoraSettings
from revocab.training import loss as losses
from revocab.training.adapters import fused_adapters
from revocab.training.memory import Ways, estimate_memory
from revocab.training.shared_input import shared_inputs
from revocab.training.trainables import prepare, training_mode

VOCABULARY, WIDTH, BATCH, LENGTH = 500, 128, 4, 128
LORA = LoraSettings(r=64, alpha=16, dropout=0.1, target_modules=("all-linear",))
FUSED = Ways(device="cpu", fused=True)
GIGABYTE, GIBIBYTE = 10**9, 2**30


def small_llama(**changes):
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 320,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**(shape | changes)))


# --- what the loss takes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tables", "lora"])
@pytest.mark.parametrize("tokens", [512, 400, 256, 150, 60])
def test_pieces_of_logits(tokens, kind, settings, live_tensors, monkeypatch):
    """One piece; a second, smaller or as large, made beside the first; pieces smaller than what they add."""
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", tokens * VOCABULARY)
    monkeypatch.setattr(losses, "_cross_entropy_in_place", lambda *_: None)
    lora = LORA if kind == "lora" else None
    chosen = settings(kind=kind, batch_size=BATCH, max_seq_length=LENGTH, lora=lora)
    model = small_llama()
    estimate = estimate_memory(model, chosen, vocabulary_size=VOCABULARY, ways=FUSED)
    hidden = torch.zeros(BATCH * LENGTH, WIDTH, requires_grad=True)
    labels = torch.zeros(BATCH * LENGTH, dtype=torch.long)
    table = model.lm_head.weight.requires_grad_(kind == "tables")
    with live_tensors() as live:
        losses.LinearCrossEntropy.apply(hidden, table, VOCABULARY, labels, len(labels), None)
    assert estimate.logits - hidden.nbytes == pytest.approx(live.peak, rel=0.01)


# --- what autograd keeps ---------------------------------------------------------------------------------------------


class Norm(torch.autograd.Function):
    """Keeps its input and a number a row, as liger-kernel's RMSNorm."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        scale = torch.rsqrt(x.pow(2).mean(-1) + eps)
        ctx.save_for_backward(x, weight, scale)
        return x * scale.unsqueeze(-1) * weight

    @staticmethod
    def backward(ctx, *grads):
        raise NotImplementedError


class Gated(torch.autograd.Function):
    """Keeps both factors, as liger-kernel's SwiGLU."""

    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return functional.silu(gate) * up

    @staticmethod
    def backward(ctx, *grads):
        raise NotImplementedError


def put_stand_ins(model):
    for part in model.modules():
        if type(part).__name__ == "LlamaRMSNorm":
            part.forward = lambda x, part=part: Norm.apply(x, part.weight, part.variance_epsilon)
        if type(part).__name__ == "LlamaMLP":
            part.forward = lambda x, part=part: part.down_proj(Gated.apply(part.gate_proj(x), part.up_proj(x)))


@contextmanager
def fused(model, module):
    put_stand_ins(model)
    with fused_adapters(module), shared_inputs(module), training_mode(model, gradient_checkpointing=False):
        yield


@pytest.mark.parametrize("kind", ["tables", "full", "lora", "lora_tables"])
@pytest.mark.parametrize("tied", [False, True])
def test_what_fused_kernels_keep(tied, kind, settings, kept_bytes, monkeypatch):
    monkeypatch.setattr(losses, "_cross_entropy_in_place", lambda *_: None)
    lora = LORA if "lora" in kind else None
    chosen = settings(kind=kind, batch_size=BATCH, max_seq_length=LENGTH, lora=lora)
    model = small_llama(tie_word_embeddings=tied)
    estimate = estimate_memory(model, chosen, vocabulary_size=VOCABULARY, ways=FUSED)
    module = prepare(model, chosen).module
    ids = torch.zeros(BATCH, LENGTH, dtype=torch.long)
    with fused(model, module):
        kept = kept_bytes(module, lambda: losses.fused_next_token_loss(module, ids, VOCABULARY))
    gradients = 4 * WIDTH * (BATCH * LENGTH + (0 if kind == "lora" else VOCABULARY))  # of hidden states and table
    assert estimate.activations + estimate.casts + gradients == pytest.approx(kept, rel=0.02)


# --- what was measured -----------------------------------------------------------------------------------------------

SHAPES = {
    "smollm2": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "mistral-7b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
ON_HOPPER = Ways(fused=True, graph=True)


def estimate_of(shape, rows, settings, *, ways=ON_HOPPER, **changes):
    with torch.device("meta"):
        model = small_llama(vocab_size=rows, max_position_embeddings=2048, **SHAPES[shape])
    lora = LORA if changes["kind"] == "lora" else None
    chosen = settings(bf16=True, lora=lora, **changes)
    return estimate_memory(model, chosen, vocabulary_size=rows, ways=ways)


@pytest.mark.parametrize(
    ("kind", "batch", "checkpointed", "measured"),
    [
        ("tables", 4, False, 2.623),
        ("tables", 16, False, 7.592),
        ("tables", 4, True, 1.461),
        ("tables", 16, True, 2.600),
        ("full", 4, False, 4.173),
        ("full", 16, False, 11.121),
        ("full", 4, True, 2.997),
        ("full", 16, True, 4.127),
        ("lora", 4, False, 3.887),
        ("lora", 16, False, 13.034),
        ("lora", 4, True, 1.208),
    ],
)
def test_peaks_on_an_h200(kind, batch, checkpointed, measured, settings):
    """In GB, rows of benchmarks/memory.py at commits fb395a7 and 6fa7cb5 (docs/performance.md)."""
    found = estimate_of(
        "smollm2",
        49152,
        settings,
        kind=kind,
        steps=3,
        batch_size=batch,
        gradient_accumulation=2,
        max_seq_length=1024,
        gradient_checkpointing=checkpointed,
    )
    assert found.peak / GIGABYTE == pytest.approx(measured, rel=0.06)
    assert found.least / GIGABYTE < measured
    assert found.peak <= found.total


@pytest.mark.parametrize(
    ("shape", "kind", "batch", "length", "checkpointed", "measured"),
    [
        ("smollm2", "tables", 32, 1024, False, 12.295),
        ("smollm2", "full", 32, 1024, False, 18.056),
        ("smollm2", "lora", 32, 1024, False, 22.530),
        ("mistral-7b", "tables", 4, 2048, False, 39.629),
        ("mistral-7b", "lora", 4, 2048, False, 59.3),
        ("mistral-7b", "full", 4, 2048, True, 111.5),
    ],
)
def test_peaks_of_speed_measurements(shape, kind, batch, length, checkpointed, measured, settings):
    """In GiB, rows of docs/results/gpu_training.json (commits 2d87dc1, 468c04d and fb395a7)."""
    chosen = {"kind": kind, "batch_size": batch, "max_seq_length": length, "gradient_checkpointing": checkpointed}
    found = estimate_of(shape, 32768, settings, optimizer="adamw_torch_fused", **chosen)
    assert found.peak / GIBIBYTE == pytest.approx(measured, rel=0.02)
    assert found.least / GIBIBYTE < measured


def test_with_a_graph_states_come_on_top(settings):
    """What the graph has set aside is of no use to the optimiser; .grad is needed only where gradients are added."""
    common = {"kind": "full", "batch_size": 4, "max_seq_length": 1024}
    several, one = (estimate_of("smollm2", 49152, settings, gradient_accumulation=n, **common) for n in (2, 1))
    eager = estimate_of("smollm2", 49152, settings, ways=Ways(fused=True), **common)
    square_roots = several.optimiser // 2
    assert several.total - several.workspace == eager.total - eager.workspace + square_roots
    assert eager.peak == eager.total
    tiny = {"kind": "full", "batch_size": 1, "max_seq_length": 8}
    several, one = (estimate_of("smollm2", 49152, settings, gradient_accumulation=n, **tiny) for n in (2, 1))
    assert several.peak - one.peak == several.gradients


def test_a_stage_of_one_step_never_holds_moments_beside_activations(settings):
    common = {"kind": "full", "batch_size": 4, "max_seq_length": 1024, "ways": Ways(fused=True)}
    one, several = (estimate_of("smollm2", 49152, settings, steps=n, **common) for n in (1, 2))
    assert one.least < several.least < several.total
    assert one.least >= one.weights + one.gradients + one.optimiser
