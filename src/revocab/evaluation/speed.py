"""How fast a model writes text: bytes per second, which a better vocabulary raises at the same speed of tokens."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from revocab.evaluation.likelihood import evaluating, num_ids, token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WARM_UP_BYTES = 8


def generation_speed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    num_bytes: int,
    max_length: int,
    device: str,
    threads: int | None = None,
) -> dict[str, Any]:
    """Bytes and tokens per second of greedy continuations, one prompt at a time; reading the prompt counts.

    Each continuation ends with the token that completes its `num_bytes` of UTF-8. Marks such as eos are never chosen,
    so all models write as much.

    Args:
        prompts: texts to continue.
        num_bytes: of each continuation.
        max_length: tokens that the model can hold, prompt included; a continuation ends there at the latest.
        device: where the model is moved to (and stays).
        threads: of a CPU; None: as many as torch is set to, or one if that writes faster. Give all models that are
            compared the number that the first one returns.

    Returns:
        bytes_per_second, tokens_per_second, bytes, tokens, seconds, and how it was: device, threads (None on a GPU),
        dtype, prompts, batch_size.
    """
    rows = token_ids(tokenizer, prompts)
    never = {*tokenizer.all_special_ids, *range(num_ids(tokenizer, model), model.config.vocab_size)}
    model.to(torch.device(device))
    num_written = num_tokens = 0

    def warm_up(size: int = WARM_UP_BYTES) -> None:
        _continue(model, tokenizer, rows[0], size, max_length, never)

    with evaluating(model):
        if device == "cpu" and threads is None:
            with _cpu_threads(1):  # what only the first pass costs is not to be counted against either number
                warm_up(1)
            threads = _faster(warm_up)
        else:
            warm_up()
        with _cpu_threads(threads):
            start = time.perf_counter()
            for row in rows:
                written, tokens = _continue(model, tokenizer, row, num_bytes, max_length, never)
                num_written, num_tokens = num_written + written, num_tokens + tokens
            seconds = time.perf_counter() - start
    return {
        "bytes_per_second": num_written / seconds,
        "tokens_per_second": num_tokens / seconds,
        "bytes": num_written,
        "tokens": num_tokens,
        "seconds": seconds,
        "device": device,
        "threads": threads,
        "dtype": str(model.dtype).removeprefix("torch."),
        "prompts": len(rows),
        "batch_size": 1,
    }


def _faster(work: Callable[[], None]) -> int:
    """Torch's number of threads or, if the work is done sooner with it, 1.

    A token of a small model is a hundred tiny operations, after each of which all threads wait for the last one. Where
    other programs use the cores too, that one waits for its turn, and two threads write a tenth of what one does.
    """
    seconds = {}
    for number in (torch.get_num_threads(), 1):
        with _cpu_threads(number):
            start = time.perf_counter()
            work()
            seconds[number] = time.perf_counter() - start
    return min(seconds, key=lambda number: seconds[number])


@contextlib.contextmanager
def _cpu_threads(number: int | None) -> Generator[None]:
    """As many threads of torch as said; None: as many as there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _continue(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: list[int],
    num_bytes: int,
    max_length: int,
    never: set[int],
) -> tuple[int, int]:
    """Bytes and tokens written behind the prompt."""
    from transformers import GenerationConfig

    def written(ids: Any) -> int:
        return len(str(tokenizer.decode(ids[len(prompt) :])).encode())

    def enough(ids_BL: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
        # Ids on the way to the processor: whatever the device computed is done by then.
        return torch.tensor([written(ids.tolist()) >= num_bytes for ids in ids_BL], device=ids_BL.device)

    ids_1L = torch.tensor([prompt], device=model.device)
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max(1, min(num_bytes, max_length - len(prompt))),
        suppress_tokens=sorted(never),
        pad_token_id=tokenizer.eos_token_id,
    )
    generate: Any = model.generate  # a mixin's, which the type checker takes for a tensor
    ids = generate(
        ids_1L, attention_mask=torch.ones_like(ids_1L), generation_config=settings, stopping_criteria=[enough]
    )[0].tolist()
    return written(ids), len(ids) - len(prompt)
