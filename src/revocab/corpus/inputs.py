"""What a corpus is read from: files, folders of files, data sets of the Hugging Face Hub."""

import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import zstandard

from revocab.corpus.parquet import columns_of
from revocab.corpus.zst import ZstdStream
from revocab.errors import DataError
from revocab.runtime.progress import bar

FORMATS = (".jsonl", ".txt")
COMPRESSIONS = (".gz", ".zst")
PARQUET = ".parquet"
SUFFIXES = (*(form + compression for form in FORMATS for compression in ("", *COMPRESSIONS)), PARQUET)
SUPPORTED = "a .jsonl or .txt file, also with .gz or .zst behind, or a .parquet file"

SNIFF_BYTES = 1 << 16
HASH_BLOCK_BYTES = 1 << 20

_NAME = r"[A-Za-z0-9][\w.-]*"
_HUB_SPEC = re.compile(rf"({_NAME}/{_NAME})(?:@([\w./-]+))?(?::([\w.+-]+))?:([\w.+-]+)")


@dataclass(frozen=True)
class HubSpec:
    """A split of a data set on the Hub, written `owner/name[@revision][:config]:split`."""

    repository: str
    revision: str | None  # branch, tag or commit; None: the newest
    config: str | None
    split: str

    @classmethod
    def parse(cls, text: str) -> "HubSpec | None":
        """None where the text is not written like one."""
        match = _HUB_SPEC.fullmatch(text)
        return cls(*match.groups()) if match else None

    def __str__(self) -> str:
        repository = f"{self.repository}@{self.revision}" if self.revision else self.repository
        return ":".join(part for part in (repository, self.config, self.split) if part)


def resolve_inputs(inputs: Sequence[str]) -> list[Path | HubSpec]:
    """The files and Hub data sets that the inputs stand for, in the order in which they are read.

    A folder stands for all files of a supported kind below it, sorted by path; hidden files and other kinds in it are
    passed over. A name that exists as a path is never taken for a Hub data set.

    Raises:
        DataError: nothing given; a path that does not exist; a file that is empty, not text, damaged or of an
            unsupported kind; a folder without a supported file.
    """
    if not inputs:
        raise DataError(f"No input is given. Name {SUPPORTED}, a folder of them, or a Hub data set owner/name:split.")
    return [source for _, source in _named_sources(inputs)]


def fingerprint(inputs: Sequence[str]) -> list[dict[str, str | int]]:
    """What identifies the content of the inputs, for the key of a cache; where the files lie does not matter.

    Returns:
        Per file `name` (relative to its folder, where a folder was given), `bytes` and `sha256` of the file as it is on
        disk; per Hub data set `hub`, its spec.
    """
    return [
        {"hub": name} if isinstance(source, HubSpec) else {"name": name, **_digest(source, source.stat().st_mtime_ns)}
        for name, source in _named_sources(inputs)
    ]


def dataset_name(name: str) -> str:
    """What an input is called in tables: a file's or folder's name without suffixes, or `name-split` of a Hub spec."""
    spec = None if Path(name).exists() else HubSpec.parse(name)
    if spec:
        parts = (spec.repository.split("/")[1], spec.config, spec.split)
        return "-".join(part for part in parts if part)
    stem = Path(name).name
    for suffix in (*COMPRESSIONS, *FORMATS, PARQUET):  # the compression stands last, so it goes first
        stem = stem.removesuffix(suffix)
    return stem


@contextmanager
def open_binary(path: Path) -> Generator[BinaryIO]:
    """The decompressed bytes of a file as a buffered stream.

    Raises:
        DataError: the file cannot be read or its compression is damaged, also when that shows while reading.
    """
    try:
        with path.open("rb") as raw:
            if path.suffix == ".gz":
                yield io.BufferedReader(gzip.GzipFile(fileobj=raw), SNIFF_BYTES)
            elif path.suffix == ".zst":
                yield io.BufferedReader(ZstdStream(raw), SNIFF_BYTES)
            else:
                yield raw
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        kind = path.suffix[1:]
        raise DataError(f"{path} is damaged or not {kind}-compressed: {error}. Copy or load it anew.") from error
    except PermissionError as error:
        raise DataError(f"{path} cannot be read: no permission.") from error


def _named_sources(inputs: Sequence[str]) -> Iterator[tuple[str, Path | HubSpec]]:
    for name in inputs:
        path = Path(name).expanduser()
        if path.is_dir():
            yield from ((str(file.relative_to(path)), _checked(file)) for file in _files_below(path))
        elif path.exists():
            yield path.name, _checked(path)
        elif spec := HubSpec.parse(name):
            yield name, spec
        else:
            raise DataError(
                f"There is no file or folder {name}. Name {SUPPORTED}, a folder of them, "
                "or a Hub data set as owner/name:split."
            )


def _files_below(folder: Path) -> list[Path]:
    def is_text(path: Path) -> bool:
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        return path.is_file() and path.name.endswith(SUFFIXES) and not hidden

    files = sorted(path for path in folder.rglob("*") if is_text(path))
    if not files:
        raise DataError(f"The folder {folder} holds no text: wanted {SUPPORTED}.")
    return files


def _checked(path: Path) -> Path:
    """The path itself, once the beginning of the file looks like text, or all of it like a parquet file."""
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"{path} is of an unsupported kind: wanted {SUPPORTED}.")
    if path.name.endswith(PARQUET):
        columns_of(path)
        return path
    with open_binary(path) as stream:
        head = stream.read(SNIFF_BYTES)
    if not head:
        raise DataError(f"{path} is empty. Name a file with text, or leave it out.")
    if b"\0" in head:
        raise DataError(f"{path} is not text: byte {head.index(0)} is NUL. Name a UTF-8 text file.")
    return path


@cache
def _digest(path: Path, modified_ns: int) -> dict[str, str | int]:
    """Of the file as it was then, read once per process."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as stream, bar(f"hashing {path.name}", total=size, unit="B") as progress:
        while block := stream.read(HASH_BLOCK_BYTES):
            digest.update(block)
            progress.update(len(block))
    return {"bytes": size, "sha256": digest.hexdigest()}
