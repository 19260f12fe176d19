"""How fast a model writes text: bytes per second, which a better vocabulary raises at the same speed of tokens."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from revocab.evaluation.likelihood import evaluating, num_ids, token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WARM_UP_BYTES = 16


def generation_speed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    num_bytes: int,
    max_length: int,
    device: str,
) -> dict[str, float | int | str]:
    """Bytes and tokens per second of greedy continuations, one prompt at a time; reading the prompt counts.

    Each continuation ends with the token that completes its `num_bytes` of UTF-8. Marks such as eos are never chosen,
    so all models write as much.

    Args:
        prompts: texts to continue.
        num_bytes: of each continuation.
        max_length: tokens that the model can hold, prompt included; a continuation ends there at the latest.
        device: where the model is moved to (and stays).

    Returns:
        bytes_per_second, tokens_per_second, bytes, tokens, seconds, and how it was: device, dtype, prompts, batch_size.
    """
    rows = token_ids(tokenizer, prompts)
    never = {*tokenizer.all_special_ids, *range(num_ids(tokenizer, model), model.config.vocab_size)}
    model.to(torch.device(device))
    num_written = num_tokens = 0
    with evaluating(model):
        _continue(model, tokenizer, rows[0], WARM_UP_BYTES, max_length, never)
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
        "dtype": str(model.dtype).removeprefix("torch."),
        "prompts": len(rows),
        "batch_size": 1,
    }


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
