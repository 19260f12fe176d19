"""TokAlign against an independent account of it, with loops and float64."""

from dataclasses import replace

import numpy as np
import pytest

from revocab.alignment import Settings, align
from revocab.artifacts import Origin, Pairs


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def straightforward(problem, exact, pivots, normalise):
    """For each target token without a twin: the source token with the most similar cosines to the pivots."""
    source = problem.source_vectors.vectors.astype(np.float64)
    target = problem.target_vectors.vectors.astype(np.float64)
    twins = dict(zip(exact.target_ids.tolist(), exact.source_ids.tolist(), strict=True))
    mapping, scores = {}, {}
    for t in range(len(target)):
        if t in twins:
            mapping[t] = twins[t]
            continue
        target_row = np.array([cosine(target[t], target[pivot]) for pivot in pivots])
        best = []
        for s in range(len(source)):
            source_row = np.array([cosine(source[s], source[twins[pivot]]) for pivot in pivots])
            best.append(cosine(target_row, source_row) if normalise else target_row @ source_row)
        mapping[t], scores[t] = int(np.argmax(best)), max(best)
    return mapping, scores


@pytest.fixture
def noisy(make_problem):
    generator = np.random.default_rng(21)
    source_vectors = generator.normal(size=(25, 6))
    target_vectors = generator.normal(size=(25, 6)) * 0.5 + source_vectors
    source = [f"s{i}".encode() for i in range(25)]
    target = [source[i] if i < 12 else f"t{i}".encode() for i in range(25)]
    return make_problem(source, target, source_vectors=source_vectors, target_vectors=target_vectors)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_the_map_and_its_scores_are_those_of_the_loops(noisy, similarity):
    mapping, scores = straightforward(noisy, noisy.exact, noisy.exact.target_ids, similarity == "cosine")
    alignment = align(noisy, Settings(method="tokalign_paper", similarity=similarity, pivot_count=12))
    assert alignment.weights.toarray().argmax(axis=1).tolist() == [mapping[t] for t in range(25)]
    for target_id, score in scores.items():
        assert alignment.similarity[target_id] == pytest.approx(score, abs=1e-4)


def test_the_unnormalised_product_is_unbounded_and_differs(noisy):
    cosines, products = (
        align(noisy, Settings(method="tokalign_paper", similarity=similarity)) for similarity in ("cosine", "dot")
    )
    assert np.nanmax(cosines.similarity) <= 1
    assert np.nanmax(products.similarity) > 1
    assert (cosines.weights != products.weights).nnz > 0


def test_pivots_are_drawn_with_the_seed_and_their_number(noisy):
    first, again, other = (
        align(noisy, Settings(method="tokalign_paper", pivot_count=4, seed=seed)).similarity for seed in (0, 0, 3)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, equal_nan=True)


@pytest.fixture
def two_spellings(noisy):
    """Half of the shared surfaces are spelled differently, so that their raw strings do not match."""
    half = Pairs(target_ids=noisy.exact.target_ids[::2], source_ids=noisy.exact.source_ids[::2])
    return replace(noisy, exact_by_string=half)


def test_the_code_variant_is_the_loops_over_raw_strings_and_products(two_spellings):
    by_string = two_spellings.exact_by_string
    mapping, scores = straightforward(two_spellings, by_string, by_string.target_ids, normalise=False)
    alignment = align(two_spellings, Settings(method="tokalign_code", pivot_count=300, seed=7))
    assert alignment.weights.toarray().argmax(axis=1).tolist() == [mapping[t] for t in range(25)]
    assert np.flatnonzero(alignment.origin == Origin.EXACT).tolist() == by_string.target_ids.tolist()
    for target_id, score in scores.items():
        assert alignment.similarity[target_id] == pytest.approx(score, abs=1e-4)
    assert alignment.report["similarity_kind"] == "dot"


def test_the_code_variant_draws_pivots_with_seed_zero_whatever_the_seed(two_spellings):
    first, other = (
        align(two_spellings, Settings(method="tokalign_code", pivot_count=3, seed=seed)).similarity for seed in (0, 5)
    )
    np.testing.assert_array_equal(first, other)


def test_the_code_variant_gives_unseen_tokens_a_random_source_token(two_spellings):
    vectors = two_spellings.target_vectors.vectors.copy()
    vectors[20:] = 0
    unseen = replace(two_spellings, target_vectors=replace(two_spellings.target_vectors, vectors=vectors))
    alignment = align(unseen, Settings(method="tokalign_code", fallback="zero"))
    assert alignment.origin[20:].tolist() == [Origin.UNSEEN] * 5
    assert (alignment.weights[20:].toarray().max(axis=1) == 1).all()
    assert np.isnan(alignment.similarity[20:]).all()
