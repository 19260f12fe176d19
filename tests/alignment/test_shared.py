"""FOCUS and orthogonal matching pursuit: mixtures of shared tokens, against slow and independent ways."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, nnls

from revocab.alignment import Settings, align
from revocab.alignment.methods import focus, omp
from revocab.artifacts import Origin

GENERATOR = np.random.default_rng(5)


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    scores = GENERATOR.normal(size=(6, 5))
    weights = focus.sparsemax(torch.from_numpy(scores)).numpy()
    for row, found in zip(scores, weights, strict=True):
        best = minimize(
            lambda point, row=row: ((point - row) ** 2).sum(),
            np.full(5, 0.2),
            bounds=[(0, 1)] * 5,
            constraints={"type": "eq", "fun": lambda point: point.sum() - 1},
        )
        np.testing.assert_allclose(found, best.x, atol=1e-4)
    assert focus.sparsemax(torch.tensor([[3.0, 0.0]])).tolist() == [[1.0, 0.0]]
    assert focus.sparsemax(torch.tensor([[0.5, 0.3]])).tolist()[0] == pytest.approx([0.6, 0.4])


def test_nonnegative_fit_is_scipys():
    parts, wanted = GENERATOR.normal(size=(8, 4, 12)), GENERATOR.normal(size=(8, 12))
    found = omp.nonnegative_fit(torch.from_numpy(parts), torch.from_numpy(wanted)).numpy()
    for own_parts, own_wanted, coefficients in zip(parts, wanted, found, strict=True):
        np.testing.assert_allclose(coefficients, nnls(own_parts.T, own_wanted)[0], atol=1e-4)


def test_a_sparse_mixture_is_found_again():
    shared = torch.nn.functional.normalize(torch.from_numpy(GENERATOR.normal(size=(40, 64))), dim=1)
    truth = torch.zeros(5, 40, dtype=torch.float64)
    for row in truth:
        row[torch.from_numpy(GENERATOR.choice(40, 3, replace=False))] = torch.tensor([0.5, 0.3, 0.2]).double()
    weights, _ = omp.mixtures(truth @ shared, shared, Settings(method="omp", top_k=3))
    np.testing.assert_allclose(weights.toarray(), truth.numpy(), atol=1e-3)


def test_a_vector_that_points_away_from_all_takes_the_nearest():
    shared = torch.eye(4)[:2]
    weights, best = omp.mixtures(torch.tensor([[-1.0, -2.0, 0.0, 0.0]]), shared, Settings(method="omp", top_k=2))
    assert weights.toarray().tolist() == [[1.0, 0.0]]
    assert best[0] == pytest.approx(-1 / 5**0.5)


@pytest.mark.parametrize("method", ["focus", "omp"])
def test_only_shared_tokens_are_mixed_and_the_threshold_drops_weak_rows(rotated_problem, method):
    problem = rotated_problem
    alignment = align(problem, Settings(method=method, top_k=4))
    own = np.flatnonzero(alignment.origin == Origin.VECTORS)
    assert own.tolist() == list(range(40, 50))
    assert set(alignment.weights[own].indices) <= set(problem.exact.source_ids)
    np.testing.assert_allclose(alignment.row_sums(), 1.0, atol=1e-6)
    limit = float(np.median(alignment.similarity[own]))
    strict = align(problem, Settings(method=method, top_k=4, similarity_threshold=limit))
    assert (strict.origin[own] == Origin.BELOW_THRESHOLD).sum() == (alignment.similarity[own] < limit).sum() > 0


def test_the_block_size_changes_nothing(rotated_problem):
    for method in ("focus", "omp"):
        whole = align(rotated_problem, Settings(method=method, top_k=4))
        blocks = align(rotated_problem, Settings(method=method, top_k=4, rows_at_once=3))
        np.testing.assert_allclose(whole.weights.toarray(), blocks.weights.toarray(), atol=1e-5)
