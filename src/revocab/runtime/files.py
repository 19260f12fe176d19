"""Writing files so that a kill or a full disk leaves either the old file or the new one, never a half."""

import errno
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from revocab.errors import ResourceError

DISK_ERRORS = {
    errno.ENOSPC: "the disk is full; free space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free space or choose another folder",
    errno.EFBIG: "a file of that size is not allowed (ulimit -f); free space or choose another folder",
    errno.ENOTDIR: "a file stands where a folder should be; choose another folder",
    errno.EEXIST: "a file stands where a folder should be; choose another folder",
    errno.EACCES: "no permission to write there; choose another folder",
    errno.EPERM: "no permission to write there; choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
}


@contextmanager
def atomic_path(path: Path) -> Generator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the body succeeds, delete it if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def disk_errors(folder: Path) -> Generator[None]:
    """Turn a full or forbidden disk, met while writing into `folder`, into a `ResourceError` of one line.

    Every other `OSError` passes unchanged. Read inputs outside of the body, so that an unreadable input is not
    mistaken for an unwritable folder.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise ResourceError(f"Cannot write to {folder}: {DISK_ERRORS[error.errno]}.") from error


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON that any reader accepts: a number that is not finite becomes null."""
    write_text(path, json.dumps(_finite(value), indent=1, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not (-float("inf") < value < float("inf")):
        return None
    return value
