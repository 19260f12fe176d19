"""Exactly which parameters a stage trains, and that adapters merge into a plain model."""

import pytest
import torch
from transformers import GPTNeoXForCausalLM

from revocab.errors import ConfigError, ModelError
from revocab.training import LoraSettings
from revocab.training.trainables import prepare, training_mode

# peft asks transformers by the older of two names
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

NEOX_HEAD = "lm_head" if "lm_head.weight" in GPTNeoXForCausalLM._tied_weights_keys else "embed_out"  # by version
TABLES = {
    "Llama": ["model.embed_tokens.weight", "lm_head.weight"],
    "Mistral": ["model.embed_tokens.weight", "lm_head.weight"],
    "GPTNeoX": ["gpt_neox.embed_in.weight", f"{NEOX_HEAD}.weight"],
    "Gemma3": ["model.embed_tokens.weight", "lm_head.weight"],
    "Qwen2": ["model.embed_tokens.weight", "lm_head.weight"],
}
GATED = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
QKVO = [f"self_attn.{letter}_proj" for letter in "qkvo"]
NEOX = ["attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"]
LINEAR = {family: NEOX if family == "GPTNeoX" else [*QKVO, *GATED] for family in TABLES}
NORMS = {
    "Llama": ["input_layernorm.weight", "post_attention_layernorm.weight"],
    "Mistral": ["input_layernorm.weight", "post_attention_layernorm.weight"],
    "GPTNeoX": [f"{norm}_layernorm.{part}" for norm in ("input", "post_attention") for part in ("weight", "bias")],
    "Gemma3": [
        *("input_layernorm.weight", "post_attention_layernorm.weight"),
        *("pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight"),
        *("self_attn.q_norm.weight", "self_attn.k_norm.weight"),
    ],
    "Qwen2": ["input_layernorm.weight", "post_attention_layernorm.weight"],
}
BIASES = {family: [f"{layer}.bias" for layer in NEOX] if family == "GPTNeoX" else [] for family in TABLES}
BIASES["Qwen2"] = [f"self_attn.{letter}_proj.bias" for letter in "qkv"]
EVERY = pytest.mark.parametrize(("family", "tied"), [(family, tied) for family in TABLES for tied in (False, True)])


def tables_of(family: str, tied: bool) -> set[str]:
    return set(TABLES[family][: 1 if tied else 2])


def layer_name(family: str, number: int) -> str:
    return f"{'gpt_neox' if family == 'GPTNeoX' else 'model'}.layers.{number}"


def trainable(module: torch.nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


@EVERY
def test_tables_and_nothing_else(family, tied, make_model, settings):
    model = make_model(family, tied=tied)
    prepared = prepare(model, settings(kind="tables"))
    assert trainable(model) == set(prepared.changed) == set(prepared.tables) == tables_of(family, tied)
    assert prepared.trainable_parameters == 29 * 8 * (1 if tied else 2)


@EVERY
def test_first_last_is_both_ends_of_the_body_and_the_tables(family, tied, make_model, settings):
    model = make_model(family, tied=tied, layers=4)
    prepared = prepare(model, settings(kind="first_last"))
    parts = [*(f"{name}.weight" for name in LINEAR[family]), *BIASES[family], *NORMS[family]]
    ends = {f"{layer_name(family, number)}.{part}" for number in (0, 3) for part in parts}
    assert trainable(model) == set(prepared.changed) == ends | tables_of(family, tied)
    assert set(prepared.tables) == tables_of(family, tied)


@EVERY
def test_full_is_everything(family, tied, make_model, settings):
    model = make_model(family, tied=tied).requires_grad_(False)
    prepared = prepare(model, settings(kind="full"))
    assert trainable(model) == set(prepared.changed) == {name for name, _ in model.named_parameters()}
    assert set(prepared.tables) == tables_of(family, tied)


@EVERY
@pytest.mark.parametrize("kind", ["lora", "lora_tables"])
def test_adapters_of_every_linear_layer_and_the_tables_where_asked(kind, family, tied, make_model, settings):
    prepared = prepare(make_model(family, tied=tied), settings(kind=kind))
    layers = [f"{layer_name(family, number)}.{part}" for number in (0, 1) for part in LINEAR[family]]
    adapters = {f"base_model.model.{layer}.lora_{side}.default.weight" for layer in layers for side in "AB"}
    tables = tables_of(family, tied) if kind == "lora_tables" else set()
    assert set(prepared.tables) == {f"base_model.model.{name}" for name in tables}
    assert trainable(prepared.module) == adapters | set(prepared.tables)
    assert set(prepared.changed) == {f"{layer}.weight" for layer in layers} | tables


def test_layers_that_are_not_found(make_model, settings):
    model = make_model()
    model.config.num_hidden_layers = 7
    with pytest.raises(ModelError, match=r"layers of LlamaForCausalLM are not found: choose lora=full"):
        prepare(model, settings(kind="first_last"))


def test_bias_of_the_head_belongs_to_its_table(make_model, settings):
    model = make_model()
    model.get_output_embeddings().bias = torch.nn.Parameter(torch.zeros(29))
    assert "lm_head.bias" in prepare(model, settings()).changed


def test_lora_trains_adapters_of_the_named_layers(make_model, settings):
    lora = LoraSettings(r=2, alpha=4, dropout=0.0, target_modules=("q_proj", "down_proj"))
    prepared = prepare(make_model(), settings(kind="lora", lora=lora))
    layers = [f"model.layers.{k}.{part}" for k in range(2) for part in ("self_attn.q_proj", "mlp.down_proj")]
    assert trainable(prepared.module) == {
        f"base_model.model.{layer}.lora_{side}.default.weight" for layer in layers for side in "AB"
    }
    assert set(prepared.changed) == {f"{layer}.weight" for layer in layers}


@EVERY
@pytest.mark.parametrize("kind", ["lora", "lora_tables"])
def test_merging_keeps_logits_and_ties(kind, family, tied, make_model, settings):
    model = make_model(family, tied=tied)
    names = [name for name, _ in model.named_parameters()]
    prepared = prepare(model, settings(kind=kind))
    generator = torch.Generator().manual_seed(0)
    for parameter in prepared.module.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.2, generator=generator)
    table = model.get_input_embeddings().weight.detach().clone()  # not what it was, where it is trained
    assert torch.equal(table, make_model(family, tied=tied).get_input_embeddings().weight) is (kind == "lora")
    ids = torch.arange(12)[None]
    with torch.no_grad():
        adapted = prepared.module.eval()(input_ids=ids).logits
        plain = prepared.finish()
        torch.testing.assert_close(plain(input_ids=ids).logits, adapted, rtol=1e-4, atol=1e-5)
    assert type(plain) is type(make_model(family))
    assert [name for name, _ in plain.named_parameters()] == names
    assert (plain.get_output_embeddings().weight is plain.get_input_embeddings().weight) is tied
    assert torch.equal(plain.get_input_embeddings().weight, table)
    assert trainable(plain) == set(names)


def test_all_linear_leaves_the_output_table_out(make_model, settings, lora):
    changed = prepare(make_model("GPTNeoX"), settings(kind="lora", lora=lora)).changed
    assert {name.split(".")[-2] for name in changed} == {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}


@pytest.mark.parametrize("wanted", [("q_proj", "mlp"), ("lm_head",), ("embed_tokens",), ()])
def test_targets_that_do_not_exist_are_named(wanted, make_model, settings):
    lora = LoraSettings(r=2, alpha=4, dropout=0.0, target_modules=wanted)
    with pytest.raises(ConfigError, match=r"vocab\.lora_target_modules must be .*linear layers.*q_proj") as error:
        prepare(make_model(), settings(kind="lora", lora=lora))
    assert set(str(error.value.value).split(", ")) == (set(wanted) - {"q_proj"} or {""})


def test_adapters_start_from_the_seed_whatever_the_global_state(make_model, settings, lora):
    def first(seed: int, disturbance: int) -> torch.Tensor:
        torch.manual_seed(disturbance)
        module = prepare(make_model(), settings(kind="lora", lora=lora, seed=seed)).module
        return next(p for name, p in module.named_parameters() if "lora_A" in name)

    assert torch.equal(first(1, 0), first(1, 99))
    assert not torch.equal(first(1, 0), first(2, 0))


def test_preparing_leaves_the_global_generator_alone(make_model, settings, lora):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    prepare(make_model(), settings(kind="lora", lora=lora))
    assert torch.equal(torch.rand(1), expected)


def test_training_mode_is_undone(make_model):
    model = make_model()
    model.config.use_cache = True
    with training_mode(model, gradient_checkpointing=True):
        assert model.training
        assert model.config.use_cache is False
        assert model.is_gradient_checkpointing
    assert not model.training
    assert model.config.use_cache is True
    assert not model.is_gradient_checkpointing
