import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.modeling_outputs import CausalLMOutput

from revocab.errors import ConfigError, DataError, ModelError
from revocab.evaluation import likelihood, score_text, sentences, token_bits

DOCUMENTS = [
    "the liver binds oxygen",
    "Überraschung: naïve café",
    "a",
    "the cat binds the liver and the liver binds the cat, over and over and over again",
    "tabs\tand\nlines",
]


def make_tokenizer(**roles):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(DOCUMENTS * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(bos_token="<s>", eos_token="</s>")


def make_model(rows, dtype=torch.float32):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.4,  # far from uniform, so that a wrong position shows
        max_position_embeddings=256,
    )
    return LlamaForCausalLM(config).to(dtype)


def settings(**changes):
    return {"max_length": 128, "batch_tokens": 256, "device": "cpu"} | changes


class Unigram(nn.Module):
    """Predicts the same distribution everywhere."""

    def __init__(self, logits_V):
        super().__init__()
        self.table = nn.Embedding(len(logits_V), 1)
        self.logits_V = logits_V

    def get_input_embeddings(self):
        return self.table

    def forward(self, input_ids, attention_mask=None, use_cache=None):
        return CausalLMOutput(logits=self.logits_V.expand(*input_ids.shape, -1))


def bits_by_hand(model, ids, vocabulary_size, first=1):
    """One document, one token at a time, in plain Python over float64 logits."""
    logits_LV = model(torch.tensor([ids])).logits[0, :, :vocabulary_size].tolist()
    bits = 0.0
    for position in range(first, len(ids)):
        row = logits_LV[position - 1]
        top = max(row)
        bits += (top - row[ids[position]] + math.log(sum(math.exp(x - top) for x in row))) / math.log(2)
    return bits


def test_equals_a_plain_loop_in_float64(tokenizer):
    model = make_model(len(tokenizer) + 7, torch.float64).eval()
    score = score_text(model, tokenizer, DOCUMENTS, **settings())
    for number, document in enumerate(DOCUMENTS):
        ids = [tokenizer.bos_token_id, *tokenizer(document, add_special_tokens=False)["input_ids"]]
        assert score.bits[number] == pytest.approx(bits_by_hand(model, ids, len(tokenizer)), rel=1e-10)
        assert score.bytes[number] == len(document.encode())
        assert score.tokens[number] == len(ids) - 1


def test_windows_by_hand(tokenizer):
    """Windows of 8 with 4 of context: tokens 1-7, then 8-11 behind 4-7, 12-15 behind 8-11, ..."""
    model = make_model(len(tokenizer), torch.float64).eval()
    ids = [tokenizer.bos_token_id, *tokenizer(DOCUMENTS[3], add_special_tokens=False)["input_ids"]]
    assert len(ids) > 16
    expected = bits_by_hand(model, ids[:8], len(tokenizer))
    for first in range(8, len(ids), 4):
        expected += bits_by_hand(model, ids[first - 4 : first + 4], len(tokenizer), first=4)
    score = score_text(model, tokenizer, [DOCUMENTS[3]], **settings(max_length=8))
    assert score.bits[0] == pytest.approx(expected, rel=1e-10)
    assert score.tokens[0] == len(ids) - 1


@pytest.mark.parametrize("batch_tokens", [1, 40, 100, 10_000])
def test_batch_size_does_not_matter(tokenizer, batch_tokens):
    model = make_model(len(tokenizer))
    reference = score_text(model, tokenizer, DOCUMENTS, **settings(batch_tokens=1))
    score = score_text(model, tokenizer, DOCUMENTS, **settings(batch_tokens=batch_tokens))
    np.testing.assert_allclose(score.bits, reference.bits, rtol=1e-5)


@pytest.mark.parametrize("max_length", [64, 100, 250])
def test_window_length_does_not_matter_for_shorter_documents(tokenizer, max_length):
    model = make_model(len(tokenizer))
    reference = score_text(model, tokenizer, DOCUMENTS, **settings(max_length=200))
    score = score_text(model, tokenizer, DOCUMENTS, **settings(max_length=max_length))
    np.testing.assert_allclose(score.bits, reference.bits, rtol=1e-5)


def test_results_stand_in_document_order(tokenizer):
    model = make_model(len(tokenizer))
    forward = score_text(model, tokenizer, DOCUMENTS, **settings())
    backward = score_text(model, tokenizer, DOCUMENTS[::-1], **settings())
    np.testing.assert_allclose(forward.bits, backward.bits[::-1], rtol=1e-5)
    assert forward.bytes.tolist() == backward.bytes.tolist()[::-1]


@pytest.mark.parametrize("padding_rows", [0, 60])
@pytest.mark.parametrize("max_length", [6, 128])
def test_uniform_model_needs_log2_of_the_vocabulary_per_token(tokenizer, padding_rows, max_length):
    model = Unigram(torch.zeros(len(tokenizer) + padding_rows))
    score = score_text(model, tokenizer, DOCUMENTS, **settings(max_length=max_length))
    assert score.bits_per_byte == pytest.approx(math.log2(len(tokenizer)) * score.tokens.sum() / score.bytes.sum())
    assert score.perplexity == pytest.approx(len(tokenizer), rel=1e-5)


def test_unigram_model_gives_the_bits_of_its_tokens(tokenizer):
    logits_V = torch.randn(len(tokenizer), generator=torch.Generator().manual_seed(3))
    bits_V = -torch.log_softmax(logits_V.double(), 0).numpy() / math.log(2)
    score = score_text(Unigram(logits_V), tokenizer, DOCUMENTS, **settings(max_length=9))
    expected = [bits_V[tokenizer(text, add_special_tokens=False)["input_ids"]].sum() for text in DOCUMENTS]
    np.testing.assert_allclose(score.bits, expected, rtol=1e-6)


def test_renumbering_the_ids_changes_nothing(tokenizer):
    model = make_model(len(tokenizer))
    reference = score_text(model, tokenizer, DOCUMENTS, **settings())
    order = np.random.default_rng(1).permutation(len(tokenizer))  # new id of each old one
    renumbered = make_model(len(tokenizer))
    for table in (renumbered.get_input_embeddings(), renumbered.get_output_embeddings()):
        table.weight.data[torch.tensor(order)] = table.weight.data.clone()
    score = score_text(renumbered, Renumbered(tokenizer, order), DOCUMENTS, **settings())
    np.testing.assert_allclose(score.bits, reference.bits, rtol=1e-5)


class Renumbered:
    def __init__(self, tokenizer, order):
        self.tokenizer, self.order = tokenizer, order
        self.backend_tokenizer = tokenizer.backend_tokenizer
        self.bos_token_id = int(order[tokenizer.bos_token_id])

    def __len__(self):
        return len(self.tokenizer)

    def get_vocab(self):
        return {token: int(self.order[number]) for token, number in self.tokenizer.get_vocab().items()}

    def __call__(self, texts, **options):
        return {"input_ids": [self.order[row].tolist() for row in self.tokenizer(texts, **options)["input_ids"]]}


def test_slices_of_logits_do_not_matter(tokenizer, monkeypatch):
    model = make_model(len(tokenizer))
    reference = score_text(model, tokenizer, DOCUMENTS, **settings())
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", 3 * 300 * len(DOCUMENTS))
    score = score_text(model, tokenizer, DOCUMENTS, **settings())
    np.testing.assert_allclose(score.bits, reference.bits, rtol=1e-6)


def test_eos_stands_before_a_document_where_there_is_no_bos(tokenizer):
    model = make_model(len(tokenizer))
    eos = make_tokenizer(eos_token="</s>")
    ids = [eos.eos_token_id, *eos(DOCUMENTS[0], add_special_tokens=False)["input_ids"]]
    score = score_text(model, eos, DOCUMENTS[:1], **settings())
    assert score.bits[0] == pytest.approx(bits_by_hand(model, ids, len(eos)), rel=1e-4)


def test_marks_in_the_text_are_text(tokenizer):
    score = score_text(make_model(len(tokenizer)), tokenizer, ["</s>", "<s>a"], **settings())
    assert score.tokens.tolist() == [4, 4]  # the byte-level pieces of the characters, not one special id
    assert tokenizer.backend_tokenizer.encode_special_tokens is False


def test_lone_surrogates_are_scored(tokenizer):
    score = score_text(make_model(len(tokenizer)), tokenizer, ["a\ud800b", "\U0001f600"], **settings())
    assert score.bytes.tolist() == [3, 4]
    assert np.isfinite(score.bits).all()


def test_bf16_autocast_is_close(tokenizer):
    model = make_model(len(tokenizer))
    reference = score_text(model, tokenizer, DOCUMENTS, **settings())
    score = score_text(model, tokenizer, DOCUMENTS, **settings(bf16=True))
    assert score.bits_per_byte == pytest.approx(reference.bits_per_byte, rel=0.03)
    assert not np.array_equal(score.bits, reference.bits)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_comes_back(tokenizer, training):
    model = make_model(len(tokenizer)).train(training)
    score_text(model, tokenizer, DOCUMENTS, **settings())
    assert model.training is training
    model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()


@pytest.mark.parametrize("documents", [[], ["text", ""]])
def test_nothing_to_score_is_an_error(tokenizer, documents):
    with pytest.raises(DataError):
        score_text(make_model(len(tokenizer)), tokenizer, documents, **settings())


def test_a_model_of_another_vocabulary_is_an_error(tokenizer):
    with pytest.raises(ModelError, match="rows"):
        score_text(make_model(len(tokenizer) - 1), tokenizer, DOCUMENTS, **settings())


def test_a_tokenizer_without_a_mark_is_an_error(tokenizer):
    with pytest.raises(ModelError, match="bos"):
        score_text(make_model(len(tokenizer)), make_tokenizer(), DOCUMENTS, **settings())


def test_too_short_a_window_is_an_error(tokenizer):
    with pytest.raises(ConfigError, match=r"evaluation\.max_length"):
        score_text(make_model(len(tokenizer)), tokenizer, DOCUMENTS, **settings(max_length=3))


@pytest.mark.parametrize("max_length", [8, 128])
def test_bits_of_tokens_add_up_to_those_of_their_documents(tokenizer, max_length):
    model = make_model(len(tokenizer), torch.float64)
    chosen = settings(max_length=max_length)
    score = score_text(model, tokenizer, DOCUMENTS, **chosen)
    rows = token_bits(model, tokenizer, DOCUMENTS, **chosen)
    assert [len(ids) for ids, _ in rows] == [len(bits) for _, bits in rows] == score.tokens.tolist()
    assert [sum(bits) for _, bits in rows] == pytest.approx(score.bits.tolist(), rel=1e-12)
    ids, bits = rows[0]
    assert ids == tokenizer(DOCUMENTS[0], add_special_tokens=False)["input_ids"]
    first = bits_by_hand(model, [tokenizer.bos_token_id, ids[0]], len(tokenizer))
    assert bits[0] == pytest.approx(first, rel=1e-10)


def test_sentences_are_the_first_of_a_good_length():
    good = "This one has more than sixty characters, and it ends with a full stop."
    assert sentences([f"Short. {good} Another.", "x" * 500, "a\n\n" + good, "unused"], 3) == [good, "x" * 240, good]
