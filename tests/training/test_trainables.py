"""Exactly which parameters a stage trains, and that adapters merge into a plain model."""

import pytest
import torch

from revocab.errors import ConfigError
from revocab.training import LoraSettings
from revocab.training.trainables import prepare, training_mode

# peft asks transformers by the older of two names
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TABLES = {
    "Llama": ["model.embed_tokens.weight", "lm_head.weight"],
    "Mistral": ["model.embed_tokens.weight", "lm_head.weight"],
    "Qwen2": ["model.embed_tokens.weight", "lm_head.weight"],
    "Gemma3": ["model.embed_tokens.weight", "lm_head.weight"],
}


def trainable(module: torch.nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", [*TABLES, "GPTNeoX"])
def test_tables_and_nothing_else(family, tied, make_model, settings):
    model = make_model(family, tied=tied)
    prepared = prepare(model, settings(kind="tables"))
    tables = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    assert {id(p) for p in model.parameters() if p.requires_grad} == tables
    assert trainable(model) == set(prepared.changed)
    assert prepared.trainable_parameters == 29 * 8 * (1 if tied else 2)
    if family in TABLES:
        assert list(prepared.changed) == TABLES[family][: 1 if tied else 2]


def test_bias_of_the_head_belongs_to_its_table(make_model, settings):
    model = make_model()
    model.get_output_embeddings().bias = torch.nn.Parameter(torch.zeros(29))
    assert "lm_head.bias" in prepare(model, settings()).changed


def test_full_trains_everything(make_model, settings):
    model = make_model().requires_grad_(False)
    prepared = prepare(model, settings(kind="full"))
    assert trainable(model) == set(prepared.changed) == {name for name, _ in model.named_parameters()}


def test_lora_trains_adapters_of_the_named_layers(make_model, settings):
    lora = LoraSettings(r=2, alpha=4, dropout=0.0, target_modules=("q_proj", "down_proj"))
    prepared = prepare(make_model(), settings(kind="lora", lora=lora))
    layers = [f"model.layers.{k}.{part}" for k in range(2) for part in ("self_attn.q_proj", "mlp.down_proj")]
    assert trainable(prepared.module) == {
        f"base_model.model.{layer}.lora_{side}.default.weight" for layer in layers for side in "AB"
    }
    assert set(prepared.changed) == {f"{layer}.weight" for layer in layers}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["Llama", "Mistral", "GPTNeoX", "Gemma3", "Qwen2"])
def test_merging_keeps_logits_and_ties(family, tied, make_model, settings, lora):
    model = make_model(family, tied=tied)
    names = [name for name, _ in model.named_parameters()]
    table = model.get_input_embeddings().weight.detach().clone()
    prepared = prepare(model, settings(kind="lora", lora=lora))
    for parameter in prepared.module.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.2)
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
