"""Memory estimated beforehand, against what autograd keeps, what lives at the peak, and models of known size."""

import logging
import re
from dataclasses import replace

import pytest
import torch
import transformers

from revocab.errors import ResourceError
from revocab.training import Hardware, LoraSettings, check_memory
from revocab.training.loss import next_token_loss
from revocab.training.memory import Ways, estimate_memory
from revocab.training.trainables import prepare, training_mode

VOCABULARY = 500
SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": None,
}
FAMILIES = {
    "Llama": {"num_key_value_heads": 2},
    "Mistral": {"num_key_value_heads": 2},
    "GPTNeoX": {},
    "Gemma3": {"num_key_value_heads": 2, "head_dim": 32},
    "Qwen2": {"num_key_value_heads": 2},
}
LORA = LoraSettings(r=8, alpha=16, dropout=0.1, target_modules=("all-linear",))
ON_CPU = Ways(device="cpu", frozen_in_bf16=False)  # every weight in float32, products in bf16 by autocast
GPU = Hardware(accelerator="gpu", devices=1, strategy="auto", num_workers=0)
GIGABYTE = 10**9


def model_of(family, **changes):
    config = getattr(transformers, family + ("TextConfig" if family == "Gemma3" else "Config"))
    changes = {"vocab_size": VOCABULARY, **SHAPE, **FAMILIES[family], **changes}
    return getattr(transformers, family + "ForCausalLM")(config(**changes))


def settings_of(settings, kind, **changes):
    lora = {"lora": LORA} if "lora" in kind else {}
    return settings(kind=kind, **({"batch_size": 4, "max_seq_length": 128} | lora | changes))


def forward(module, bf16):
    ids = torch.randint(0, VOCABULARY, (4, 128), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return next_token_loss(module, ids, VOCABULARY)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("kind", ["tables", "full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_autograd_keeps(family, kind, bf16, settings, kept_bytes):
    chosen = settings_of(settings, kind, bf16=bf16)
    model = model_of(family)
    estimate = estimate_memory(model, chosen, vocabulary_size=VOCABULARY, ways=ON_CPU)
    module = prepare(model, chosen).module
    with training_mode(model, gradient_checkpointing=False):
        kept = kept_bytes(module, lambda: forward(module, bf16))
    # of the logits only the log-probabilities are kept, a third of what the loss takes at its peak
    assert estimate.activations + estimate.casts + estimate.logits / 3 == pytest.approx(kept, rel=0.1)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("kind", ["tables", "full", "lora"])
@pytest.mark.parametrize("family", ["Llama", "GPTNeoX", "Gemma3"])
def test_peak_of_the_second_micro_batch(family, kind, checkpointed, settings, live_tensors):
    """Gradients of the first are there by then. The lower bound must hold; the estimate may be too careful."""
    chosen = settings_of(settings, kind, gradient_checkpointing=checkpointed)
    model = model_of(family)
    estimate = estimate_memory(model, chosen, vocabulary_size=VOCABULARY, ways=ON_CPU)
    module = prepare(model, chosen).module
    with training_mode(model, gradient_checkpointing=checkpointed), live_tensors() as live:
        for _ in range(2):
            forward(module, bf16=False).backward()
    there = estimate.weights + estimate.optimiser
    assert estimate.least - there < live.peak
    assert estimate.total - there == pytest.approx(live.peak, rel=0.15)


def test_states_are_counted_exactly(settings):
    """Bytes of a tied Llama by hand: 3 layers of 128 x (128 + 64 + 64 + 128 + 3 x 320) + norms, a table of 500 rows."""
    body, table = 3 * (128 * (384 + 960) + 2 * 128) + 128, 500 * 128
    model = model_of("Llama", tie_word_embeddings=True)
    adapters = 3 * 8 * ((128 + 128) * 2 + (128 + 64) * 2 + (128 + 320) * 3)
    for kind, trained in (("tables", table), ("full", body + table), ("lora", adapters)):
        for bf16 in (False, True):
            found = estimate_memory(
                model, settings_of(settings, kind, bf16=bf16), vocabulary_size=VOCABULARY, ways=Ways()
            )
            frozen = body + table - (0 if kind == "lora" else trained)
            assert found.weights == 4 * trained + (2 if bf16 else 4) * frozen
            assert (found.gradients, found.optimiser) == (4 * trained, 8 * trained)
    low = settings_of(settings, "full", bf16=True, master_weights=False)
    found = estimate_memory(model, low, vocabulary_size=VOCABULARY, ways=Ways())
    assert (found.weights, found.gradients, found.optimiser) == tuple(n * (body + table) for n in (2, 2, 4))
    assert found.casts == 0
    eight = estimate_memory(
        model, settings_of(settings, "full", optimizer="adamw_8bit"), vocabulary_size=VOCABULARY, ways=Ways(shards=2)
    )
    assert eight.optimiser == body + table
    assert eight.weights == 2 * (body + table)


@pytest.fixture(scope="module")
def mistral_7b():
    """Mistral-7B-v0.3's shape, without memory: 7.25 billion parameters."""
    with torch.device("meta"):
        return model_of(
            "Mistral",
            vocab_size=32768,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            max_position_embeddings=32768,
            sliding_window=None,
        )


def test_7b_in_full_does_not_fit_80_gigabytes_and_lora_is_suggested(mistral_7b, settings):
    chosen = settings_of(
        settings, "full", name="stage2", bf16=True, batch_size=2, gradient_accumulation=16, max_seq_length=2048
    )
    with pytest.raises(ResourceError) as caught:
        check_memory(mistral_7b, chosen, GPU, vocabulary_size=32768, free=79 * GIGABYTE, ways=Ways())
    said = str(caught.value)
    estimate = estimate_memory(mistral_7b, chosen, vocabulary_size=32768, ways=Ways())
    assert (estimate.weights + estimate.gradients + estimate.optimiser) / GIGABYTE == pytest.approx(116, abs=0.5)
    assert said.startswith("stage2 needs about ")
    assert "weights 28.99, casts 14.23, gradients 28.99, optimiser 57.98" in said
    assert "79.00 GB are free" in said
    assert "lora=r64" in said
    without = replace(chosen, master_weights=False, gradient_checkpointing=True)
    check_memory(mistral_7b, without, GPU, vocabulary_size=32768, free=79 * GIGABYTE, ways=Ways())
    assert "\n" not in said


def test_7b_in_full_fits_an_h200_with_another_adamw_and_checkpointed_gradients(mistral_7b, settings, caplog):
    """As was measured: 111.5 GiB in micro-batches of 4 x 2048 (docs/performance.md)."""
    chosen = settings_of(settings, "full", name="stage2", bf16=True, batch_size=4, max_seq_length=2048)
    ways = Ways(fused=True, graph=True)
    check_memory(mistral_7b, chosen, GPU, vocabulary_size=32768, free=141 * GIGABYTE, ways=ways)
    (warning,) = caplog.messages
    assert warning.endswith(": vocab.stage2_optimizer=adamw_torch_fused vocab.gradient_checkpointing=true")
    changed = replace(chosen, optimizer="adamw_torch_fused", gradient_checkpointing=True)
    assert estimate_memory(mistral_7b, changed, vocabulary_size=32768, ways=ways).total < 0.9 * 141 * GIGABYTE


@pytest.mark.parametrize("kind", ["tables", "lora"])
def test_7b_stage_1_and_adapters_fit_80_gigabytes(kind, mistral_7b, settings, caplog):
    chosen = settings_of(settings, kind, bf16=True, batch_size=2, gradient_accumulation=16, max_seq_length=2048)
    found = check_memory(mistral_7b, chosen, GPU, vocabulary_size=32768, free=79 * GIGABYTE, ways=Ways())
    assert 15 * GIGABYTE < found.total < 71 * GIGABYTE
    assert not caplog.records


@pytest.mark.parametrize("kind", ["tables", "full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_suggested_would_fit(family, kind, settings, cpu):
    """Wherever the limit lies: the change named in the message, taken as said, is estimated below 90 % of it."""
    model = model_of(family, vocab_size=4000)
    chosen = settings_of(settings, kind, batch_size=8, gradient_accumulation=3)

    def estimate(changed):
        return estimate_memory(model, changed, vocabulary_size=4000, ways=Ways(device="cpu"))

    least, suggested = estimate(chosen).least, 0
    for share in (0.99, 0.8, 0.6, 0.4, 0.2, 0.05):
        free = int(share * least)
        with pytest.raises(ResourceError) as caught:
            check_memory(model, chosen, cpu, vocabulary_size=4000, free=free)
        if "Would fit" not in str(caught.value):
            assert "take a larger device" in str(caught.value)
            continue
        keys = dict(re.findall(r"(\S+)=(\w+)", str(caught.value).partition("Would fit")[2]))
        suggested += 1
        changed = replace(
            chosen,
            batch_size=int(keys.get("vocab.batch_size", 8)),
            gradient_accumulation=int(keys.get("vocab.gradient_accumulation", 3)),
            gradient_checkpointing="vocab.gradient_checkpointing" in keys,
        )
        if "lora" in keys:
            lora = replace(LORA, r=64)
            changed = replace(changed, kind="lora", lora=lora)
        assert changed.sequences_per_step == 24
        assert estimate(changed).total <= 0.9 * free
    assert suggested


def test_only_what_cannot_fit_is_refused(settings, caplog):
    model = model_of("Llama")
    chosen = settings_of(settings, "full")
    found = estimate_memory(model, chosen, vocabulary_size=VOCABULARY, ways=Ways())
    assert found.least < found.total

    def check(free):
        check_memory(model, chosen, GPU, vocabulary_size=VOCABULARY, free=free, ways=Ways())

    check(found.total * 2)
    assert not caplog.records
    check(found.least)
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    with pytest.raises(ResourceError):
        check(found.least - 1)


def test_on_a_cpu_the_models_own_bytes_count_as_free(settings, cpu, monkeypatch):
    model = model_of("Llama")
    chosen = settings_of(settings, "tables")
    own = sum(parameter.nbytes for parameter in model.parameters())
    least = estimate_memory(model, chosen, vocabulary_size=VOCABULARY, ways=Ways(device="cpu")).least
    monkeypatch.setattr("revocab.training.memory_check.free_memory_bytes", lambda device: least - own)
    check_memory(model, chosen, cpu, vocabulary_size=VOCABULARY)
    monkeypatch.setattr("revocab.training.memory_check.free_memory_bytes", lambda device: least - own - 1)
    with pytest.raises(ResourceError, match="main memory"):
        check_memory(model, chosen, cpu, vocabulary_size=VOCABULARY)
