"""Nearest rows of one set of vectors to another, a block of rows at a time.

Q query rows, N rows that they are compared to, R rows of a block, K neighbours, D width.
"""

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
    k = min(k, len(rows_ND))
    blocks: list[tuple[Tensor, Tensor, Tensor]] = []
    with bar("matching", total=len(query_QD), unit="tok") as done:
        for block_RD in query_QD.split(rows_at_once):
            products_RN = block_RD @ rows_ND.T
            scores_RN = products_RN if crowding_N is None else torch.add(-crowding_N, products_RN, alpha=2)
            scores_RK, rows_RK = scores_RN.topk(k, dim=1)
            blocks.append((rows_RK, scores_RK, products_RN.gather(1, rows_RK)))
            done.update(len(block_RD))
    if not blocks:
        nothing = rows_ND.new_empty(0, k)
        blocks.append((nothing.long(), nothing, nothing))
    rows_QK, scores_QK, products_QK = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    return Nearest(rows=rows_QK, scores=scores_QK, products=products_QK)


def crowding(rows_ND: Tensor, others_MD: Tensor, k: int, *, rows_at_once: int) -> Tensor:
    """Return how crowded it is around each row: (N,) mean product with its k nearest among the others.

    This is the r_S of CSLS (Conneau et al. 2018, section 2.3). Cost: 2 * N * M * D operations, the largest product of
    an alignment. Memory: `rows_at_once` x M floats.
    """
    k = min(k, len(others_MD))
    means = []
    with bar("measuring hubs", total=len(rows_ND), unit="tok") as done:
        for block_RD in rows_ND.split(rows_at_once):
            means.append((block_RD @ others_MD.T).topk(k, dim=1, sorted=False).values.mean(dim=1))
            done.update(len(block_RD))
    return torch.cat(means) if means else rows_ND.new_empty(0)
