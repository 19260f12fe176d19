"""Inputs as one stream of documents; memory holds one document at a time."""

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from revocab.corpus import hub
from revocab.corpus.fields import KIND_FIELDS, TextField, kind_of
from revocab.corpus.inputs import PARQUET, HubSpec, open_binary, resolve_inputs
from revocab.corpus.parquet import columns_of, parquet_rows
from revocab.errors import DataError

log = logging.getLogger(__name__)

MOST_MALFORMED = 0.1  # of a text file's lines; with more of them it is in another encoding, or no text
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Document(NamedTuple):
    text: str
    kind: str | None  # what its row says of it, such as the journal; None where it says nothing


def read_documents(
    inputs: Sequence[str],
    *,
    text_field: str | None = None,
    counts: Counter[str] | None = None,
    key: str = "corpus.inputs",
) -> Iterator[str]:
    """Every document of the inputs, in their order.

    A line of a `.jsonl` file is a document, and so is a row of a `.parquet` file or a Hub data set: the text in one of
    its fields. In a `.txt` file each block of lines between blank lines is one.

    Args:
        inputs: files, folders and Hub specs, see `resolve_inputs`.
        text_field: the field that holds the text; None: found in each source, see `TextField`.
        counts: if given, `read` (documents) and `malformed` (lines or rows that are not JSON objects with a string in
            that field, lines of a `.txt` file that are not UTF-8; they are skipped) are added to it.
        key: of the config that names the inputs, for messages.

    Raises:
        DataError: see `resolve_inputs`; a text file of which more than a tenth of the lines is not UTF-8; a file in
            which every line is malformed; a Hub data set that cannot be read.
    """
    return (document.text for document in read_with_kinds(inputs, text_field=text_field, counts=counts, key=key))


def read_with_kinds(
    inputs: Sequence[str],
    *,
    text_field: str | None = None,
    kind_field: str | None = None,
    counts: Counter[str] | None = None,
    key: str = "corpus.inputs",
) -> Iterator[Document]:
    """As `read_documents`, with what a row's `kind_field` says; None: the first there is of `KIND_FIELDS`."""
    counts = Counter() if counts is None else counts
    for source in resolve_inputs(inputs):
        read_before, malformed_before = counts["read"], counts["malformed"]
        for document in _documents_of(source, text_field, kind_field, counts, key):
            counts["read"] += 1
            yield document
        if skipped := counts["malformed"] - malformed_before:
            log.warning("%s: skipped %d malformed lines", source, skipped)
        if counts["read"] == read_before:
            raise DataError(f"{source} holds no document, only blank lines. Name a file with text, or leave it out.")


def read_rows(source: Path | HubSpec, *, key: str) -> Iterator[Any]:
    """Each row of a `.parquet` file or a Hub data set, or the value of each line of a `.jsonl` file that is not blank;
    None for a line that is no JSON.

    Raises:
        DataError: a damaged file, or a Hub data set that cannot be read; the message names the config's `key`.
    """
    return _rows(source, key)


def _documents_of(
    source: Path | HubSpec, text_field: str | None, kind_field: str | None, counts: Counter[str], key: str
) -> Iterator[Document]:
    if isinstance(source, Path) and source.name.removesuffix(".gz").removesuffix(".zst").endswith(".txt"):
        return (Document(text, None) for text in _paragraphs(source, counts))
    field = TextField(text_field, str(source))
    rows = _rows(source, key, field, KIND_FIELDS if kind_field is None else (kind_field,))
    return _documents_of_rows(rows, str(source), field, kind_field, counts, key)


def _rows(
    source: Path | HubSpec, key: str, field: TextField | None = None, besides: Collection[str] = ()
) -> Iterator[Any]:
    """Rows with all of their fields, or at least with the one that is the text and those `besides`."""
    if isinstance(source, HubSpec):
        return _hub_rows(source, key, field, besides)
    if source.name.endswith(PARQUET):
        return parquet_rows(source, field.among(columns_of(source), besides) if field else None)
    return _json_rows(source)


def _documents_of_rows(
    rows: Iterator[Any], name: str, field: TextField, kind_field: str | None, counts: Counter[str], key: str
) -> Iterator[Document]:
    """The rows that have a text; an error at the end if none of them had."""
    good = bad = 0
    fields_seen = ""
    for row in rows:
        text = field.of(row)
        if isinstance(text, str) and _is_utf8(text):
            good += 1
            yield Document(text, kind_of(row, kind_field))
        else:
            bad += 1
            counts["malformed"] += 1
            if isinstance(row, dict) and not fields_seen:
                fields_seen = ", ".join(map(repr, row))
    if bad and not good:
        node = key.split(".")[0]
        hint = f"the first has the fields {fields_seen}; set {node}.text_field" if fields_seen else "not JSON lines"
        raise DataError(f"{name}: none of {bad} rows has a string in a field {field} ({hint}).")


def _is_utf8(text: str) -> bool:
    """JSON can spell half of a surrogate pair, which no UTF-8 file can hold."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_rows(path: Path) -> Iterator[Any]:
    """The value of each line that is not blank; None for a line that is not JSON."""
    with open_binary(path) as stream:
        for line in _lines(stream):
            if line.isspace():
                continue
            try:
                yield json.loads(line.decode())
            except (ValueError, RecursionError):  # ValueError: not UTF-8, not JSON, or a number of absurd length
                yield None


def _paragraphs(path: Path, counts: Counter[str]) -> Iterator[str]:
    """The blocks of a text file. Lines that are not UTF-8 text are skipped; if they are many, so is the whole file no
    text, and an error at its end says so."""
    block: list[str] = []
    good = bad = 0
    first_reason = ""
    with open_binary(path) as stream:
        for number, line in enumerate(_lines(stream), 1):
            if line.isspace():
                if block:
                    yield "\n".join(block)
                block = []
            elif reason := _why_no_text(line):
                bad += 1
                counts["malformed"] += 1
                first_reason = first_reason or f"line {number}, {reason}"
            else:
                good += 1
                block.append(line.decode().rstrip("\r\n"))
    if bad > MOST_MALFORMED * (good + bad):
        raise DataError(
            f"{path} is not UTF-8 text: {bad} of {good + bad} lines are not, the first is {first_reason}. "
            "Convert it, for instance with iconv."
        )
    if block:
        yield "\n".join(block)


def _why_no_text(line: bytes) -> str:
    """What makes the line no UTF-8 text; empty if it is."""
    if b"\0" in line:
        return "it holds a NUL byte"
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return f"its byte {error.start} is 0x{line[error.start]:02x}"
    return ""


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines with their ends; the byte order mark that some editors put first is dropped."""
    first = next(stream, b"")
    if first := first.removeprefix(BYTE_ORDER_MARK):
        yield first
    yield from stream


def _hub_rows(spec: HubSpec, key: str, field: TextField | None, besides: Collection[str]) -> Iterator[Any]:
    files = hub.files_of(spec, key)
    if not files.read_here:
        yield from hub.stream_rows(spec, files)
        return
    for name in files.names:
        yield from _rows(hub.download(spec, files, name), key, field, besides)
