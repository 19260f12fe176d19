"""Reading models: float32, and one-line errors within seconds."""

import json
import time

import pytest
import torch

from revocab.errors import ModelError
from revocab.initialisation import load_model, loading


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(loading, "hub_reachable", lambda: False)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_weights_come_in_float32(stored, make_model, tmp_path):
    model = make_model("Llama").to(stored)
    model.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert not loaded.training
    for name, parameter in loaded.named_parameters():
        torch.testing.assert_close(parameter, model.get_parameter(name).float(), rtol=0, atol=0)


def test_tied_tables_load_tied(make_model, tmp_path):
    make_model("Gemma", tied=True).save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))
    assert loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight


@pytest.mark.usefixtures("no_network")
def test_no_network_is_said_at_once():
    began = time.perf_counter()
    with pytest.raises(ModelError, match="nobody/nothing is not in the local Hub cache, and the Hub cannot be reached"):
        load_model("nobody/nothing")
    assert time.perf_counter() - began < 5


def test_missing_folder():
    with pytest.raises(ModelError, match=r"There is no model folder \./nowhere"):
        load_model("./nowhere")


def test_folder_without_weights(make_model, tmp_path):
    make_model("Llama").config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="holds no complete model"):
        load_model(str(tmp_path))


def test_empty_folder_is_one_line(tmp_path):
    with pytest.raises(ModelError) as error:
        load_model(str(tmp_path))
    assert "\n" not in str(error.value)


def test_encoder_is_no_causal_model(tmp_path):
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no causal language model \(it is BertForMaskedLM\)"):
        load_model(str(tmp_path))


def test_encoder_decoder_is_no_causal_model(tmp_path):
    config = {"model_type": "bart", "architectures": ["BartForConditionalGeneration"], "is_encoder_decoder": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="no causal language model"):
        load_model(str(tmp_path))


def test_unknown_architecture(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "not_a_model"}))
    with pytest.raises(ModelError, match="no causal language model that the installed transformers loads"):
        load_model(str(tmp_path))


def test_missing_gguf_file_lists_what_is_there(tmp_path):
    (tmp_path / "a.gguf").touch()
    with pytest.raises(ModelError, match=r"has no file b\.gguf \(GGUF files there: a\.gguf\)"):
        load_model(str(tmp_path), gguf_file="b.gguf")


def test_unknown_attention(make_model, tmp_path):
    make_model("Llama").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no_such_attention"):
        load_model(str(tmp_path), attention="no_such_attention")


def test_gguf_weights_are_expanded_without_a_bar_in_a_log_file(capfd):
    from transformers import modeling_gguf_pytorch_utils as gguf

    before = gguf.tqdm
    with loading._own_gguf_bar():
        assert list(gguf.tqdm(["a", "b"], desc="Converting")) == ["a", "b"]
    assert gguf.tqdm is before
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_weights_that_are_cut_off(share, make_model, tmp_path):
    make_model("Llama").save_pretrained(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match=r"A weights file of .* is damaged or cut off \(.*\)\. Copy"):
        load_model(str(tmp_path))


def test_weights_that_lack_a_tensor_are_not_drawn_at_random(make_model, tmp_path):
    model = make_model("Llama")
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("q_proj.weight")}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ModelError, match=r"lack 2 of the model's tensors, such as .*q_proj\.weight"):
        load_model(str(tmp_path))
