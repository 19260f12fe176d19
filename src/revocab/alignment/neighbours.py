"""Nearest rows of one set of vectors to another, a block of rows at a time.

Q query rows, N rows that they are compared to, R rows of a block, K neighbours, D width.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from revocab.runtime.progress import bar


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The best rows for each query, best first."""

    rows: Tensor  # (Q, K) int64 row numbers
    scores: Tensor  # (Q, K) float32, what they were ranked by
    products: Tensor  # (Q, K) float32 dot products: cosines where both sides are normalised


def nearest_rows(
    query_QD: Tensor, rows_ND: Tensor, k: int, *, rows_at_once: int, crowding_N: Tensor | None = None
) -> Nearest:
    """Return the k best rows for each query; k is at most N.

    Memory beside the result: `rows_at_once` x N floats, twice with `crowding_N`.

    Args:
        query_QD: float32.
        rows_ND: float32, on the same device.
        k: rows to return for each query.
        rows_at_once: queries compared at a time.
        crowding_N: with it the score is CSLS, 2 * product - crowding, which holds back rows that are near to
            everything (Conneau et al. 2018, equation 3; their third term is the same for all rows of a query and
            ranks nothing). Without, the score is the product.
    """
    k, num_queries = min(k, len(rows_ND)), len(query_QD)
    rows_QK = torch.empty(num_queries, k, dtype=torch.int64, device=query_QD.device)
    scores_QK, products_QK = query_QD.new_empty(num_queries, k), query_QD.new_empty(num_queries, k)
    room_RN = None if crowding_N is None else query_QD.new_empty(min(rows_at_once, num_queries), len(rows_ND))
    with bar("matching", total=num_queries, unit="tok") as done:
        for place, products_RN in products_by_block(query_QD, rows_ND, rows_at_once):
            ranked_RN = products_RN
            if crowding_N is not None and room_RN is not None:
                ranked_RN = torch.add(-crowding_N, products_RN, alpha=2, out=room_RN[: len(products_RN)])
            torch.topk(ranked_RN, k, dim=1, out=(scores_QK[place], rows_QK[place]))
            torch.gather(products_RN, 1, rows_QK[place], out=products_QK[place])
            done.update(len(products_RN))
    return Nearest(rows=rows_QK, scores=scores_QK, products=products_QK)


def crowding(rows_ND: Tensor, others_MD: Tensor, k: int, *, rows_at_once: int) -> Tensor:
    """Return how crowded it is around each row: (N,) mean product with its k nearest among the others.

    This is the r_S of CSLS (Conneau et al. 2018, section 2.3). Cost: 2 * N * M * D operations, the largest product of
    an alignment. Memory: `rows_at_once` x M floats.
    """
    k = min(k, len(others_MD))
    means_N = rows_ND.new_empty(len(rows_ND))
    with bar("measuring hubs", total=len(rows_ND), unit="tok") as done:
        for place, products_RM in products_by_block(rows_ND, others_MD, rows_at_once):
            means_N[place] = products_RM.topk(k, dim=1, sorted=False).values.mean(dim=1)
            done.update(len(products_RM))
    return means_N


def products_by_block(rows_ND: Tensor, others_MD: Tensor, rows_at_once: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield the place of a block of rows and its products (R, M), which hold until the next block is asked for.

    All blocks are worked in one piece of memory: new pieces for each, with small results that stay in between, can
    leave a hole behind every block in which the next one does not fit.
    """
    room_RM = rows_ND.new_empty(min(rows_at_once, len(rows_ND)), len(others_MD))
    for start in range(0, len(rows_ND), rows_at_once):
        place = slice(start, min(start + rows_at_once, len(rows_ND)))
        yield place, torch.mm(rows_ND[place], others_MD.T, out=room_RM[: place.stop - place.start])
