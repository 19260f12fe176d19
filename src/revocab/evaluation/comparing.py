"""What is said of a model's score on one held-out set, alone and beside the first model."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from revocab.artifacts import TextScore
from revocab.evaluation.resampling import bootstrap_interval, paired_difference, perplexity_interval


def text_row(score: TextScore, documents: Sequence[str], *, first: TextScore | None, seed: int) -> dict[str, Any]:
    """The entry of one model in scores.json.

    Args:
        documents: that were scored.
        first: score of the model that this one is compared with; None for that model itself.
        seed: of the bootstrap.
    """
    low, high = bootstrap_interval(score, seed=seed)
    perplexity_low, perplexity_high = perplexity_interval(score, seed=seed)
    tokens = int(score.tokens.sum())
    row: dict[str, Any] = {
        "value": score.bits_per_byte,
        "low": low,
        "high": high,
        "bytes": int(score.bytes.sum()),
        "documents": len(score.bytes),
        "perplexity": score.perplexity,
        "perplexity_low": perplexity_low,
        "perplexity_high": perplexity_high,
        "bytes_per_token": score.bytes_per_token,
        "characters_per_token": sum(map(len, documents)) / tokens,
        "tokens_per_word": tokens / max(1, sum(len(text.split()) for text in documents)),
    }
    if first is not None:
        row["difference"] = asdict(paired_difference(score, first, seed=seed))
    return row
