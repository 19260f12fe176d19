"""On real tokenizers and a real model: the move from Mistral v1 to v3 only renames ids; a GGUF model can be trained."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from revocab import alignment, vocabulary
from revocab.initialisation import load_model, replace_vocabulary, save_model

TEXTS = [
    "Acute myocarditis is an inflammation of the heart muscle; troponin T was 1.43 ng/mL.",
    "def f(x):\n    return x ** 2  # spaces\n\nNaïve café, 東京, 😀.",
    "A sulfonamide that is 4-aminobenzenesulfonamide substituted by a thiazol-2-yl group.",
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tokenizers():
    if "REVOCAB_DATA" not in os.environ:
        pytest.skip("REVOCAB_DATA names no folder with tokenizers/mistral_v1 and mistral_v3")
    folder = Path(os.environ["REVOCAB_DATA"]) / "tokenizers"
    return [vocabulary.load_tokenizer(str(folder / name)) for name in ("mistral_v1", "mistral_v3")]


@pytest.mark.parametrize("tied", [False, True])
def test_id_shift_leaves_logits_as_they_are(tied, tokenizers):
    """id in v3 = id in v1 + 768 for ids of 3 and above, segmentation is the same: so must be the logits."""
    source_tokenizer, target_tokenizer = tokenizers
    source, target = (vocabulary.read_vocabulary(tokenizer) for tokenizer in tokenizers)
    problem = alignment.Problem(
        source=source,
        target=target,
        exact=vocabulary.exact_pairs(source, target),
        exact_by_string=vocabulary.exact_pairs(source, target, by="string"),
        roles=vocabulary.role_pairs(source, target),
        pieces=vocabulary.cut_into_pieces(source_tokenizer, source, target),
        source_vectors=None,
        target_vectors=None,
    )
    made = alignment.align(problem, settings_of("exact"))
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=32000,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
    )
    model = MistralForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    before = [logits_of(model, source_tokenizer(text).input_ids) for text in TEXTS]
    facts = replace_vocabulary(model, made, target_tokenizer)
    assert (facts["rows"], facts["source_tokens"]) == (32768, 32000)
    for text, old in zip(TEXTS, before, strict=True):
        ids = target_tokenizer(text).input_ids
        assert [i - 768 if i >= 3 else i for i in ids] == source_tokenizer(text).input_ids
        new = logits_of(model, ids)
        torch.testing.assert_close(new[:, 771:], old[:, 3:], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(new[:, :3], old[:, :3], rtol=1e-5, atol=1e-5)


def logits_of(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]


def settings_of(method: str) -> alignment.Settings:
    return alignment.Settings(
        method=method,
        similarity="cosine",
        similarity_threshold=None,
        fallback="mean",
        pivot_count=300,
        top_k=10,
        csls_neighbours=10,
        temperature=0.1,
        subtoken_share=0.5,
        min_count=5,
        seed=0,
        heldout_pairs=0,
        device="cpu",
        rows_at_once=1024,
    )


def test_gguf_model_loads_trains_and_saves(tmp_path):
    if "REVOCAB_SMOLLM2" not in os.environ:
        pytest.skip("REVOCAB_SMOLLM2 names no GGUF file")
    path = Path(os.environ["REVOCAB_SMOLLM2"])
    model = load_model(str(path.parent), gguf_file=path.name)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    ids = torch.tensor([[504, 2365, 282, 4649, 314, 7042]])
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    assert np.isfinite(loss.item())
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0
    tokenizer = vocabulary.load_tokenizer(str(path.parent), gguf_file=path.name)
    save_model(model, tokenizer, tmp_path / "model")
    loaded = load_model(str(tmp_path / "model"))
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
