"""How sure a score is: the documents of a held-out set are resampled with replacement (Efron's bootstrap)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from revocab.artifacts import TextScore
from revocab.errors import DataError

INDICES_AT_ONCE = 2**23  # 64 MiB of int64


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A score of one model less that of another on the same documents; of bits per byte, below zero is better."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    score: TextScore, *, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the bits per byte; equal seeds draw equal documents, so intervals of models compare."""
    return _interval_of_ratio(score.bits, score.bytes, samples, seed, level)


def perplexity_interval(
    score: TextScore, *, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """As `bootstrap_interval`, of the perplexity per token."""
    low, high = _interval_of_ratio(score.bits, score.tokens, samples, seed, level)
    return 2.0**low, 2.0**high


def paired_difference(
    a: TextScore, b: TextScore, *, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> Difference:
    """Bits per byte of `a` less those of `b`, with an interval from resampling documents that both scored.

    Pairing removes what documents differ in, so the interval is much narrower than two separate ones suggest.

    Raises:
        DataError: the two scores are not of the same documents.
    """
    if not np.array_equal(a.bytes, b.bytes):
        raise DataError("Two scores can be paired only if they are of the same documents in the same order.")
    bits = a.bits - b.bits
    low, high = _interval_of_ratio(bits, a.bytes, samples, seed, level)
    return Difference(value=float(bits.sum() / a.bytes.sum()), low=low, high=high)


def paired_mean_difference(
    a: np.ndarray, b: np.ndarray, *, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> Difference:
    """Mean of one (Q,) column less that of another of the same questions, which are resampled in pairs."""
    difference = np.asarray(a, dtype=np.float64) - b
    low, high = _interval_of_ratio(difference, np.ones(len(difference)), samples, seed, level)
    return Difference(value=float(difference.mean()), low=low, high=high)


def _interval_of_ratio(
    numerator: np.ndarray, denominator: np.ndarray, samples: int, seed: int, level: float
) -> tuple[float, float]:
    """Of the sum of one (D,) column over the sum of another."""

    def ratio(index: np.ndarray) -> np.ndarray:
        return numerator[index].sum(axis=1) / denominator[index].sum(axis=1)

    return _interval(ratio, len(numerator), samples, seed, level)


def _interval(
    statistic: Callable[[np.ndarray], np.ndarray], documents: int, samples: int, seed: int, level: float
) -> tuple[float, float]:
    """Percentiles of the statistic over resampled documents; `statistic` maps (n, D) indices to (n,) values."""
    generator = np.random.default_rng(seed)
    at_once = max(1, INDICES_AT_ONCE // documents)
    values = [
        statistic(generator.integers(documents, size=(min(at_once, samples - done), documents)))
        for done in range(0, samples, at_once)
    ]
    low, high = np.quantile(np.concatenate(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
