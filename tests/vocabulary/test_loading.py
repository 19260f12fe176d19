"""Tokenizers that load, and one line each for those that do not."""

import json
import subprocess
import sys
import time

import huggingface_hub
import pytest
import transformers

from revocab.errors import ModelError
from revocab.vocabulary import load_tokenizer, loading


@pytest.fixture
def folder(tmp_path, byte_level):
    byte_level.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def refusal(name, **options) -> str:
    start = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        load_tokenizer(str(name), **options)
    assert time.perf_counter() - start < 5
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("model_type", ["qwen2", "llama", "mistral"])
def test_a_models_folder_loads_the_tokenizer_that_is_in_it(tmp_path, sentencepiece, model_type):
    sentencepiece.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded = load_tokenizer(str(tmp_path))
    text = "the cats sit on 2024 mats, don't they"
    assert loaded(text, add_special_tokens=False).input_ids == sentencepiece(text, add_special_tokens=False).input_ids
    assert len(loaded) == len(sentencepiece)
    assert loaded.eos_token_id == sentencepiece.eos_token_id


def test_a_folder_loads_as_it_was_saved(folder, byte_level):
    loaded = load_tokenizer(str(folder))
    assert loaded.get_vocab() == byte_level.get_vocab()
    assert (loaded.bos_token, loaded.eos_token) == ("<s>", "</s>")


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend", "GPT2TokenizerFast", None])
@pytest.mark.parametrize("config", [None, {}, {"model_type": "llama"}])
def test_a_folder_loads_as_transformers_chooses(folder, name, config):
    """The plain class is loaded past `AutoTokenizer`, to the same end."""
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"tokenizer_class": name}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    loaded, expected = load_tokenizer(str(folder)), transformers.AutoTokenizer.from_pretrained(folder)
    assert type(loaded) is type(expected)
    assert loaded.backend_tokenizer.to_str() == expected.backend_tokenizer.to_str()
    assert repr(loaded) == repr(expected)
    differ = {key for key in {*vars(loaded), *vars(expected)} if repr(vars(loaded)[key]) != repr(vars(expected)[key])}
    assert differ <= {"_tokenizer", "init_kwargs"}
    told = {"local_files_only", "name_or_path"}  # how it was asked for
    kept = [
        {key: repr(value) for key, value in each.init_kwargs.items() if key not in told} for each in (loaded, expected)
    ]
    assert kept[0] == kept[1]
    assert loaded.chat_template == expected.chat_template == "{{ messages[0].content }}"


def test_a_plain_tokenizer_loads_without_the_code_of_models(folder):
    code = f"import sys; from revocab.vocabulary import load_tokenizer; load_tokenizer({str(folder)!r}); "
    code += "sys.exit('transformers.models' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_folder_that_exists_is_never_asked_of_the_hub(folder, monkeypatch, byte_level):
    monkeypatch.setattr(loading, "hub_reachable", lambda: pytest.fail("asked"))
    monkeypatch.chdir(folder.parent)
    assert len(load_tokenizer("tokenizer")) == len(byte_level)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/nothing", "a/b/c", ""])
def test_a_missing_folder_is_no_hub_name(name, monkeypatch):
    monkeypatch.setattr(loading, "hub_reachable", lambda: pytest.fail("asked"))
    assert "There is no folder" in refusal(name)


@pytest.mark.parametrize("name", ["gpt2", "nobody/nothing"])
def test_without_network_a_name_is_refused_at_once(name, monkeypatch):
    monkeypatch.setattr(loading, "hub_reachable", lambda: False)
    monkeypatch.setattr(transformers.utils.hub.constants, "HF_HUB_CACHE", "/nonexistent", raising=False)
    said = refusal(name)
    assert name in said
    assert "cannot be reached" in said
    assert "local folder" in said


def test_with_network_an_unknown_name_is_refused(monkeypatch):
    def from_pretrained(name, *, trust_remote_code, local_files_only):
        assert not trust_remote_code
        assert not local_files_only
        raise OSError(f"{name} is not a valid identifier\nlisted on the Hub")

    monkeypatch.setattr(loading, "hub_reachable", lambda: True)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", from_pretrained)
    assert "nobody/nothing cannot be loaded" in refusal("nobody/nothing")


def test_code_of_a_repository_runs_only_when_asked_for(monkeypatch, byte_level):
    def from_pretrained(name, *, trust_remote_code, local_files_only):
        if not trust_remote_code:
            raise ValueError("contains custom code; pass `trust_remote_code=True`")
        return byte_level

    monkeypatch.setattr(loading, "hub_reachable", lambda: True)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", from_pretrained)
    assert "trust_remote_code=True" in refusal("somebody/special")
    assert load_tokenizer("somebody/special", trust_remote_code=True) is byte_level


def test_raw_sentencepiece_files_are_refused(tmp_path, monkeypatch, byte_level):
    (tmp_path / "tokenizer.model").write_bytes(b"pieces")
    assert "tokenizer.model but no tokenizer.json" in refusal(tmp_path)
    monkeypatch.setattr(loading, "hub_reachable", lambda: True)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: byte_level)
    cached = {"tokenizer.model": "/cache/tokenizer.model"}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda _, file: cached.get(file))
    assert "tokenizer.model but no tokenizer.json" in refusal("mistral/like")
    cached["tokenizer.json"] = "/cache/tokenizer.json"
    assert load_tokenizer("mistral/like") is byte_level


def test_a_folder_without_tokenizer_names_the_gguf_file_in_it(tmp_path):
    assert "holds no tokenizer" in refusal(tmp_path)
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    assert "models.gguf_file=small.gguf" in refusal(tmp_path)
    assert "no file other.gguf" in refusal(tmp_path, gguf_file="other.gguf")
    assert "small.gguf" in refusal(tmp_path, gguf_file="other.gguf")


def test_a_damaged_tokenizer_is_one_line(folder):
    (folder / "tokenizer.json").write_text('{"version": "1.0"')
    assert f"The tokenizer in {folder} cannot be loaded" in refusal(folder)


@pytest.mark.slow
def test_smollm2_loads_from_its_gguf_file(smollm2):
    assert len(smollm2) == 49_152
    assert (smollm2.bos_token, smollm2.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert smollm2.decode(smollm2("naïve β-cells\n  x", add_special_tokens=False).input_ids) == "naïve β-cells\n  x"
