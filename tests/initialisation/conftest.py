"""Small random models of five families, and tokenizers made in memory."""

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

ROWS = 24
SHAPE = {
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FAMILIES = {
    "Llama": {"num_key_value_heads": 1},
    "Mistral": {"num_key_value_heads": 1},
    "GPTNeoX": {},
    "Gemma": {"num_key_value_heads": 1, "head_dim": 4},
    "Gemma3": {"num_key_value_heads": 1, "head_dim": 4},
    "Qwen2": {"num_key_value_heads": 1},
}


@pytest.fixture
def make_model():
    """make_model(family, tied=..., rows=...) gives a random causal LM in evaluation mode."""

    def make(family: str, *, tied: bool = False, rows: int = ROWS):
        suffix = "TextConfig" if family == "Gemma3" else "Config"
        config_class = getattr(transformers, family + suffix)
        config = config_class(vocab_size=rows, tie_word_embeddings=tied, **SHAPE, **FAMILIES[family])
        torch.manual_seed(7)
        model = getattr(transformers, family + "ForCausalLM")(config).eval()
        for parameter in model.parameters():
            parameter.data.normal_(std=0.3)
        return model

    return make


@pytest.fixture
def make_tokenizer():
    """make_tokenizer(size) gives a word tokenizer with ids 0 .. size - 1; the last two are bos and eos."""

    def make(size: int, **special: str):
        words = {f"w{number}": number for number in range(size - 2)} | {"<s>": size - 2, "</s>": size - 1}
        backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        special = {"bos_token": "<s>", "eos_token": "</s>"} | special
        return PreTrainedTokenizerFast(tokenizer_object=backend, **special)

    return make
