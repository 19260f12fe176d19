"""The cells of a count matrix on disk, in random blocks: training on more cells than memory holds, in random order.

Each cell is put into a block drawn at random, once; every pass then takes the blocks in a new order and shuffles the
cells of each. Memory holds one block.

K rows and columns of the matrix, C cells of a block.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from scipy import sparse

from revocab.runtime.progress import track

CELLS_AT_ONCE = 1 << 22  # cells of a block, 12 bytes each
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
    counts_KK: sparse.csr_matrix,
    unit: float,
    folder: Path,
    generator: np.random.Generator,
    cells_at_once: int = CELLS_AT_ONCE,
) -> Cells:
    """Write every stored cell of a matrix, divided by `unit`, into a block drawn at random.

    Args:
        counts_KK: canonical CSR without stored zeros.
        unit: what counts as one.
        folder: holds `cells.<number>.bin`, 12 bytes a cell.
        generator: draws the blocks.
        cells_at_once: cells of a block, on average; memory is a few times this.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = max(1, -(-counts_KK.nnz // cells_at_once))
    paths = [folder / f"cells.{block}.bin" for block in range(number)]
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for start in track(range(0, counts_KK.nnz, cells_at_once), "writing cells of counts"):
            cells_C = _read(counts_KK, start, min(start + cells_at_once, counts_KK.nnz), unit)
            block_C = generator.integers(number, size=len(cells_C))
            order_C = np.argsort(block_C, kind="stable")
            borders = np.searchsorted(block_C[order_C], np.arange(number + 1))
            for file, first, last in zip(files, borders[:-1], borders[1:], strict=True):
                cells_C[order_C[first:last]].tofile(file)
    return Cells(paths, counts_KK.nnz, int(np.diff(counts_KK.indptr).max(initial=0)))


def _read(counts_KK: sparse.csr_matrix, start: int, stop: int, unit: float) -> np.ndarray:
    """Cells [start, stop) of the matrix in the order of its rows: (C,) of CELL."""
    cells_C: np.ndarray = np.empty(stop - start, dtype=CELL)
    cells_C["row"] = np.searchsorted(counts_KK.indptr, np.arange(start, stop), side="right") - 1
    cells_C["column"] = counts_KK.indices[start:stop]
    cells_C["count"] = counts_KK.data[start:stop] / unit
    return cells_C
