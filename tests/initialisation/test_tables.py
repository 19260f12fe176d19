"""Replacing the vocabulary: what a permutation, padding, tied tables and configs come out as."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

from revocab.artifacts import Alignment, Origin
from revocab.errors import ConfigError, ModelError
from revocab.initialisation import replace_vocabulary, tables

FAMILIES = ["Llama", "Mistral", "GPTNeoX", "Gemma", "Gemma3", "Qwen2"]


def alignment_of(weights: np.ndarray, share: np.ndarray | None = None) -> Alignment:
    targets, sources = weights.shape
    share = np.zeros(targets) if share is None else share
    return Alignment(
        weights=sparse.csr_matrix(weights.astype(np.float32)),
        background=np.full(sources, 1 / sources, dtype=np.float32),
        background_share=share.astype(np.float32),
        origin=np.full(targets, Origin.EXACT, dtype=np.int8),
        similarity=np.full(targets, np.nan, dtype=np.float32),
    )


def permutation(size: int) -> tuple[np.ndarray, Alignment]:
    """old_of_new, and the W that renames token old_of_new[t] to t."""
    old_of_new = np.random.default_rng(3).permutation(size)
    return old_of_new, alignment_of(np.eye(size)[old_of_new])


def logits(model: nn.Module, ids: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.from_numpy(ids)[None], use_cache=False).logits[0]


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_permutation_renames_tokens_and_changes_nothing_else(family, tied, make_model, make_tokenizer):
    model = make_model(family, tied=tied)
    old_of_new, alignment = permutation(24)
    new_ids = np.random.default_rng(0).integers(0, 24, 10)
    before = logits(model, old_of_new[new_ids])
    facts = replace_vocabulary(model, alignment, make_tokenizer(24))
    torch.testing.assert_close(logits(model, new_ids), before[:, old_of_new], rtol=1e-5, atol=1e-5)
    assert facts["tied"] is tied
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) is tied


@pytest.mark.parametrize("family", FAMILIES)
def test_body_is_left_alone(family, make_model, make_tokenizer):
    model = make_model(family)
    body = body_of(model)
    replace_vocabulary(model, alignment_of(np.eye(30, 24)), make_tokenizer(30))
    assert body
    assert all(torch.equal(value, body[name]) for name, value in body_of(model).items())


def body_of(model: nn.Module) -> dict[str, torch.Tensor]:
    ids = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    return {name: p.detach().clone() for name, p in model.named_parameters() if id(p) not in ids}


@pytest.mark.parametrize("tied", [False, True])
def test_tables_are_w_times_tables(tied, make_model, make_tokenizer, monkeypatch):
    """Against dense float64, with a background row, and in column blocks that do not divide the width."""
    monkeypatch.setattr(tables, "COLUMNS_AT_ONCE", 3)
    rng = np.random.default_rng(1)
    model = make_model("Llama", tied=tied)
    share = rng.random(31) * (rng.random(31) < 0.5)
    weights = rng.random((31, 24)) * (rng.random((31, 24)) < 0.2)
    dense = weights.astype(np.float32).astype(np.float64) + share.astype(np.float32)[:, None] / 24
    old = [t.weight.detach().double().numpy() for t in (model.get_input_embeddings(), model.get_output_embeddings())]
    replace_vocabulary(model, alignment_of(weights, share), make_tokenizer(31))
    new = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    for old_SD, new_TD in zip(old, new, strict=True):
        np.testing.assert_allclose(new_TD.detach().numpy(), dense @ old_SD, rtol=1e-4, atol=1e-6)


def test_output_bias_is_multiplied_too(make_model, make_tokenizer):
    model = make_model("GPTNeoX")
    head = model.get_output_embeddings()
    head.bias = nn.Parameter(torch.arange(24.0))
    old_of_new, alignment = permutation(24)
    facts = replace_vocabulary(model, alignment, make_tokenizer(24))
    assert facts["output_bias"] is True
    np.testing.assert_array_equal(head.bias.detach().numpy(), old_of_new.astype(np.float32))


def test_source_table_may_be_longer_than_its_tokenizer(make_model, make_tokenizer):
    model = make_model("Llama", rows=32)
    table = model.get_input_embeddings().weight.detach().clone()
    facts = replace_vocabulary(model, alignment_of(np.eye(20, 24)), make_tokenizer(20))
    assert (facts["source_rows"], facts["source_tokens"], facts["rows"]) == (32, 24, 20)
    torch.testing.assert_close(model.get_input_embeddings().weight.detach(), table[:20])


@pytest.mark.parametrize(("multiple", "rows"), [(1, 30), (8, 32), (30, 30), (64, 64)])
def test_padding_rows_are_recorded_zero_and_suppressed(multiple, rows, make_model, make_tokenizer):
    model = make_model("Llama")
    facts = replace_vocabulary(model, alignment_of(np.eye(30, 24)), make_tokenizer(30), pad_to_multiple_of=multiple)
    assert (facts["rows"], facts["padding_rows"]) == (rows, rows - 30)
    assert model.get_output_embeddings().weight.shape == (rows, 8)
    assert not model.get_input_embeddings().weight[30:].any()
    assert (model.generation_config.suppress_tokens or []) == list(range(30, rows))


def test_generation_never_yields_a_padding_row(make_model, make_tokenizer):
    """Zero rows give zero logits: without the suppression they would win as soon as all other logits are negative."""
    model = make_model("Llama")
    replace_vocabulary(model, alignment_of(np.eye(30, 24)), make_tokenizer(30), pad_to_multiple_of=64)
    ids = torch.tensor([[3, 4, 5]])
    torch.manual_seed(0)
    out = model.generate(ids, max_new_tokens=20, min_new_tokens=20, do_sample=True, num_return_sequences=4)
    assert int(out.max()) < 30


def test_configs_say_the_new_vocabulary(make_model, make_tokenizer):
    model = make_model("Gemma3")
    model.generation_config.eos_token_id = [2, 5]
    model.generation_config.bad_words_ids = [[3]]
    replace_vocabulary(model, alignment_of(np.eye(30, 24)), make_tokenizer(30), pad_to_multiple_of=8)
    assert (model.config.vocab_size, model.vocab_size, model.get_output_embeddings().out_features) == (32, 32, 32)
    assert model.get_input_embeddings().num_embeddings == 32
    for config in (model.config, model.generation_config):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (28, 29, None)
    assert model.generation_config.bad_words_ids is None


def test_nested_text_config_is_updated(make_tokenizer):
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    vision = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    }
    text = {
        "vocab_size": 24,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
    }
    model = Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_id=23)
    )
    replace_vocabulary(model, alignment_of(np.eye(30, 24)), make_tokenizer(30))
    assert model.config.text_config.vocab_size == 30
    assert model.config.text_config.eos_token_id == 29
    assert model.get_output_embeddings().weight.shape == (30, 8)


def test_loss_of_transformers_still_works(make_model, make_tokenizer):
    """It reads the vocabulary's size from the config or from a copy of it."""
    for family in FAMILIES:
        model = make_model(family)
        replace_vocabulary(model, alignment_of(np.eye(40, 24)), make_tokenizer(40))
        ids = torch.tensor([[1, 39, 3]])
        assert torch.isfinite(model(input_ids=ids, labels=ids).loss)


def test_padding_token_keeps_learning(make_model, make_tokenizer):
    """A tokenizer whose pad is its eos must not freeze the row of eos."""
    model = make_model("Llama")
    tokenizer = make_tokenizer(24, pad_token="</s>")
    replace_vocabulary(model, alignment_of(np.eye(24)), tokenizer)
    ids = torch.tensor([[23, 4]])
    model(input_ids=ids, labels=ids).loss.backward()
    assert model.get_input_embeddings().weight.grad[23].any()


def test_added_tokens_need_rows(make_model, make_tokenizer):
    tokenizer = make_tokenizer(24)
    tokenizer.add_tokens(["myocarditis"])
    with pytest.raises(ModelError, match="24 target tokens, the target tokenizer 25"):
        replace_vocabulary(make_model("Llama"), alignment_of(np.eye(24)), tokenizer)


def test_alignment_of_another_source_is_refused(make_model, make_tokenizer):
    with pytest.raises(ModelError, match="25 source tokens, the model's table only 24 rows"):
        replace_vocabulary(make_model("Llama"), alignment_of(np.eye(24, 25)), make_tokenizer(24))


def test_multiple_below_one_is_refused(make_model, make_tokenizer):
    with pytest.raises(ConfigError, match=r"models\.pad_to_multiple_of must be at least 1, got 0"):
        replace_vocabulary(make_model("Llama"), alignment_of(np.eye(24)), make_tokenizer(24), pad_to_multiple_of=0)


def test_a_model_without_output_table_is_refused(make_model, make_tokenizer):
    with pytest.raises(ModelError, match="LlamaModel has no input and output"):
        replace_vocabulary(make_model("Llama").model, alignment_of(np.eye(24)), make_tokenizer(24))


def test_an_alignment_with_two_matrices_fills_each_table_by_its_own(make_model, make_tokenizer):
    generator = np.random.default_rng(2)
    two = replace(
        alignment_of(generator.random((30, 24))),
        output_weights=sparse.csr_matrix(generator.random((30, 24)).astype(np.float32)),
    )
    for tied in (False, True):
        model = make_model("Llama", tied=tied)
        old_input = model.get_input_embeddings().weight.detach().clone()[:24]
        old_output = model.get_output_embeddings().weight.detach().clone()[:24]
        replace_vocabulary(model, two, make_tokenizer(30))
        into, out = torch.from_numpy(two.weights.toarray()), torch.from_numpy(two.output_weights.toarray())
        both = (into + out) / 2
        expected = (both @ old_input, both @ old_input) if tied else (into @ old_input, out @ old_output)
        torch.testing.assert_close(model.get_input_embeddings().weight.detach(), expected[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.get_output_embeddings().weight.detach(), expected[1], rtol=1e-5, atol=1e-5)
