"""The cells of a count matrix on disk, in random blocks: training on more cells than memory holds, in random order.

Each cell is put into a block drawn at random, once; every pass then takes the blocks in a new order and shuffles the
cells of each. Memory holds one block.

K rows and columns of the matrix, C cells of a block.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from scipy import sparse

CELLS_AT_ONCE = 1 << 22  # cells of a block, 12 bytes each
MOST_BLOCKS = 500  # files open at a time; beyond two billion cells the blocks get larger
CELL = np.dtype([("row", np.int32), ("column", np.int32), ("count", np.float32)])


class Cells:
    """The non-zero cells of a matrix, in files of one folder."""

    def __init__(self, paths: list[Path], number: int, largest_row: int) -> None:
        self.paths = paths
        self.number = number  # of cells
        self.largest_row = largest_row  # cells of the row that has most

    def blocks(self, generator: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield every cell once, in blocks (C,) of CELL; their order and the order inside are drawn anew."""
        for number in generator.permutation(len(self.paths)):
            cells_C = np.fromfile(self.paths[number], dtype=CELL)
            yield cells_C[generator.permutation(len(cells_C))]

    def remove(self) -> None:
        for path in self.paths:
            path.unlink(missing_ok=True)


def write_cells(
    pairs: Iterable[sparse.coo_matrix],
    number: int,
    unit: float,
    folder: Path,
    generator: np.random.Generator,
    cells_at_once: int = CELLS_AT_ONCE,
) -> Cells:
    """Write the cells of a symmetric matrix, divided by `unit`, each into a block drawn at random.

    Args:
        pairs: entries (K, K) of unordered pairs, each pair once, part by part; a pair (i, j) makes the cells (i, j)
            and (j, i), or twice its count at (i, i): a token beside itself counts from both ends.
        number: of pairs at most, which decides how many blocks there are.
        unit: what counts as one.
        folder: holds `cells.<number>.bin`, 12 bytes a cell.
        generator: draws the blocks.
        cells_at_once: cells of a block, on average; memory is a few times this, or a few times a part of the pairs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    num_blocks = min(MOST_BLOCKS, max(1, -(-2 * number // cells_at_once)))
    paths = [folder / f"cells.{block}.bin" for block in range(num_blocks)]
    in_row_K: np.ndarray | int = 0
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for part in pairs:
            cells_C = _both_directions(part, unit)
            in_row_K = in_row_K + np.bincount(cells_C["row"], minlength=part.shape[0])
            block_C = generator.integers(num_blocks, size=len(cells_C))
            order_C = np.argsort(block_C, kind="stable")
            borders = np.searchsorted(block_C[order_C], np.arange(num_blocks + 1))
            for file, first, last in zip(files, borders[:-1], borders[1:], strict=True):
                cells_C[order_C[first:last]].tofile(file)
    return Cells(paths, int(np.sum(in_row_K)), int(np.max(in_row_K, initial=0)))


def _both_directions(pairs: sparse.coo_matrix, unit: float) -> np.ndarray:
    """(C,) of CELL."""
    same = pairs.row == pairs.col
    counts = np.where(same, 2, 1) * pairs.data / unit
    cells_C: np.ndarray = np.empty(2 * len(counts) - int(same.sum()), dtype=CELL)
    cells_C["row"] = np.concatenate([pairs.row, pairs.col[~same]])
    cells_C["column"] = np.concatenate([pairs.col, pairs.row[~same]])
    cells_C["count"] = np.concatenate([counts, counts[~same]])
    return cells_C
