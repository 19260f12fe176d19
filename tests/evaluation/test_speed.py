"""Writing at speed: greedy, without end marks, as many bytes as asked for."""

from types import SimpleNamespace

import pytest
import torch

from revocab.evaluation import generation_speed
from revocab.evaluation.likelihood import token_ids
from revocab.initialisation import load_model
from revocab.runtime.embedded import locate
from revocab.vocabulary import load_tokenizer

WHERE = locate("embedded:source_model", "models.source_model")


@pytest.fixture(scope="module")
def model():
    return load_model(WHERE, gguf_file=None, trust_remote_code=False, attention="sdpa")


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(WHERE)


def greedy(model, tokenizer, prompt, num_bytes):
    """Tokens and bytes of a greedy continuation, one forward pass of the whole text for each token."""
    ids, new = token_ids(tokenizer, [prompt])[0], []
    while len(tokenizer.decode(new).encode()) < num_bytes:
        logits = model(torch.tensor([ids + new])).logits[0, -1].detach().clone()
        logits[list(tokenizer.all_special_ids)] = -torch.inf
        new.append(int(logits.argmax()))
    return len(new), len(tokenizer.decode(new).encode())


def test_what_is_written_is_the_greedy_continuation(model, tokenizer):
    prompts = ["A protein that", "The heart"]
    speed = generation_speed(model, tokenizer, prompts, num_bytes=24, max_length=256, device="cpu")
    expected = [greedy(model, tokenizer, prompt, 24) for prompt in prompts]
    assert speed["tokens"] == sum(tokens for tokens, _ in expected)
    assert speed["bytes"] == sum(size for _, size in expected)
    assert speed["bytes_per_second"] == pytest.approx(speed["bytes"] / speed["seconds"])
    assert speed["tokens_per_second"] == pytest.approx(speed["tokens"] / speed["seconds"])
    assert (speed["device"], speed["dtype"], speed["prompts"]) == ("cpu", "float32", 2)


def test_end_marks_are_never_written(model, tokenizer):
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        before = head[tokenizer.eos_token_id].clone()
        head[tokenizer.eos_token_id] = head.mean(0) + 100 * head.std()
        speed = generation_speed(model, tokenizer, ["The"], num_bytes=40, max_length=256, device="cpu")
        head[tokenizer.eos_token_id] = before
    assert speed["bytes"] >= 40


def test_a_continuation_stays_within_the_context(model, tokenizer):
    length = len(token_ids(tokenizer, ["The heart"])[0])
    speed = generation_speed(model, tokenizer, ["The heart"], num_bytes=1000, max_length=length + 5, device="cpu")
    assert speed["tokens"] == 5


@pytest.mark.parametrize(("slow", "expected"), [(2, 1), (1, 2)])
def test_a_cpu_writes_with_the_number_of_threads_that_is_faster(model, tokenizer, monkeypatch, slow, expected):
    """By a clock that a pass of the model moves by a second, with the slow number of threads by ten."""
    before, used = torch.get_num_threads(), []

    def tick(*_):
        used.append(torch.get_num_threads())

    clock = SimpleNamespace(perf_counter=lambda: sum(10.0 if number == slow else 1.0 for number in used))
    monkeypatch.setattr("revocab.evaluation.speed.time", clock)
    torch.set_num_threads(2)
    hook = model.register_forward_pre_hook(tick)
    try:
        speed = generation_speed(model, tokenizer, ["The"], num_bytes=24, max_length=256, device="cpu")
        assert (speed["threads"], used[-1]) == (expected, expected)
        assert speed["tokens_per_second"] == pytest.approx(1.0)
        assert torch.get_num_threads() == 2
        given = generation_speed(model, tokenizer, ["The"], num_bytes=2, max_length=256, device="cpu", threads=slow)
        assert (given["threads"], used[-1]) == (slow, slow)
    finally:
        hook.remove()
        torch.set_num_threads(before)
