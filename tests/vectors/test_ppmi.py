import math

import numpy as np
import pytest
from scipy import sparse

from revocab.vectors.ppmi import ppmi


def definition(counts, exponent):
    """PPMI with context smoothing from its definition, entry by entry, in float64."""
    total = counts.sum()
    smoothed = sum(row.sum() ** exponent for row in counts)
    expected = np.zeros(counts.shape)
    for i, j in np.argwhere(counts):
        joint = counts[i, j] / total
        word, context = counts[i].sum() / total, counts[:, j].sum() ** exponent / smoothed
        expected[i, j] = max(0.0, math.log(joint / (word * context)))
    return expected


@pytest.mark.parametrize("exponent", [1.0, 0.75, 0.3])
def test_values_are_those_of_the_definition(exponent):
    generator = np.random.default_rng(1)
    half = generator.poisson(0.7, size=(20, 20)) * generator.integers(1, 60, size=(20, 20))
    counts = half + half.T
    result = ppmi(sparse.csr_matrix(counts), exponent)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.toarray(), definition(counts, exponent), atol=2e-6)
    assert result.data.min() > 0


def test_the_unit_of_the_counts_cancels():
    counts = sparse.csr_matrix(np.array([[0, 6, 1], [6, 2, 0], [1, 0, 0]]))
    np.testing.assert_allclose(ppmi(counts * 60, 0.75).toarray(), ppmi(counts, 0.75).toarray(), atol=1e-6)


def test_independent_tokens_carry_no_information():
    assert ppmi(sparse.csr_matrix(np.ones((4, 4), dtype=np.int64)), 1.0).nnz == 0


def test_a_token_without_neighbours_has_an_empty_row():
    result = ppmi(sparse.csr_matrix(np.array([[0, 3, 0], [3, 0, 0], [0, 0, 0]])), 0.75)
    assert np.isfinite(result.data).all()
    assert result[2].nnz == 0
