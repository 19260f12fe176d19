"""Every answer scored in batches with shared prompts, against one answer at a time in plain Python."""

import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import CausalLMOutput

from revocab.errors import DataError
from revocab.evaluation import Question, score_answers
from revocab.evaluation import answering as answering_module
from revocab.evaluation.answering import encode
from revocab.runtime import embedded

QUESTIONS = [
    Question(prompt="Question: What binds oxygen?\nAnswer:", choices=("haemoglobin", "the liver", "a cat"), gold=0),
    Question(prompt="A", choices=("b", "B", "bb bb"), gold=1),
    Question(prompt="Abstract: " + "Cells of the liver divide. " * 6 + "\nAnswer:", choices=("yes", "no"), gold=1),
    Question(prompt="Die Zelle heißt naïve T-Zelle, 中文 🧬: ", choices=("β", "🧬", "µg/mL", "x"), gold=2),
    Question(prompt="Question: Where is the heart?\nAnswer:", choices=("in the chest", "in the head, I think"), gold=0),
]
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def byte_level():
    return AutoTokenizer.from_pretrained(embedded.locate("embedded:source_model", "models.source_model"))


@pytest.fixture(scope="module")
def sentencepiece():
    return AutoTokenizer.from_pretrained(embedded.locate("embedded:target_tokenizer", "models.target_tokenizer"))


@pytest.fixture(scope="module")
def merging():
    """A tokenizer whose pieces know no words: `: y` at the end of a prompt and `s y` within an answer are one."""
    characters = [*"ABbcdefhiklnorstuxyz: ?\n,.QCDwqgm-TZIaLµβ/ïß中文🧬"]
    merges = [(":", " "), (": ", "b"), ("s", " "), (" ", "h")]
    pieces = ["<s>", "<unk>", *characters, *(a + b for a, b in merges)]
    backend = Tokenizer(models.BPE({piece: n for n, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>")


def make_model(rows, kind=LlamaForCausalLM, config=LlamaConfig, **changes):
    torch.manual_seed(0)
    sizes = {"vocab_size": rows, "initializer_range": 0.4, "max_position_embeddings": 512}
    return kind(config(**SIZES, **sizes, **changes)).double().eval()


def settings(**changes):
    return {"max_length": 256, "batch_tokens": 512, "device": "cpu"} | changes


def nats_by_hand(model, ids, first, vocabulary_size):
    """Log-likelihood of ids[first:], the whole row through the model, over float64 logits in plain Python."""
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, :, :vocabulary_size].double().tolist()
    total = 0.0
    for position in range(first, len(ids)):
        row = logits[position - 1]
        top = max(row)
        total += row[ids[position]] - top - math.log(sum(math.exp(x - top) for x in row))
    return total


def expected_nats(model, tokenizer, questions):
    """One answer at a time: what prompt and answers do not share, behind what all of them share."""
    values = []
    for question in questions:
        texts = [question.prompt.rstrip(), *(f"{question.prompt.rstrip()} {choice}" for choice in question.choices)]
        prompt, *rows = (
            [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in texts
        )
        first = 0
        while all(first < len(row) - 1 and first < len(prompt) and row[first] == prompt[first] for row in rows):
            first += 1
        values += [nats_by_hand(model, row, first, len(tokenizer)) for row in rows]
    return values


@pytest.mark.parametrize("name", ["byte_level", "sentencepiece", "merging"])
def test_equals_one_answer_at_a_time(name, request):
    tokenizer = request.getfixturevalue(name)
    model = make_model(len(tokenizer) + 3)
    score = score_answers(model, tokenizer, QUESTIONS, **settings())
    np.testing.assert_allclose(score.nats, expected_nats(model, tokenizer, QUESTIONS), rtol=1e-9)
    assert score.offsets.tolist() == [0, 3, 6, 8, 12, 14]
    assert score.gold.tolist() == [0, 1, 1, 2, 0]
    assert score.bytes[:4].tolist() == [11, 9, 5, 1]
    assert score.bytes[8] == 2


def test_equals_one_answer_at_a_time_on_the_embedded_model(byte_level):
    folder = embedded.locate("embedded:source_model", "models.source_model")
    model = AutoModelForCausalLM.from_pretrained(folder).double().eval()
    score = score_answers(model, byte_level, QUESTIONS, **settings())
    np.testing.assert_allclose(score.nats, expected_nats(model, byte_level, QUESTIONS), rtol=1e-9)


@pytest.mark.parametrize(
    ("kind", "config", "changes"),
    [
        (GPTNeoXForCausalLM, GPTNeoXConfig, {}),
        (MistralForCausalLM, MistralConfig, {"sliding_window": 12, "num_key_value_heads": 1}),
    ],
)
def test_other_families_and_windows_shorter_than_a_prompt(byte_level, kind, config, changes):
    model = make_model(len(byte_level), kind, config, **changes)
    score = score_answers(model, byte_level, QUESTIONS, **settings())
    np.testing.assert_allclose(score.nats, expected_nats(model, byte_level, QUESTIONS), rtol=1e-9)


@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
@pytest.mark.parametrize("prompt_step", [1, 5, 1000])
def test_batches_and_what_is_shared_do_not_matter(byte_level, monkeypatch, batch_tokens, prompt_step):
    model = make_model(len(byte_level))
    reference = score_answers(model, byte_level, QUESTIONS, **settings())
    monkeypatch.setattr(answering_module, "PROMPT_STEP", prompt_step)
    score = score_answers(model, byte_level, QUESTIONS * 3, **settings(batch_tokens=batch_tokens))
    np.testing.assert_allclose(score.nats, np.tile(reference.nats, 3), rtol=1e-9)


def test_a_prompt_goes_through_the_model_once(byte_level):
    model = make_model(len(byte_level))
    read = 0

    def count(_, arguments, named):
        nonlocal read
        read += named["input_ids"].numel()

    model.register_forward_pre_hook(count, with_kwargs=True)
    (question,) = encode(byte_level, QUESTIONS[2:3], 256)
    score_answers(model, byte_level, QUESTIONS[2:3], **settings())
    assert question.shared > 40
    assert read <= question.shared + len(question.rows) * (question.longest - question.shared + 8)


@pytest.mark.parametrize("name", ["byte_level", "sentencepiece"])
def test_the_answer_begins_where_its_word_begins(name, request):
    tokenizer = request.getfixturevalue(name)
    for each in encode(tokenizer, QUESTIONS[:1], 256):
        answers = [tokenizer.decode(row[each.shared :]).strip() for row in each.rows]
        assert answers == list(QUESTIONS[0].choices)
        assert tokenizer.decode(each.rows[0][1 : each.shared]).strip() == QUESTIONS[0].prompt


def test_a_token_across_the_boundary_counts_for_every_answer_alike(merging):
    question = Question(prompt="A:", choices=("b", "c"), gold=0)
    (each,) = encode(merging, [question], 256)
    pieces = [[merging.convert_ids_to_tokens(row) for row in each.rows], each.shared]
    assert pieces == [[["<s>", "A", ": b"], ["<s>", "A", ": ", "c"]], 2]  # `:` alone is in neither


def test_answers_of_one_that_go_on_leave_something_to_score(byte_level):
    question = Question(prompt="A:", choices=("b", "b b b"), gold=0)
    (each,) = encode(byte_level, [question], 256)
    assert all(len(row) > each.shared for row in each.rows)
    assert each.shared >= 1


@pytest.mark.parametrize("space", ["", " ", "\n"])
def test_space_behind_a_prompt_does_not_matter(byte_level, space):
    plain = Question(prompt="Question: why?\nAnswer:", choices=("b", "c"), gold=0)
    spaced = Question(prompt=plain.prompt + space, choices=("b", "c"), gold=0)
    assert encode(byte_level, [plain], 256) == encode(byte_level, [spaced], 256)


def test_a_long_prompt_loses_its_beginning_but_not_its_prefix(byte_level):
    model = make_model(len(byte_level))
    (whole,) = encode(byte_level, QUESTIONS[2:3], 256)
    (cut,) = encode(byte_level, QUESTIONS[2:3], 20)
    assert cut.longest == 20
    for long, short in zip(whole.rows, cut.rows, strict=True):
        assert short == [byte_level.bos_token_id, *long[len(long) - len(short) + 1 :]]
    score = score_answers(model, byte_level, QUESTIONS[2:3], **settings(max_length=20))
    by_hand = [nats_by_hand(model, row, cut.shared, len(byte_level)) for row in cut.rows]
    np.testing.assert_allclose(score.nats, by_hand, rtol=1e-9)


class Unigram(nn.Module):
    """Predicts the same distribution everywhere, and keeps no cache."""

    def __init__(self, logits_V):
        super().__init__()
        self.table = nn.Embedding(len(logits_V), 1)
        self.logits_V = logits_V

    def get_input_embeddings(self):
        return self.table

    def forward(self, input_ids, use_cache=None):
        return CausalLMOutput(logits=self.logits_V.expand(*input_ids.shape, -1))


def test_a_model_without_a_cache_reads_its_rows_whole(byte_level):
    logits_V = torch.randn(len(byte_level), generator=torch.Generator().manual_seed(3)).double()
    logs_V = torch.log_softmax(logits_V, 0).numpy()
    score = score_answers(Unigram(logits_V), byte_level, QUESTIONS, **settings())
    expected = [logs_V[row[each.shared :]].sum() for each in encode(byte_level, QUESTIONS, 256) for row in each.rows]
    np.testing.assert_allclose(score.nats, expected, rtol=1e-9)


def test_nothing_to_answer_is_an_error(byte_level):
    with pytest.raises(DataError, match="no question"):
        score_answers(make_model(len(byte_level)), byte_level, [], **settings())


def test_an_answer_without_room_is_an_error(byte_level):
    question = Question(prompt="Why?", choices=("because " * 40, "no"), gold=0)
    with pytest.raises(DataError, match=r"Question 0 .* reads 20 at once"):
        score_answers(make_model(len(byte_level)), byte_level, [question], **settings(max_length=20))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_comes_back(byte_level, training):
    model = make_model(len(byte_level)).train(training)
    score_answers(model, byte_level, QUESTIONS, **settings())
    assert model.training is training
