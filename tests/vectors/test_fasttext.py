import builtins

import numpy as np
import pytest

from revocab.errors import ConfigError, DataError, MissingDependencyError
from revocab.vectors import fasttext_vectors


@pytest.fixture
def installed():
    return pytest.importorskip("fasttext", reason="the optional package fasttext is not installed")


@pytest.mark.usefixtures("installed")
def test_topics_part_and_no_row_is_left_uninitialised(topical_corpus, tmp_path):
    result = fasttext_vectors(topical_corpus, dim=8, epochs=60, min_count=5, learning_rate=0.1, work_folder=tmp_path)
    assert result.known.tolist() == [False, False] + [True] * 20 + [False, False]
    assert np.isfinite(result.vectors).all()
    assert np.abs(result.vectors).max() < 100
    unit = result.vectors[2:22] / np.linalg.norm(result.vectors[2:22], axis=1, keepdims=True)
    similar = unit @ unit.T
    assert similar[:10, :10].mean() > similar[:10, 10:].mean() + 0.3
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("installed")
def test_rare_tokens_have_no_vector_and_long_documents_are_no_trouble(make_corpus, tmp_path):
    corpus = make_corpus([[0, *[2, 3, 4] * 1000, 1], [0, 5, 2, 1]], vocabulary_size=6, special_ids=(0, 1))
    result = fasttext_vectors(corpus, dim=4, epochs=1, min_count=2, work_folder=tmp_path)
    assert result.known.tolist() == [False, False, True, True, True, False]
    assert result.counts.tolist() == [2, 2, 1001, 1000, 1000, 1]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("dim", "threads"), [(8, 1), (1, 1), (7, 3), (8, 9), (7, 10), (7, None)])
def test_vectors_start_from_drawn_numbers_at_every_thread_count(topical_corpus, tmp_path, dim, threads):
    """At learning rate 0 they are what they started from: uniform in [-1/dim, 1/dim], whatever the count."""
    options = {"dim": dim, "epochs": 1, "learning_rate": 0.0, "work_folder": tmp_path, "seed": 5}
    vectors = fasttext_vectors(topical_corpus, threads=threads, **options).vectors
    assert np.abs(vectors[2:22]).max() <= 1 / dim + 1e-6
    assert np.count_nonzero(vectors[2:22]) == 20 * dim
    assert len(np.unique(vectors[2:22], axis=0)) == 20
    np.testing.assert_array_equal(vectors, fasttext_vectors(topical_corpus, threads=4, **options).vectors)


@pytest.mark.usefixtures("installed")
def test_one_thread_repeats_exactly_and_topics_part_there_too(topical_corpus, tmp_path):
    options = {"dim": 8, "epochs": 60, "learning_rate": 0.1, "threads": 1, "work_folder": tmp_path}
    first, second = (fasttext_vectors(topical_corpus, seed=2, **options).vectors for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, fasttext_vectors(topical_corpus, seed=3, **options).vectors)
    unit = first[2:22] / np.linalg.norm(first[2:22], axis=1, keepdims=True)
    similar = unit @ unit.T
    assert similar[:10, :10].mean() > similar[:10, 10:].mean() + 0.3


@pytest.mark.parametrize("threads", [0, -1])
def test_a_count_below_one_thread_is_refused(topical_corpus, tmp_path, threads):
    with pytest.raises(ConfigError, match=r"embedding\.fasttext\.thread must be 1 or more"):
        fasttext_vectors(topical_corpus, threads=threads, work_folder=tmp_path)


def test_a_missing_package_says_how_to_install_it(topical_corpus, tmp_path, monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *arguments, **options):
        if name == "fasttext":
            raise ImportError(name)
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match=r"apt install g\+\+.*pip install 'revocab\[fasttext\]'"):
        fasttext_vectors(topical_corpus, work_folder=tmp_path)


@pytest.mark.usefixtures("installed")
def test_a_corpus_without_frequent_tokens_is_an_error(make_corpus, tmp_path):
    with pytest.raises(DataError, match="no token occurs 5 times"):
        fasttext_vectors(make_corpus([[0, 1]], vocabulary_size=2), min_count=5, work_folder=tmp_path)
