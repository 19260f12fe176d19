"""Writing model folders: they load again with equal logits, or they are not there."""

import json

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from revocab.errors import ModelError
from revocab.initialisation import load_model, save_model, saving


def same_logits(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ids = torch.arange(10)[None]
    with torch.no_grad():
        return torch.equal(a(input_ids=ids).logits, b(input_ids=ids).logits)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["Llama", "Mistral", "GPTNeoX", "Gemma3", "Qwen2"])
def test_folder_loads_again(family, tied, make_model, make_tokenizer, tmp_path):
    model = make_model(family, tied=tied)
    save_model(model, make_tokenizer(24), tmp_path / "model")
    loaded = load_model(str(tmp_path / "model"))
    assert same_logits(model, loaded)
    assert (loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight) is tied
    assert len(PreTrainedTokenizerFast.from_pretrained(tmp_path / "model")) == 24
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"} <= names


@pytest.mark.parametrize("family", ["Llama", "Mistral", "GPTNeoX", "Gemma3"])
def test_auto_tokenizer_reads_the_new_tokenizer(family, make_model, make_tokenizer, tmp_path, caplog):
    save_model(make_model(family), make_tokenizer(24), tmp_path / "model")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert loaded.get_vocab() == make_tokenizer(24).get_vocab()
    assert loaded("w3 w5").input_ids == [3, 5]
    assert "another way" not in caplog.text


def test_auto_tokenizer_that_reads_it_differently_is_reported(make_model, make_tokenizer, tmp_path, caplog):
    """transformers gives every Qwen2 folder a Qwen2 tokenizer, whatever the folder says."""
    save_model(make_model("Qwen2"), make_tokenizer(24), tmp_path / "model")
    differs = len(AutoTokenizer.from_pretrained(tmp_path / "model")) != 24
    assert ("another way" in caplog.text) is differs


def test_new_folder_replaces_the_old_one_whole(make_model, make_tokenizer, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "stale.txt").touch()
    save_model(make_model("Llama"), make_tokenizer(24), folder)
    assert not (folder / "stale.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_failure_leaves_the_old_folder(make_model, make_tokenizer, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    save_model(make_model("Llama"), make_tokenizer(24), folder)
    before = (folder / "config.json").read_text()
    tokenizer = make_tokenizer(24)
    monkeypatch.setattr(type(tokenizer), "save_pretrained", lambda *_: (_ for _ in ()).throw(RuntimeError("no")))
    with pytest.raises(RuntimeError, match="no"):
        save_model(make_model("Qwen2"), tokenizer, folder)
    assert (folder / "config.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_generation_config_that_transformers_refuses_is_mended(make_model, make_tokenizer, tmp_path):
    model = make_model("Llama")
    model.generation_config.temperature = 0.6
    model.generation_config.do_sample = False
    save_model(model, make_tokenizer(24), tmp_path / "model")
    written = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert written["temperature"] == 0.6
    assert written["do_sample"] is True


@pytest.mark.parametrize("change", ["weights", "rows", "missing"])
def test_what_does_not_load_as_it_was_is_refused(change, make_model, make_tokenizer, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    save_model(make_model("Llama"), make_tokenizer(24), folder)
    before = (folder / "model.safetensors").read_bytes()
    model = make_model("Llama")
    other = make_model("Llama", rows=32 if change == "rows" else 24)
    if change == "weights":
        other.get_output_embeddings().weight.data[11, 3] += 1.0  # one number of one token

    def write(_, path):
        other.save_pretrained(
            path, state_dict=None if change != "missing" else dict(list(other.state_dict().items())[:-1])
        )

    monkeypatch.setattr(saving, "_write", write)
    with pytest.raises(
        ModelError,
        match=r"that was written does not load (again|as the model that was trained: logits differ by up to)",
    ):
        save_model(model, make_tokenizer(24), folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
