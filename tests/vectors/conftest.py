"""Small tokenized corpora made in memory."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from revocab.artifacts import TokenizedCorpus
from revocab.vectors import PairCounts, count_shard
from revocab.vectors.counting import count_pairs

MakeCorpus = Callable[..., TokenizedCorpus]


@pytest.fixture(scope="session")
def make_corpus() -> MakeCorpus:
    def make(
        documents: Sequence[Sequence[int]], *, vocabulary_size: int, special_ids: Sequence[int] = ()
    ) -> TokenizedCorpus:
        flat = [token for document in documents for token in document]
        return TokenizedCorpus(
            tokens=np.array(flat, dtype=np.uint16),
            offsets=np.cumsum([0, *(len(document) for document in documents)]),
            vocabulary_size=vocabulary_size,
            text_bytes=len(flat),
            special_ids=tuple(special_ids),
        )

    return make


@pytest.fixture(scope="session")
def topical_corpus(make_corpus: MakeCorpus) -> TokenizedCorpus:
    """Two topics whose words, 2..11 and 12..21, never meet; 0 and 1 are marks around each document."""
    generator = np.random.default_rng(3)
    documents = []
    for i in range(400):
        words = generator.integers(2, 12, size=12) + 10 * (i % 2)
        documents.append([0, *words.tolist(), 1])
    return make_corpus(documents, vocabulary_size=24, special_ids=(0, 1))


@pytest.fixture
def counted(tmp_path: Path) -> Callable[..., PairCounts]:
    """Counts of a corpus as a shard leaves them."""

    def count(corpus: TokenizedCorpus, window: int = 5) -> PairCounts:
        folder = Path(mkdtemp(dir=tmp_path))
        count_shard(folder, corpus, window)
        return PairCounts.load(folder)

    return count


@pytest.fixture(scope="session")
def count_neighbours() -> Callable[..., sparse.csr_matrix]:
    """Counts as a whole symmetric matrix: a token beside itself counts from both ends."""

    def count(corpus: TokenizedCorpus, window: int, **options: Any) -> sparse.csr_matrix:
        pairs = count_pairs(corpus, window, **options)
        return sparse.csr_matrix(pairs + pairs.T.tocsr())

    return count
