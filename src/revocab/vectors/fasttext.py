"""Token vectors by fastText's skip-gram (Bojanowski et al. 2017) without character n-grams: each token id is a word.

Three properties of fastText 0.9.3 shape this file:
- It fills the matrix that training starts from in tenths rounded down, one per thread, so with fewer than 10 threads
  (11 where 10 does not divide it) part of the vectors is uninitialised memory, without a word. Rows that come from a
  file of pretrained vectors are overwritten after that, so every row comes from such a file here, drawn as fastText
  draws it: the vectors are right at every number of threads. A word of that file counts one occurrence more.
- Its threads race for the same matrix, so two runs differ in the digits; one thread repeats exactly.
- It cuts lines at 1,024 words and goes on with the rest as a new line: nothing is lost but the windows across the cut.
"""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from revocab.artifacts import TokenizedCorpus, TokenVectors
from revocab.errors import ConfigError, MissingDependencyError
from revocab.runtime.cores import available_cores, whole_machine
from revocab.runtime.progress import heartbeat, track
from revocab.vectors.occurrences import frequent_tokens, token_counts

log = logging.getLogger(__name__)

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
        threads: at least 1; null is one per core.
        seed: of the vectors at the start; fastText's Python package takes none for its sampling, which is the same in
            every run. Repeats a run exactly where there is one thread.
        work_folder: holds the corpus as words, about 6 bytes a token, and the vectors at the start, about 12 bytes a
            number, for the time of the training.

    Raises:
        ConfigError: fewer than 1 thread.
        DataError: no token occurs `min_count` times.
        MissingDependencyError: fastText is not installed.
    """
    if threads is not None and threads < 1:
        raise ConfigError("embedding.fasttext.thread", threads, "1 or more, or null for one per core")
    threads = threads or available_cores()
    fasttext = _import_fasttext()
    counts_V = token_counts(tokens)
    kept = frequent_tokens(counts_V, tokens.special_ids, min_count)
    text, start = work_folder / f"tokens.{os.getpid()}.txt", work_folder / f"start.{os.getpid()}.txt"
    log.info("fastText: %d epochs of %d tokens on %d threads; this may take long", epochs, len(tokens.tokens), threads)
    terminal = sys.stderr.isatty()  # else fastText's own bar would fill a log file
    try:
        _write_words(tokens, text)
        _write_start([str(i) for i in kept] + [END_OF_LINE] * (len(tokens) >= min_count), dim, seed, start)
        with whole_machine(), nullcontext() if terminal else heartbeat("fastText"):
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
                pretrainedVectors=str(start),
                verbose=2 if terminal else 0,  # its own bar, with the time that is left
            )
    finally:
        text.unlink(missing_ok=True)
        start.unlink(missing_ok=True)
    return TokenVectors(vectors=_rows_of_tokens(model, kept, tokens.vocabulary_size, dim), counts=counts_V)


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


def _write_start(words: Sequence[str], dim: int, seed: int, path: Path) -> None:
    """Write a vector for every word, uniform in [-1/dim, 1/dim) as fastText draws them, in its text format."""
    generator = np.random.default_rng(seed)
    with path.open("w", encoding="ascii") as file:
        file.write(f"{len(words)} {dim}\n")
        for word in track(words, "writing vectors to start from"):
            numbers = generator.uniform(-1 / dim, 1 / dim, size=dim)
            file.write(f"{word} " + ("%.6g " * dim % tuple(numbers)) + "\n")


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
