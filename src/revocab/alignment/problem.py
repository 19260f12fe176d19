"""What an alignment starts from: the two vocabularies with what is known about them, and the settings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from revocab.artifacts import Boundaries, Pairs, Pieces, TokenVectors, Vocabulary
from revocab.errors import ConfigError

SIMILARITIES = ("cosine", "dot")
SUBTOKEN_WEIGHTS = ("uniform", "length", "first", "last", "ends")
FIT_WEIGHTS = ("uniform", "log_count", "count")
FALLBACKS = ("mean", "subtoken", "random", "zero")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Everything that a method may look at. T target tokens, S source tokens."""

    source: Vocabulary
    target: Vocabulary
    exact: Pairs  # tokens of one surface
    exact_by_string: Pairs  # tokens whose raw strings are equal, as the published code compares them
    roles: Pairs  # bos, eos, unk, pad
    pieces: Pieces  # the source tokens of each target surface
    source_vectors: TokenVectors | None = None  # for methods that compare vectors
    target_vectors: TokenVectors | None = None
    boundaries: Boundaries | None = None  # for `boundary_share` above 0
    source_counts: np.ndarray | None = None  # (S,) occurrences in the corpus, for `frequency_shift` above 0
    target_counts: np.ndarray | None = None  # (T,) occurrences in the corpus, for the report where there are no vectors
    names: tuple[str, str] = ("the source tokenizer", "the target tokenizer")  # for messages

    def __post_init__(self) -> None:
        if len(self.pieces) != len(self.target):
            raise ValueError(f"pieces of {len(self.pieces)} tokens for {len(self.target)} target tokens")
        for vectors, vocabulary in ((self.source_vectors, self.source), (self.target_vectors, self.target)):
            if vectors is not None and len(vectors.counts) != len(vocabulary):
                raise ValueError(f"vectors of {len(vectors.counts)} tokens for a vocabulary of {len(vocabulary)}")

    @property
    def shape(self) -> tuple[int, int]:
        """(T, S)."""
        return len(self.target), len(self.source)

    @property
    def seen(self) -> np.ndarray | None:
        """(T,) occurrences of the target tokens in the corpus; None where nobody counted."""
        if self.target_counts is not None:
            return self.target_counts
        return None if self.target_vectors is None else self.target_vectors.counts


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to align. Each field is the key of the same name in the config node `alignment`."""

    method: str
    similarity: str = "cosine"  # or dot, of vectors that are not normalised
    similarity_threshold: float | None = None  # matches below it go to the fallback; with dot, a limit for that product
    fallback: str = "mean"  # mean | subtoken | random | zero: rows without evidence
    pivot_count: int = 2000  # shared tokens that relative representations are made of
    top_k: int = 10  # source tokens mixed into one target token
    csls_neighbours: int = 10
    temperature: float = 0.1  # of the weights over the top k
    subtoken_share: float = 0.5  # of a row's weight, in `mixed`
    subtoken_weights: str = "uniform"  # length | first | last | ends: how the pieces of a token share its row
    fit_weights: str = "uniform"  # log_count | count: how much a shared token weighs in the fit of `procrustes`
    boundary_share: float = 0.0  # of each row's weight, from source tokens that begin or end where the token does
    frequency_shift: float = 0.0  # how far rows move to where tokens of their frequency are; 1: all the way
    min_count: int = 5  # occurrences below which a token's vector is no evidence
    heldout_pairs: int = 1000  # exact tokens held out of a fit to score it
    seed: int = 0
    device: str = "cpu"
    rows_at_once: int = 512  # rows compared at a time; memory is this times the other vocabulary, twice, in float32

    def __post_init__(self) -> None:
        _one_of("similarity", self.similarity, SIMILARITIES)
        _one_of("fallback", self.fallback, FALLBACKS)
        _one_of("subtoken_weights", self.subtoken_weights, SUBTOKEN_WEIGHTS)
        _one_of("fit_weights", self.fit_weights, FIT_WEIGHTS)
        for name in ("pivot_count", "top_k", "csls_neighbours", "min_count", "rows_at_once"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        _check("heldout_pairs", self.heldout_pairs, self.heldout_pairs >= 0, "at least 0")
        _check("temperature", self.temperature, self.temperature > 0, "above 0")
        _check("subtoken_share", self.subtoken_share, 0 <= self.subtoken_share <= 1, "in [0, 1]")
        _check("boundary_share", self.boundary_share, 0 <= self.boundary_share <= 1, "in [0, 1]")
        _check("frequency_shift", self.frequency_shift, 0 <= self.frequency_shift <= 2, "in [0, 2]")
        threshold = self.similarity_threshold
        bounded = threshold is None or self.similarity == "dot" or -1 <= threshold <= 1
        _check("similarity_threshold", threshold, bounded, "null or a cosine in [-1, 1]")


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    _check(name, value, value in allowed, "one of " + ", ".join(allowed))


def _check(name: str, value: object, right: bool, expected: str) -> None:
    if not right:
        raise ConfigError(f"alignment.{name}", value, expected)
