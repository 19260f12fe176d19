"""What the steps hand to each other: frozen data, each able to write itself to a folder and read itself back.

Letters of shapes: D documents, N tokens of a corpus, V tokens of a vocabulary, T target tokens, S source tokens.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import sparse


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Texts as one flat UTF-8 memory map; iterating costs no more memory than one document."""

    text: np.ndarray  # (bytes,) uint8
    offsets: np.ndarray  # (D + 1,) int64: document d is text[offsets[d]:offsets[d + 1]]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        return bytes(self.text[self.offsets[index] : self.offsets[index + 1]]).decode()

    @property
    def num_bytes(self) -> int:
        return int(self.offsets[-1])

    @classmethod
    def load(cls, folder: Path, name: str) -> Documents:
        """Read `<name>.text` and `<name>.offsets.npy`."""
        return cls(text=memory_map(folder / f"{name}.text", np.uint8), offsets=np.load(folder / f"{name}.offsets.npy"))


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Deduplicated text in file order, split by document hash: no document is in both parts."""

    train: Documents
    heldout: Documents
    counts: Mapping[str, int]  # read, kept, duplicates, malformed, too short, held out, excluded, bytes

    @classmethod
    def load(cls, folder: Path) -> Corpus:
        counts = json.loads((folder / "counts.json").read_text())
        return cls(train=Documents.load(folder, "train"), heldout=Documents.load(folder, "heldout"), counts=counts)


@dataclass(frozen=True, kw_only=True)
class TokenizedCorpus:
    """Token ids of a corpus as one flat memory map, in document order.

    Each document is `[bos] ids [eos]`, the marks only where the tokenizer has them.
    """

    tokens: np.ndarray  # (N,) uint16, or uint32 where the vocabulary does not fit
    offsets: np.ndarray  # (D + 1,) int64
    vocabulary_size: int
    text_bytes: int  # UTF-8 bytes of the text behind it
    special_ids: tuple[int, ...]  # marks added between documents: no text stands behind them

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return a copy of `tokens[start:stop]`, cut at the end, that leaves no page of the file in this process.

        For passes over the whole corpus: what is read through the map itself counts as this process's memory.
        """
        stop = min(stop, len(self.tokens))
        if not isinstance(self.tokens, np.memmap) or stop <= start:
            return self.tokens[start:stop].copy()
        place = start * self.tokens.dtype.itemsize
        return np.fromfile(str(self.tokens.filename), self.tokens.dtype, count=stop - start, offset=place)

    @classmethod
    def load(cls, folder: Path) -> TokenizedCorpus:
        """Read `tokens.bin`, `offsets.npy` and `tokens.json`."""
        facts = json.loads((folder / "tokens.json").read_text())
        return cls(
            tokens=memory_map(folder / "tokens.bin", np.dtype(facts["dtype"])),
            offsets=np.load(folder / "offsets.npy"),
            vocabulary_size=facts["vocabulary_size"],
            text_bytes=facts["text_bytes"],
            special_ids=tuple(facts["special_ids"]),
        )


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """A tokenizer's tokens by id, whatever its kind, in one common form.

    The surface of a token is the bytes that it stands for, with the word-start mark as a space: `▁the`, `Ġthe`
    and ` the` are one surface. Special and unused tokens have the empty surface.
    """

    tokens: tuple[str, ...]  # (V,) raw strings as the tokenizer spells them; "" for an unused id
    surfaces: tuple[bytes, ...]  # (V,)
    special: np.ndarray  # (V,) bool: control tokens, chat marks, padding: no text stands behind them
    single_byte: np.ndarray  # (V,) bool: byte pieces (`<0x0A>`), and tokens of one byte that is not a character
    roles: Mapping[str, int]  # role (bos, eos, unk, pad) to id, only those that exist

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Tokens that are the same in both vocabularies: row i says target_ids[i] is source_ids[i].

    Each target token stands at most once.
    """

    target_ids: np.ndarray  # (K,) int64, ascending
    source_ids: np.ndarray  # (K,) int64

    def __len__(self) -> int:
        return len(self.target_ids)


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """For each target token the source tokens that its surface is cut into; none for special tokens."""

    ids: np.ndarray  # (sum of pieces,) int64 source ids
    offsets: np.ndarray  # (T + 1,) int64

    def __getitem__(self, target_id: int) -> np.ndarray:
        return self.ids[self.offsets[target_id] : self.offsets[target_id + 1]]

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, kw_only=True)
class Boundaries:
    """How often a source token begins, and ends, where a target token does, in one corpus that both cut."""

    starts: sparse.csr_matrix  # (T, S) int64
    ends: sparse.csr_matrix  # (T, S) int64
    target_tokens: int  # that were compared, those that stand for text
    documents: int  # that were compared
    documents_left_out: int  # whose tokens do not spell the same text in both

    def save(self, folder: Path) -> None:
        sparse.save_npz(folder / "starts.npz", self.starts)
        sparse.save_npz(folder / "ends.npz", self.ends)
        facts = {name: getattr(self, name) for name in ("target_tokens", "documents", "documents_left_out")}
        (folder / "boundaries.json").write_text(json.dumps(facts))

    @classmethod
    def load(cls, folder: Path) -> Boundaries:
        starts, ends = (sparse.csr_matrix(sparse.load_npz(folder / f"{name}.npz")) for name in ("starts", "ends"))
        return cls(starts=starts, ends=ends, **json.loads((folder / "boundaries.json").read_text()))


@dataclass(frozen=True, kw_only=True)
class TokenVectors:
    """Vectors of tokens learned from a corpus."""

    vectors: np.ndarray  # (V, dim) float32; zero where the token is rarer than the backend's minimum count
    counts: np.ndarray  # (V,) int64 occurrences in the corpus

    def __post_init__(self) -> None:
        if len(self.vectors) != len(self.counts):
            raise ValueError(f"vectors and counts differ in length: {len(self.vectors)} and {len(self.counts)}")

    @property
    def known(self) -> np.ndarray:
        """(V,) bool: tokens that have a vector."""
        return np.any(self.vectors != 0, axis=1)

    def save(self, folder: Path) -> None:
        np.save(folder / "vectors.npy", self.vectors)
        np.save(folder / "counts.npy", self.counts)

    @classmethod
    def load(cls, folder: Path) -> TokenVectors:
        return cls(vectors=np.load(folder / "vectors.npy"), counts=np.load(folder / "counts.npy"))


class Origin(IntEnum):
    """Where the weights of a target token came from."""

    EXACT = 0  # same surface in both vocabularies
    ROLE = 1  # same special role (bos, eos, unk, pad)
    VECTORS = 2  # token vectors of tokens that occur often enough
    SUBTOKENS = 3  # the token's own pieces, not all of them single bytes
    MIXED = 4  # both of the two above
    UNSEEN = 5  # nothing to go by: the fallback initialises it
    BELOW_THRESHOLD = 6  # a match was found, but not similar enough: the fallback initialises it
    BASELINE = 7  # the method looks at no evidence at all (mean, random)


EXACT_ORIGINS = (Origin.EXACT, Origin.ROLE)
ALIGNED_ORIGINS = (Origin.VECTORS, Origin.SUBTOKENS, Origin.MIXED)
FALLBACK_ORIGINS = (Origin.UNSEEN, Origin.BELOW_THRESHOLD, Origin.BASELINE)


@dataclass(frozen=True, kw_only=True)
class TableWeights:
    """W of one embedding table: sparse weights, and dense rows that many tokens share in parts.

    W = weights + sum over the dense rows of share (T, 1) * row (1, S).
    """

    weights: sparse.csr_matrix  # (T, S) float32
    dense: tuple[tuple[np.ndarray, np.ndarray], ...]  # share (T,) and row (S,), float32

    def row_sums(self) -> np.ndarray:
        """(T,) float64 sums of the rows of W."""
        sums_T = np.asarray(self.weights.sum(axis=1, dtype=np.float64)).ravel()
        return sums_T + sum(share_T * row_S.sum(dtype=np.float64) for share_T, row_S in self.dense)

    def apply(self, table: np.ndarray) -> np.ndarray:
        """W @ table: (S, dim) float32 to (T, dim) float32."""
        rows = np.asarray(self.weights @ table, dtype=np.float32)
        for share_T, row_S in self.dense:
            used = np.flatnonzero(share_T)
            if len(used):
                rows[used] += share_T[used, None] * (row_S @ table)[None, :]
        return rows


@dataclass(frozen=True, kw_only=True)
class FrequencyShift:
    """Moves rows to where the source table has tokens as frequent as they are; `alignment/frequency.py` says how.

    `slope @ table` is how an embedding changes when its token gets e times as frequent. The slope sums to 0, so that
    rows of W still sum to 1, though not all of their weights are positive then.
    """

    slope: np.ndarray  # (S,) float32, sums to 0
    source_log: np.ndarray  # (S,) float32 log frequencies
    target_log: np.ndarray  # (T,) float32; nan for rows that are not moved
    strength: float  # 1: all the way
    limit: float  # of a move, in units of log frequency

    def shares(self, weights: sparse.csr_matrix, background: np.ndarray, background_share: np.ndarray) -> np.ndarray:
        """(T,) float32 how far each row moves, given what its weights say of its frequency."""
        implied_T = weights @ self.source_log + background_share * (background @ self.source_log)
        missing_T = np.clip(np.nan_to_num(self.target_log - implied_T), -self.limit, self.limit)
        return (self.strength * missing_T).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """W: for every target token the weights over source tokens that make its embedding, and where they came from.

    W = weights + background_share (T, 1) * background (1, S). The mean of a whole table is a dense row of W; it is
    kept once, as `background`, and rows that use it hold only their share of it. Rows of W sum to 1, but for rows
    that the config asked to be zero (`fallback: zero`), which sum to 0.

    A method may give the output table weights of its own. Tied tables are one: they get the mean of the two.
    """

    weights: sparse.csr_matrix  # (T, S) float32
    output_weights: sparse.csr_matrix | None = None  # (T, S) float32 of the output table; None: the same
    background: np.ndarray  # (S,) float32, sums to 1
    background_share: np.ndarray  # (T,) float32 in [0, 1]
    frequency: FrequencyShift | None = None  # of the output table, and of tied ones
    origin: np.ndarray  # (T,) int8, values of Origin
    similarity: np.ndarray  # (T,) float32: score of the best match; nan where no vectors were compared
    report: Mapping[str, Any] = field(default_factory=dict)  # what the method counted on its way

    def __post_init__(self) -> None:
        lengths = {self.weights.shape[0], len(self.background_share), len(self.origin), len(self.similarity)}
        if len(lengths) > 1:
            raise ValueError(f"the columns of an Alignment must have one length, got {sorted(lengths)}")
        if self.output_weights is not None and self.output_weights.shape != self.weights.shape:
            raise ValueError(f"weights of two shapes: {self.weights.shape} and {self.output_weights.shape}")
        if self.weights.shape[1] != len(self.background):
            raise ValueError(f"background has {len(self.background)} entries for {self.weights.shape[1]} source tokens")

    @property
    def shape(self) -> tuple[int, int]:
        """(T, S)."""
        return self.weights.shape

    def row_sums(self) -> np.ndarray:
        """(T,) float64 sums of the rows of W, which are the same for both tables."""
        return self.for_table("input").row_sums()

    def for_table(self, table: Literal["input", "output", "tied"]) -> TableWeights:
        """W of one table; tied tables are both, and get the mean of the two.

        How frequent a token is shows in how likely the model says it, which is the output table's affair: an input
        table of its own is not moved.
        """
        weights = self.weights
        if self.output_weights is not None and table != "input":
            output = self.output_weights
            weights = output if table == "output" else sparse.csr_matrix((weights + output) / 2)
        dense = [(self.background_share, self.background)]
        if self.frequency is not None and table != "input":
            moved_T = self.frequency.shares(weights, self.background, self.background_share)
            dense.append((moved_T, self.frequency.slope))
        return TableWeights(weights=weights, dense=tuple(dense))

    def save(self, folder: Path) -> None:
        sparse.save_npz(folder / "weights.npz", self.weights)
        if self.output_weights is not None:
            sparse.save_npz(folder / "output_weights.npz", self.output_weights)
        if self.frequency is not None:
            np.savez(folder / "frequency.npz", **asdict(self.frequency))
        np.savez(
            folder / "rows.npz",
            background=self.background,
            background_share=self.background_share,
            origin=self.origin,
            similarity=self.similarity,
        )
        (folder / "report.json").write_text(json.dumps(self.report, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Alignment:
        with np.load(folder / "rows.npz") as rows:
            columns = {name: rows[name] for name in rows.files}
        weights = sparse.csr_matrix(sparse.load_npz(folder / "weights.npz"))
        own = folder / "output_weights.npz"
        return cls(
            weights=weights,
            output_weights=sparse.csr_matrix(sparse.load_npz(own)) if own.is_file() else None,
            frequency=cls._load_frequency(folder / "frequency.npz"),
            report=json.loads((folder / "report.json").read_text()),
            **columns,
        )

    @staticmethod
    def _load_frequency(path: Path) -> FrequencyShift | None:
        if not path.is_file():
            return None
        with np.load(path) as saved:
            arrays = {name: saved[name] for name in ("slope", "source_log", "target_log")}
            return FrequencyShift(**arrays, strength=float(saved["strength"]), limit=float(saved["limit"]))


@dataclass(frozen=True, kw_only=True)
class TextScore:
    """How well one model predicts one held-out set, per document, so that sets can be resampled and paired."""

    bits: np.ndarray  # (D,) float64 negative log-likelihood in bits, all tokens of the document
    bytes: np.ndarray  # (D,) int64 UTF-8 bytes of the document
    tokens: np.ndarray  # (D,) int64 scored tokens

    def of(self, documents: slice | Sequence[int]) -> TextScore:
        """The score of some of the documents."""
        return TextScore(**{name: column[documents] for name, column in vars(self).items()})

    @property
    def bits_per_byte(self) -> float:
        return float(self.bits.sum() / self.bytes.sum())

    @property
    def perplexity(self) -> float:
        """Per token of the model's own tokenizer: does not compare across vocabularies."""
        return float(2.0 ** (self.bits.sum() / self.tokens.sum()))

    @property
    def bytes_per_token(self) -> float:
        return float(self.bytes.sum() / self.tokens.sum())

    def save(self, path: Path) -> None:
        np.savez(path, bits=self.bits, bytes=self.bytes, tokens=self.tokens)

    @classmethod
    def load(cls, path: Path) -> TextScore:
        with np.load(path) as columns:
            return cls(**{name: columns[name] for name in columns.files})


@dataclass(frozen=True, kw_only=True)
class AnswerScore:
    """How likely one model takes each answer of each question of one task to be.

    Q questions, A answers of all of them; those of question q are offsets[q] ... offsets[q + 1] - 1.
    """

    nats: np.ndarray  # (A,) float64 log-likelihood of the answer behind its prompt
    bytes: np.ndarray  # (A,) int64 UTF-8 bytes of the answer, the space before it not counted
    tokens: np.ndarray  # (A,) int64 tokens that `nats` is summed over
    offsets: np.ndarray  # (Q + 1,) int64
    gold: np.ndarray  # (Q,) int64 place of the right answer among those of its question

    def __len__(self) -> int:
        return len(self.gold)

    def predictions(self, per: str | None = None) -> np.ndarray:
        """(Q,) int64 place of the likeliest answer, the first of equals; `per` divides by `bytes` or `tokens`."""
        values = self.nats if per is None else self.nats / getattr(self, per)
        spans = itertools.pairwise(self.offsets)
        return np.array([int(values[start:end].argmax()) for start, end in spans], dtype=np.int64)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Per question, as data: its number, the right answer, the one predicted, and the nats of each."""
        spans = itertools.pairwise(self.offsets)
        for number, ((start, end), predicted) in enumerate(zip(spans, self.predictions(), strict=True)):
            nats = self.nats[start:end].tolist()
            yield {"question": number, "gold": int(self.gold[number]), "predicted": int(predicted), "nats": nats}

    def save(self, path: Path) -> None:
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> AnswerScore:
        with np.load(path) as columns:
            return cls(**{name: columns[name] for name in columns.files})


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """What a stage of training did, in the terms of summary.json."""

    kind: str  # tables | full | lora | lora_tables | first_last
    steps: int  # optimiser steps
    tokens: int
    seconds: float
    tokens_per_second: float
    peak_memory_bytes: int  # of the accelerator; of the process on CPU
    trainable_parameters: int
    loss_first: float
    loss_last: float  # mean over the last tenth of the logged steps
    loss_max: float
    grad_norm_max: float  # before clipping
    spikes: int  # steps whose loss stands out of the running median
    skipped_steps: int = 0  # left out, for their loss or gradient was not finite
    checkpoint_bytes: int = 0  # the most that its checkpoints took on the disk while it ran
    data_share: float = 0.0  # of its seconds, in which the loop waited for the next micro-batch
    kernels: str = "plain"  # or whose fused ones it computed with
    on_the_way: list[dict[str, Any]] = field(default_factory=list)  # held-out {step, bytes, seconds, bpb by data set}

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def memory_map(path: Path, dtype: np.dtype | type) -> np.ndarray:
    """A read-only map of a flat binary file; an empty array where the file is empty, which cannot be mapped."""
    if path.stat().st_size == 0:
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")
