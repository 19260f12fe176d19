import subprocess
import sys

import numpy as np
import pytest
import torch

from revocab.alignment.neighbours import crowding, nearest_rows


def unit(shape, seed):
    vectors = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1)


def brute_force_csls(query, rows, others, neighbours, k):
    """CSLS by loops over float64: 2 cos - mean cosine of the row with its nearest among the others."""
    ranked = []
    for q in query.double().numpy():
        scores = []
        for row in rows.double().numpy():
            crowd = np.sort([row @ other for other in others.double().numpy()])[::-1][:neighbours].mean()
            scores.append(2 * (q @ row) - crowd)
        ranked.append(np.argsort(scores)[::-1][:k])
    return np.array(ranked)


@pytest.mark.parametrize("rows_at_once", [1, 3, 100])
def test_csls_is_the_brute_force_csls_whatever_the_blocks(rows_at_once):
    query, rows, others = unit((7, 5), 0), unit((20, 5), 1), unit((15, 5), 2)
    crowd = crowding(rows, others, 4, rows_at_once=rows_at_once)
    nearest = nearest_rows(query, rows, 6, rows_at_once=rows_at_once, crowding_N=crowd)
    np.testing.assert_array_equal(nearest.rows.numpy(), brute_force_csls(query, rows, others, 4, 6))
    np.testing.assert_allclose(nearest.products.numpy(), (query @ rows.T).gather(1, nearest.rows).numpy(), atol=1e-6)
    np.testing.assert_allclose(nearest.scores, 2 * nearest.products - crowd[nearest.rows], atol=1e-6)


def test_without_crowding_the_best_product_wins():
    query, rows = unit((9, 4), 3), unit((30, 4), 4)
    nearest = nearest_rows(query, rows, 1, rows_at_once=4)
    np.testing.assert_array_equal(nearest.rows[:, 0], (query @ rows.T).argmax(dim=1))


def test_a_hub_loses_to_a_token_that_is_near_to_this_query_alone():
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # row 0 is near to every other query
    others = torch.nn.functional.normalize(torch.tensor([[1.0, 0.05 * i] for i in range(8)] + [[0.72, 0.70]]), dim=1)
    query = others[-1:]
    crowd = crowding(rows, others, 3, rows_at_once=2)
    assert nearest_rows(query, rows, 1, rows_at_once=1).rows.item() == 0
    assert nearest_rows(query, rows, 1, rows_at_once=1, crowding_N=crowd).rows.item() == 1


def test_more_neighbours_than_rows_gives_all_rows_and_no_query_gives_none():
    rows = unit((3, 4), 5)
    assert nearest_rows(unit((2, 4), 6), rows, 10, rows_at_once=8).rows.shape == (2, 3)
    assert nearest_rows(torch.empty(0, 4), rows, 10, rows_at_once=8).scores.shape == (0, 3)
    assert crowding(rows, unit((2, 4), 7), 10, rows_at_once=8).shape == (3,)


PEAK_OF_CROWDING = """
import resource, torch
from revocab.alignment.neighbours import crowding
rows, others = torch.randn(3072, 4), torch.randn(30_000, 4)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
crowding(rows, others, 10, rows_at_once=256)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_memory_is_that_of_one_block_however_many_there_are():
    """New memory for every block made 250 MB of these twelve: small results kept holes open behind them."""
    kilobytes = int(subprocess.check_output([sys.executable, "-c", PEAK_OF_CROWDING], text=True))
    assert kilobytes * 1024 < 3 * (256 * 30_000 * 4)
