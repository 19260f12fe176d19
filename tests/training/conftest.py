"""Small random models, corpora in memory, and settings that a test changes one by one."""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from revocab.artifacts import TokenizedCorpus
from revocab.training import Hardware, LoraSettings, StageSettings

VOCABULARY = 29
SHAPE = {
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
    "attention_dropout": 0.1,
}
FAMILIES = {
    "Llama": {"num_key_value_heads": 1},
    "Mistral": {"num_key_value_heads": 1},
    "GPTNeoX": {"hidden_dropout": 0.1},
    "Gemma3": {"num_key_value_heads": 1, "head_dim": 4},
    "Qwen2": {"num_key_value_heads": 1},
}
DEFAULTS: dict[str, Any] = {
    "name": "stage1",
    "kind": "tables",
    "steps": 6,
    "learning_rate": 1e-2,
    "table_learning_rate": None,
    "batch_size": 2,
    "gradient_accumulation": 1,
    "max_seq_length": 8,
    "warmup_share": 0.2,
    "weight_decay": 0.01,
    "gradient_clip": 1.0,
    "skip_nonfinite": False,
    "bf16": False,
    "optimizer": "adamw_torch",
    "shuffle": True,
    "seed": 5,
    "start_document": 0,
    "lora": None,
    "checkpoint_every": 0,
    "gradient_checkpointing": False,
    "log_every": 1,
}
LORA = LoraSettings(r=2, alpha=4, dropout=0.2, target_modules=("all-linear",))


def model_of(
    family: str = "Llama", *, tied: bool = False, rows: int = VOCABULARY, layers: int = 2, **sizes: float
) -> Any:
    suffix = "TextConfig" if family == "Gemma3" else "Config"
    config = getattr(transformers, family + suffix)(
        vocab_size=rows, tie_word_embeddings=tied, **(SHAPE | {"num_hidden_layers": layers} | sizes), **FAMILIES[family]
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return getattr(transformers, family + "ForCausalLM")(config).eval()


@pytest.fixture
def make_model() -> Callable[..., Any]:
    return model_of


def corpus_of(lengths: list[int], *, counting: bool = False) -> TokenizedCorpus:
    """Documents of such lengths; tokens are random, or 0, 1, 2 ... where `counting`."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = int(offsets[-1])
    tokens = np.arange(total) if counting else np.random.default_rng(0).integers(0, VOCABULARY, total)
    return TokenizedCorpus(
        tokens=tokens.astype(np.uint16),
        offsets=offsets,
        vocabulary_size=total if counting else VOCABULARY,
        text_bytes=4 * total,
        special_ids=(),
    )


@pytest.fixture
def make_corpus() -> Callable[..., TokenizedCorpus]:
    return corpus_of


@pytest.fixture
def corpus() -> TokenizedCorpus:
    return corpus_of([10] * 40)


@pytest.fixture
def settings() -> Callable[..., StageSettings]:
    def make(**changes: Any) -> StageSettings:
        """The defaults with changes; kinds of LoRA get adapters if no others are given."""
        usual = {"lora": LORA} if changes.get("kind") in ("lora", "lora_tables") and "lora" not in changes else {}
        return StageSettings(**(DEFAULTS | usual | changes))

    return make


@pytest.fixture
def lora() -> LoraSettings:
    return LORA


@pytest.fixture
def cpu() -> Hardware:
    return Hardware(accelerator="cpu", devices=1, strategy="auto", num_workers=0)


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while the body runs and still live."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.sizes = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {
            each.untyped_storage()._cdata for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)
        }
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in given:
                self.note(tensor.untyped_storage())  # not a view
        return out

    def note(self, storage):
        if storage._cdata not in self.sizes:
            self.sizes[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.forget, storage._cdata)

    def forget(self, key):
        self.now -= self.sizes.pop(key)


@pytest.fixture
def live_tensors() -> type[LiveTensors]:
    return LiveTensors


@pytest.fixture
def kept_bytes() -> Callable[..., int]:
    """kept_bytes(module, loss): what autograd keeps of `loss()` for the backward pass beside the parameters."""

    def keeping(module: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> int:
        own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
        kept = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            value = loss()
        assert value.isfinite()
        return sum(kept.values())

    return keeping
