"""Parquet files, read a batch of rows at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from revocab.errors import DataError

ROWS_AT_ONCE = 1024


def columns_of(path: Path) -> list[str]:
    """Names of the columns, from the file's last bytes.

    Raises:
        DataError: the file is cut off, damaged or no parquet file.
    """
    return _open(path).schema_arrow.names


def parquet_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Every row by column name; only the bytes of `columns` are read.

    Raises:
        DataError: as `columns_of`, also when damage shows while reading.
    """
    file = _open(path)
    batches = file.iter_batches(batch_size=ROWS_AT_ONCE, columns=list(columns) if columns is not None else None)
    while True:
        try:
            batch = next(batches, None)
        except OSError as error:
            raise _damaged(path, error) from error
        if batch is None:
            return
        yield from batch.to_pylist()


def _open(path: Path) -> Any:
    import pyarrow.parquet as parquet
    from pyarrow import ArrowInvalid

    try:
        return parquet.ParquetFile(path)
    except (ArrowInvalid, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is damaged or no parquet file: {' '.join(str(error).split())[:200]}")
