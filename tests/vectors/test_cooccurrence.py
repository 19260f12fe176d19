import numpy as np
import pytest

from revocab.errors import DataError
from revocab.vectors import cooccurrence_vectors


def cosines(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def test_tokens_of_one_topic_are_near_and_topics_apart(topical_corpus, counted):
    result = cooccurrence_vectors(counted(topical_corpus), dim=4, min_count=5)
    assert result.vectors.shape == (24, 4)
    assert result.vectors.dtype == np.float32
    similar = cosines(result.vectors[2:22])
    assert similar[:10, :10].min() > 0.5
    assert similar[10:, 10:].min() > 0.5
    assert np.abs(similar[:10, 10:]).max() < 0.2


def test_rare_and_special_tokens_have_no_vector_but_are_counted(make_corpus, counted):
    documents = [[0, 2, 3, 2, 3, 4, 1]] * 3 + [[0, 5, 2, 3, 1]]
    result = cooccurrence_vectors(
        counted(make_corpus(documents, vocabulary_size=7, special_ids=(0, 1))), dim=2, min_count=3
    )
    assert result.counts.tolist() == [4, 4, 7, 7, 3, 1, 0]
    assert result.known.tolist() == [False, False, True, True, True, False, False]


def test_rare_tokens_are_no_context_either(make_corpus, counted):
    documents = [[1, 2, 1, 2, 3], [2, 1, 3, 3]] * 4
    with_rare = [[*document, 4] for document in documents[:2]] + documents[2:]
    plain = cooccurrence_vectors(counted(make_corpus(documents, vocabulary_size=5)), dim=3, min_count=3)
    other = cooccurrence_vectors(counted(make_corpus(with_rare, vocabulary_size=5)), dim=3, min_count=3)
    np.testing.assert_allclose(plain.vectors, other.vectors, atol=1e-6)


def test_inner_products_approach_the_ppmi_matrix(make_corpus, counted, count_neighbours):
    """With all dimensions, U S^(1/2) has the PPMI's own left Gram matrix: U S U.T = (M M.T)^(1/2)."""
    from revocab.vectors.ppmi import ppmi

    corpus = make_corpus(np.random.default_rng(2).zipf(1.5, size=(80, 15)).clip(max=12).tolist(), vocabulary_size=13)
    result = cooccurrence_vectors(counted(corpus), dim=13, min_count=1)
    kept = np.flatnonzero(result.counts)
    matrix = ppmi(count_neighbours(corpus, 5)[kept][:, kept], 0.75).toarray().astype(np.float64)
    left, values, _ = np.linalg.svd(matrix)
    np.testing.assert_allclose(result.vectors[kept] @ result.vectors[kept].T, (left * values) @ left.T, atol=1e-4)


def test_the_same_seed_gives_the_same_vectors(topical_corpus, counted):
    first, second = (cooccurrence_vectors(counted(topical_corpus), dim=6, seed=9) for _ in range(2))
    np.testing.assert_array_equal(first.vectors, second.vectors)


def test_more_dimensions_than_tokens_leave_zeros(topical_corpus, counted):
    result = cooccurrence_vectors(counted(topical_corpus), dim=300)
    assert result.vectors.shape == (24, 300)
    assert not result.vectors[:, 20:].any()
    assert np.isfinite(result.vectors).all()


@pytest.mark.parametrize("documents", [[], [[0, 2, 3, 1]]])
def test_a_corpus_too_small_is_an_error_that_says_what_to_do(make_corpus, documents, counted):
    with pytest.raises(DataError, match="use a larger corpus or a smaller min_count"):
        cooccurrence_vectors(counted(make_corpus(documents, vocabulary_size=4, special_ids=(0, 1))), min_count=5)
