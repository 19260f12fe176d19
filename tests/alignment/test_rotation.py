import numpy as np
import torch
from scipy.linalg import orthogonal_procrustes

from revocab.alignment.rotation import rotation_onto


def test_the_rotation_is_scipys():
    generator = np.random.default_rng(0)
    start, goal = generator.normal(size=(2, 30, 6))
    rotation = rotation_onto(torch.from_numpy(start), torch.from_numpy(goal)).numpy()
    np.testing.assert_allclose(rotation, orthogonal_procrustes(start, goal)[0], atol=1e-9)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(6), atol=1e-9)


def test_a_hidden_rotation_is_found_again():
    generator = np.random.default_rng(1)
    hidden = np.linalg.qr(generator.normal(size=(5, 5)))[0].astype(np.float32)
    start = generator.normal(size=(40, 5)).astype(np.float32)
    rotation = rotation_onto(torch.from_numpy(start), torch.from_numpy(start @ hidden))
    assert rotation.dtype == torch.float32
    np.testing.assert_allclose(rotation.numpy(), hidden, atol=1e-5)


def test_weights_count_a_pair_as_often_as_they_say():
    generator = np.random.default_rng(4)
    some, other = (torch.from_numpy(generator.normal(size=(6, 3))) for _ in range(2))
    times = torch.tensor([1, 3, 1, 2, 1, 5])
    repeated = rotation_onto(some.repeat_interleave(times, dim=0), other.repeat_interleave(times, dim=0))
    torch.testing.assert_close(rotation_onto(some, other, times), repeated)
    assert not torch.allclose(repeated, rotation_onto(some, other), atol=1e-3)
