import numpy as np
import pytest
import torch
from scipy import sparse

from revocab.vectors.factorise import leading_singular_vectors

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def decaying_matrix(size=60):
    generator = np.random.default_rng(0)
    left = np.linalg.qr(generator.normal(size=(size, size)))[0]
    right = np.linalg.qr(generator.normal(size=(size, size)))[0]
    return (left * (50 * 0.7 ** np.arange(size))) @ right.T


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_values_and_subspace_are_those_of_the_exact_svd(device):
    dense = decaying_matrix()
    left, values = leading_singular_vectors(sparse.csr_matrix(dense, dtype=np.float32), 8, seed=0, device=device)
    exact_left, exact_values, _ = np.linalg.svd(dense)
    np.testing.assert_allclose(values, exact_values[:8], rtol=1e-4)
    angles = np.linalg.svd(exact_left[:, :8].T @ left)[1]  # cosines of the angles between the two subspaces
    np.testing.assert_allclose(angles, 1.0, atol=1e-4)
    np.testing.assert_allclose(left.T @ left, np.eye(8), atol=1e-4)


def test_a_seed_gives_the_same_result_and_leaves_torch_randomness_alone():
    matrix = sparse.random(80, 80, density=0.2, random_state=1, format="csr", dtype=np.float32)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = leading_singular_vectors(matrix, 10, seed=4)
    assert torch.equal(torch.rand(3), expected)
    second = leading_singular_vectors(matrix, 10, seed=4)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize("device", ["cpu", "cpu:0", pytest.param("cuda", marks=needs_cuda)])  # cpu:0: a GPU's layout
def test_matrix_and_transpose_multiply_as_dense_ones_do(device):
    from revocab.vectors.factorise import _with_transpose

    matrix = sparse.random(30, 20, density=0.3, random_state=2, format="csr", dtype=np.float32)
    dense = torch.from_numpy(matrix.toarray())
    for sparse_one, dense_one in zip(_with_transpose(matrix, device), (dense, dense.T), strict=True):
        assert sparse_one.layout is (torch.sparse_csr if device == "cpu" else torch.sparse_coo)
        vectors = torch.rand(dense_one.shape[1], 4)
        torch.testing.assert_close((sparse_one @ vectors.to(device)).cpu(), dense_one @ vectors)


@pytest.mark.parametrize("size", [1, 3])
def test_a_matrix_smaller_than_the_rank_gives_all_it_has(size):
    left, values = leading_singular_vectors(sparse.csr_matrix(np.eye(size), dtype=np.float32), 300, seed=0)
    assert left.shape == (size, size)
    np.testing.assert_allclose(values, np.ones(size), atol=1e-5)


@pytest.mark.parametrize("device", ["cpu:0", pytest.param("cuda", marks=needs_cuda)])  # the first: a GPU's layout
def test_every_device_finds_the_same_up_to_rounding(device):
    matrix = sparse.random(300, 300, density=0.2, random_state=3, format="csr", dtype=np.float32)
    left, values = leading_singular_vectors(matrix, 20, seed=0)
    other_left, other_values = leading_singular_vectors(matrix, 20, seed=0, device=device)
    np.testing.assert_allclose(other_values, values, rtol=1e-5)
    np.testing.assert_allclose(other_left, left, atol=1e-3)


def test_the_result_is_that_of_torch_from_the_same_start():
    matrix = sparse.random(300, 300, density=0.2, random_state=3, format="csr", dtype=np.float32)
    left, values = leading_singular_vectors(matrix, 20, seed=7)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        expected_left, expected_values, _ = torch.svd_lowrank(torch.from_numpy(matrix.toarray()), q=40, niter=2)
    np.testing.assert_allclose(values, expected_values[:20].numpy(), rtol=1e-5)
    np.testing.assert_allclose(np.abs(left), np.abs(expected_left[:, :20].numpy()), atol=1e-3)
    largest = np.abs(left).argmax(axis=0)
    assert (left[largest, np.arange(20)] > 0).all()
