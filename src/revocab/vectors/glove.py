"""Token vectors by GloVe (Pennington, Socher & Manning 2014): weighted least squares on logarithms of window counts.

    J = sum over cells X_ij > 0 of f(X_ij) (w_i . c_j + a_i + b_j - log X_ij)^2,  f(x) = min(1, (x / x_max)^alpha)

Counts weigh 1/distance and are symmetric; the vector of a token is w_i + c_i. As in the authors' program (glove.c of
stanfordnlp/GloVe) AdaGrad follows the gradient of J / 2, its sums start at 1 and add up squares of learning rate
times gradient, and numbers are drawn from [-0.5, 0.5) / dim. Unlike there, cells are taken in batches: a row that
stands in a batch several times moves by the sum of its steps and remembers the sum of their squares, so that a batch
of one cell is the authors' program; and tokens below `min_count` take up a position of the window.

Own code, since no kept library trains it: the last release of `mittens` (2019) holds a dense matrix of V x V,
`glove-python-binary` (2020) has no build for Python 3.11, and gensim only reads vectors.

V tokens of the vocabulary, K tokens that have vectors, D dimensions, B cells of a batch, C of a block.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from revocab.artifacts import TokenVectors
from revocab.errors import DataError
from revocab.runtime.cores import whole_machine
from revocab.runtime.progress import bar
from revocab.vectors.cells import Cells, write_cells
from revocab.vectors.counting import units_per_count
from revocab.vectors.occurrences import frequent_tokens
from revocab.vectors.pair_counts import PairCounts, kept_blocks

log = logging.getLogger(__name__)

LARGEST_BATCH = 1 << 13  # cells
ROW_REPEATS = 8  # of the most frequent row in an average batch; far more overshoot before AdaGrad slows them


def glove_vectors(
    counts: PairCounts,
    *,
    dim: int = 300,
    iterations: int = 15,
    min_count: int = 5,
    x_max: float = 10.0,
    alpha: float = 0.75,
    learning_rate: float = 0.05,
    seed: int = 0,
    device: str = "cpu",
    work_folder: Path,
) -> TokenVectors:
    """Return vectors (V, dim) of all tokens that occur `min_count` times; other rows are zero.

    The same seed on a CPU gives the same vectors. Memory holds the tables, 16 bytes a number, and one block of cells,
    whatever the length of the text.

    Args:
        counts: of the corpus, exact; the reference's window is 15.
        dim: width of the vectors.
        iterations: passes over the cells.
        min_count: tokens rarer than this have no vector and are nobody's context.
        x_max: count from which on a cell has its full weight.
        alpha: exponent of the weight below it.
        learning_rate: of AdaGrad.
        seed: of the start and of the order of the cells.
        device: where the training runs, `cpu` or `cuda`.
        work_folder: holds the cells, 12 bytes each, for the time of the training.

    Raises:
        DataError: no token occurs `min_count` times, no two of them are neighbours, or the training diverged.
    """
    generator = np.random.default_rng(seed)
    kept = frequent_tokens(counts.occurrences, counts.special_ids, min_count)
    unit = units_per_count(counts.window)
    cells = write_cells(kept_blocks(counts, kept), len(counts), unit, work_folder, generator)
    log.info("GloVe: %d passes over %d cells of %d tokens", iterations, cells.number, len(kept))
    try:
        if not cells.number:
            raise DataError("no two frequent tokens are neighbours: use a larger corpus or a smaller min_count")
        with whole_machine():
            tables = Tables.drawn(len(kept), dim, generator, device)
            fit(tables, cells, Weighting(x_max, alpha), learning_rate, iterations, generator)
    finally:
        cells.remove()
    vectors = np.zeros((counts.vocabulary_size, dim), dtype=np.float32)
    vectors[kept] = (tables.word[:, :dim] + tables.context[:, :dim]).cpu().numpy()
    return TokenVectors(vectors=vectors, counts=counts.occurrences)


@dataclass(frozen=True)
class Weighting:
    """How much a cell counts in the loss."""

    x_max: float
    alpha: float

    def __call__(self, count_B: Tensor) -> Tensor:
        """(B,) in (0, 1]."""
        return (count_B / self.x_max).clamp(max=1.0) ** self.alpha


@dataclass
class Tables:
    """What is learned, with its bias as the last column, and AdaGrad's sums of squares."""

    word: Tensor  # (K, D + 1): w and a
    context: Tensor  # (K, D + 1): c and b
    word_squares: Tensor  # (K, D + 1), starts at 1
    context_squares: Tensor

    @classmethod
    def drawn(
        cls, rows: int, dim: int, generator: np.random.Generator, device: str, dtype: torch.dtype = torch.float32
    ) -> "Tables":
        """Uniform in [-0.5, 0.5) / dim, biases too."""
        start = (generator.random((2, rows, dim + 1)) - 0.5) / dim
        word, context = torch.from_numpy(start).to(device, dtype)
        return cls(word, context, torch.ones_like(word), torch.ones_like(context))


def step(
    tables: Tables, row_B: Tensor, column_B: Tensor, count_B: Tensor, weighting: Weighting, learning_rate: float
) -> Tensor:
    """Move the tables by one batch of cells; return J over it, before the step."""
    word_BD, context_BD = tables.word[row_B], tables.context[column_B]
    loss, weighted_B = loss_and_errors(word_BD, context_BD, count_B, weighting)
    scaled_B1 = (learning_rate * weighted_B)[:, None]
    word_BD[:, -1], context_BD[:, -1] = 1.0, 1.0  # a bias stands in the prediction as it is
    _descend(tables.word, tables.word_squares, row_B, context_BD.mul_(scaled_B1))
    _descend(tables.context, tables.context_squares, column_B, word_BD.mul_(scaled_B1))
    return loss


def loss_and_errors(
    word_BD: Tensor, context_BD: Tensor, count_B: Tensor, weighting: Weighting
) -> tuple[Tensor, Tensor]:
    """Return J over cells, and (B,) f(X) times the error, which is the gradient of J / 2 by what is predicted.

    Args:
        word_BD: (B, D + 1) w and a of every cell's row.
        context_BD: (B, D + 1) c and b of every cell's column.
        count_B: (B,) X.
        weighting: f.
    """
    predicted_B = torch.linalg.vecdot(word_BD[:, :-1], context_BD[:, :-1]) + word_BD[:, -1] + context_BD[:, -1]
    error_B = predicted_B - count_B.log()
    weighted_B = weighting(count_B) * error_B
    return (weighted_B * error_B).sum(), weighted_B


def _descend(table_KD: Tensor, squares_KD: Tensor, index_B: Tensor, move_BD: Tensor) -> None:
    """AdaGrad on rows that may repeat: every move is divided by the root of the sums before the batch."""
    table_KD.index_add_(0, index_B, squares_KD[index_B].rsqrt_().mul_(move_BD), alpha=-1)
    squares_KD.index_add_(0, index_B, move_BD.square_())


def fit(
    tables: Tables,
    cells: Cells,
    weighting: Weighting,
    learning_rate: float,
    iterations: int,
    generator: np.random.Generator,
) -> list[float]:
    """Train the tables in place; return the mean of f(X) error^2 over the cells of every pass, as it was met.

    Raises:
        DataError: the loss is no longer a number.
    """
    size = batch_size(cells)
    losses = []
    with bar("training GloVe", total=iterations * cells.number, unit="cell") as seen:
        for iteration in range(iterations):
            total = 0.0
            for row_C, column_C, count_C in _on_device(cells, generator, tables.word.device):
                batches = zip(row_C.split(size), column_C.split(size), count_C.split(size), strict=True)
                total += float(torch.stack([step(tables, *batch, weighting, learning_rate) for batch in batches]).sum())
                seen.update(len(row_C))
            losses.append(total / cells.number)
            if not np.isfinite(losses[-1]):
                raise DataError(
                    f"GloVe diverged in pass {iteration + 1}: its loss is {losses[-1]}; "
                    "use a smaller embedding.glove.learning_rate"
                )
    log.info("GloVe: mean weighted squared error %.5f in the first pass, %.5f in the last", losses[0], losses[-1])
    return losses


def batch_size(cells: Cells) -> int:
    """Cells of a batch: as many as leave the most frequent row ROW_REPEATS times in it, at most LARGEST_BATCH."""
    return min(LARGEST_BATCH, max(1, ROW_REPEATS * cells.number // cells.largest_row))


def _on_device(
    cells: Cells, generator: np.random.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Blocks as rows, columns and counts, each (C,)."""
    for cells_C in cells.blocks(generator):
        row_C, column_C, count_C = (torch.from_numpy(cells_C[name].copy()) for name in ("row", "column", "count"))
        yield row_C.to(device).long(), column_C.to(device).long(), count_C.to(device)
