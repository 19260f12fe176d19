"""One small tokenizer of each kind, trained or written down in memory, as transformers wraps it."""

import json
import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from revocab.vocabulary import load_tokenizer

SENTENCES = [
    "the heart of the patient was enlarged, the liver was not",
    "hepatic  and  cardiac    findings: naïve β-cells 中文 🧬 (n = 12)",
    "patients with cardiomyopathy; the hearts of 30 patients\n\twere enlarged",
] * 5


def wrap(backend: Tokenizer, **roles: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


def byte_level_backend(vocabulary_size: int = 400) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return backend


def sentencepiece_backend(shift: int = 0) -> Tokenizer:
    """BPE over characters with `▁` for spaces and byte pieces, laid out as in Llama; `shift` control tokens follow."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=220, show_progress=False)
    trained.train_from_iterator([word + " " for text in SENTENCES for word in text.split(" ")], trainer)
    model = json.loads(trained.to_str())["model"]
    controls = ["<unk>", "<s>", "</s>", *(f"[control_{index}]" for index in range(shift))]
    pieces = controls + [f"<0x{byte:02X}>" for byte in range(256)] + sorted(model["vocab"], key=model["vocab"].get)
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [tuple(pair) for pair in model["merges"]]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(controls)
    return backend


@pytest.fixture(scope="session")
def byte_level():
    return wrap(byte_level_backend(), bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def sentencepiece():
    return wrap(sentencepiece_backend(), bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session")
def sentencepiece_shifted():
    """The same pieces 40 ids later, behind control tokens, like Mistral v3 after v1."""
    return wrap(sentencepiece_backend(shift=40), bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session")
def unigram():
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁the", -1.0), ("▁", -2.0), ("the", -2.5), ("▁heart", -3.0), ("s", -3.0)]
    pieces += [(letter, -6.0) for letter in "abcdefghijklmnopqrtuvwxyz"]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens(["<unk>", "</s>"])
    return wrap(backend, eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session")
def wordpiece():
    words = ["[UNK]", "[CLS]", "[SEP]", "the", "cardio", "##myo", "##pathy", "##s", "heart", "##heart", ",", "中", "a"]
    vocabulary = {word: index for index, word in enumerate(words)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    return wrap(backend, bos_token="[CLS]", eos_token="[SEP]", unk_token="[UNK]")


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2's tokenizer out of its GGUF file, which takes some seconds."""
    path = os.environ.get("REVOCAB_SMOLLM2")
    if not path:
        pytest.skip("REVOCAB_SMOLLM2 names no GGUF file")
    return load_tokenizer(str(Path(path).parent), gguf_file=Path(path).name)
