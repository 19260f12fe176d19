"""Token vectors by fastText's skip-gram (Bojanowski et al. 2017) without character n-grams: each token id is a word.

Three properties of fastText 0.9.3 shape this file:
- It fills the input matrix in tenths rounded down, one per thread, so with fewer than 10 threads part of the vectors
  is uninitialised memory, without a word; where 10 does not divide the matrix, so is the remainder unless an eleventh
  thread fills it. As many threads run here as fill the matrix, whatever the machine has.
- Its threads race for the same matrix, so two runs differ in the digits, and its Python package takes no seed.
- It cuts lines at 1,024 words and goes on with the rest as a new line: nothing is lost but the windows across the cut.
"""

import logging
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from revocab.artifacts import TokenizedCorpus, TokenVectors
from revocab.errors import ConfigError, DataError, MissingDependencyError
from revocab.runtime.progress import track
from revocab.vectors.cores import available_cores
from revocab.vectors.occurrences import frequent_tokens, token_counts

log = logging.getLogger(__name__)

LEAST_THREADS = 10
END_OF_LINE = "</s>"  # fastText adds it to every line as a word of its own
DOCUMENTS_AT_ONCE = 10_000


def fasttext_vectors(
    tokens: TokenizedCorpus,
    *,
    dim: int = 300,
    window: int = 5,
    epochs: int = 30,
    min_count: int = 1,
    learning_rate: float = 0.05,
    threads: int | None = None,
    seed: int = 0,
    work_folder: Path,
) -> TokenVectors:
    """Return vectors (V, dim) of all tokens that occur `min_count` times; other rows are zero.

    Args:
        tokens: the corpus in one vocabulary; its marks between documents are left out.
        dim: width of the vectors.
        window: largest distance of neighbours; fastText draws one up to it for each token.
        epochs: passes over the corpus.
        min_count: tokens rarer than this are left out of the training text's vocabulary.
        learning_rate: at the start; it falls linearly to zero.
        threads: at least 10; null is the larger of 10 and the cores.
        seed: has no effect, since fastText's Python package takes none; all backends are called alike.
        work_folder: where the corpus is written as words for the time of the training, about 6 bytes a token.

    Raises:
        ConfigError: fewer than 10 threads.
        DataError: no token occurs `min_count` times.
        MissingDependencyError: fastText is not installed.
    """
    threads = _checked_threads(threads)
    fasttext = _import_fasttext()
    counts_V = token_counts(tokens)
    kept = frequent_tokens(tokens, counts_V, min_count)
    threads = max(threads, threads_that_fill(len(kept), dim), threads_that_fill(len(kept) + 1, dim))  # with </s>
    text = work_folder / f"tokens.{os.getpid()}.txt"
    log.info("fastText: %d epochs of %d tokens on %d threads; this may take long", epochs, len(tokens.tokens), threads)
    try:
        _write_words(tokens, text)
        model = fasttext.train_unsupervised(
            str(text),
            model="skipgram",
            dim=dim,
            ws=window,
            epoch=epochs,
            lr=learning_rate,
            minCount=min_count,
            minn=0,
            maxn=0,
            bucket=0,
            thread=threads,
            verbose=2 if sys.stderr.isatty() else 0,  # its own bar, with the time that is left
        )
    finally:
        text.unlink(missing_ok=True)
    return TokenVectors(vectors=_rows_of_tokens(model, kept, tokens.vocabulary_size, dim), counts=counts_V)


def _checked_threads(threads: int | None) -> int:
    if threads is None:
        return max(LEAST_THREADS, available_cores())
    if threads < LEAST_THREADS:
        raise ConfigError(
            "embedding.fasttext.thread",
            threads,
            f"at least {LEAST_THREADS}, whatever the machine has",
            "fastText leaves part of the vectors uninitialised with fewer; null chooses.",
        )
    return threads


def threads_that_fill(rows: int, dim: int) -> int:
    """Return how many blocks of a tenth, rounded down, cover a matrix: 10, or 11 for a remainder; more if it is tiny.

    Raises:
        DataError: the matrix has fewer than 10 numbers, of which fastText fills none.
    """
    tenth = rows * dim // LEAST_THREADS
    if tenth == 0:
        raise DataError(
            f"fastText cannot fill vectors of {rows} tokens and {dim} dimensions: use a larger corpus or embedding.dim"
        )
    return -(-rows * dim // tenth)


def _import_fasttext() -> ModuleType:
    try:
        import fasttext
    except ImportError as error:
        raise MissingDependencyError(
            "fasttext",
            "embedding=fasttext",
            "it is compiled from source, so a C++ compiler comes first (such as `apt install g++`), "
            "then `pip install 'revocab[fasttext]'`; embedding=cooccurrence needs neither",
        ) from error
    return fasttext


def _write_words(tokens: TokenizedCorpus, path: Path) -> None:
    """Write one line per document, token ids as words, marks between documents left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words_V = np.array([str(i) for i in range(tokens.vocabulary_size)], dtype=object)
    words_V[list(tokens.special_ids)] = ""
    with path.open("w", encoding="ascii") as file:
        for start in track(range(0, len(tokens), DOCUMENTS_AT_ONCE), "writing token ids as words"):
            borders = tokens.offsets[start : start + DOCUMENTS_AT_ONCE + 1]
            words = words_V[tokens.tokens[borders[0] : borders[-1]]]
            for first, last in zip(borders[:-1] - borders[0], borders[1:] - borders[0], strict=True):
                file.write(" ".join(words[first:last]) + "\n")


def _rows_of_tokens(model: Any, kept: np.ndarray, vocabulary_size: int, dim: int) -> np.ndarray:
    """Gather fastText's vectors, ordered by frequency, into rows by token id."""
    matrix = np.asarray(model.get_input_matrix(), dtype=np.float32)
    vectors = np.zeros((vocabulary_size, dim), dtype=np.float32)
    is_kept = np.zeros(vocabulary_size, dtype=bool)
    is_kept[kept] = True
    for row, word in enumerate(model.words):
        if word != END_OF_LINE and is_kept[int(word)]:
            vectors[int(word)] = matrix[row]
    return vectors
