"""Documents to a corpus: short lines dropped, duplicates dropped, cut at a budget, split into train and held-out."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from revocab.corpus.reading import read_documents
from revocab.errors import ConfigError, DataError
from revocab.runtime.files import disk_errors, write_json
from revocab.runtime.progress import bar

BYTES_PER_GB = 10**9
COUNTS = (
    "read", "kept", "held_out", "duplicates", "malformed", "too_short", "excluded", "over_budget", "bytes",
)  # fmt: skip

# Two of a billion different documents share 16 bytes of a digest with a chance of 1e-21; whole digests would only cost
# memory, about 85 bytes a document as it is.
DIGEST_BYTES = 16


def build_corpus(
    folder: Path,
    inputs: Sequence[str],
    *,
    text_field: str | None,
    size_gb: float | None,
    byte_budget: int,
    deduplicate: bool,
    hash_name: str,
    min_line_length: int,
    heldout_fraction: float,
    exclude: Iterable[str] = (),
) -> dict[str, int]:
    """Write `train.text`, `train.offsets.npy`, the same for `heldout`, and `counts.json`, for `Corpus.load`.

    A document goes, in this order: lines shorter than `min_line_length` are dropped; it is left out if nothing remains
    (`too_short`), if its text is in `exclude` (`excluded`) or was seen before (`duplicates`); reading ends at the first
    document that the budget has no room for (`over_budget`), so the corpus is the longest beginning that fits. What is
    left (`kept`) is held out if the digest of its text, read as a fraction in [0, 1), is below `heldout_fraction`:
    which part a document is in depends on its text and on `hash_name` alone, not on its place or on other documents.

    Args:
        folder: where to write; made if missing.
        inputs, text_field: see `read_documents`.
        size_gb: budget in units of 1e9 bytes of UTF-8 text, train and held-out together; None or 0: no limit.
        byte_budget: the same in bytes; beats `size_gb` unless it is 0.
        deduplicate: drop documents whose text occurred before.
        hash_name: a digest of hashlib.
        min_line_length: characters, white space around the line not counted. Blank lines separate paragraphs and stay,
            but for several in a row once a line was dropped; 0 or 1 leaves the text untouched.
        heldout_fraction: expected share of documents in [0, 1).
        exclude: texts, such as those of held-out sets; they are shortened by the same rule before they are compared.

    Returns:
        The counts, also in `counts.json`: read = kept + duplicates + too_short + excluded + over_budget; held_out is a
        part of kept; bytes is the text kept; malformed counts lines.

    Raises:
        ConfigError: an unknown hash, a fraction outside of [0, 1).
        DataError: unreadable inputs, or no training document left.
        ResourceError: the disk is full or the folder cannot be written.
    """
    digest_of = _digest_function(hash_name)
    if not 0 <= heldout_fraction < 1:
        raise ConfigError("corpus.heldout_fraction", heldout_fraction, "at least 0 and below 1")
    budget = byte_budget or round((size_gb or 0) * BYTES_PER_GB)
    excluded = {digest_of(drop_short_lines(text, min_line_length).encode()) for text in exclude}
    seen: set[bytes] = set()
    counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
    with ExitStack() as stack:
        train, heldout = (stack.enter_context(_Part(folder, name)) for name in ("train", "heldout"))
        progress = stack.enter_context(bar("reading the corpus", total=budget or None, unit="B"))
        for text in read_documents(inputs, text_field=text_field, counts=counts):
            data = drop_short_lines(text, min_line_length).encode()
            if not data or data.isspace():
                counts["too_short"] += 1
                continue
            digest = digest_of(data)
            if digest in excluded:
                counts["excluded"] += 1
                continue
            if deduplicate:
                if digest in seen:
                    counts["duplicates"] += 1
                    continue
                seen.add(digest)
            if budget and counts["bytes"] + len(data) > budget:
                counts["over_budget"] += 1
                break
            is_heldout = fraction_of(digest) < heldout_fraction
            (heldout if is_heldout else train).add(data)
            counts["kept"] += 1
            counts["held_out"] += is_heldout
            counts["bytes"] += len(data)
            progress.update(len(data))
    _refuse_empty(counts, budget)
    with disk_errors(folder):
        write_json(folder / "counts.json", dict(counts))
    return dict(counts)


def drop_short_lines(text: str, min_length: int) -> str:
    """The text without lines of fewer than `min_length` characters; paragraphs stay apart by one blank line."""
    if min_length <= 1:
        return text
    kept: list[str] = []
    for line in text.split("\n"):
        stripped = line.strip()
        if len(stripped) >= min_length or (not stripped and kept and kept[-1]):
            kept.append(line if stripped else "")
    return "\n".join(kept).strip("\n")


def fraction_of(digest: bytes) -> float:
    """The first 52 bits of a digest as a number in [0, 1): as many as a float holds without rounding up to 1."""
    return (int.from_bytes(digest[:8], "big") >> 12) / (1 << 52)


def _digest_function(name: str) -> Callable[[bytes], bytes]:
    known = sorted(each for each in hashlib.algorithms_guaranteed if not each.startswith("shake"))
    if name not in known:  # shake digests have no length of their own; what else OpenSSL has differs by machine
        raise ConfigError("corpus.hash_name", name, f"a digest of hashlib: {', '.join(known)}")

    def digest(data: bytes) -> bytes:
        return hashlib.new(name, data, usedforsecurity=False).digest()[:DIGEST_BYTES]

    return digest


def _refuse_empty(counts: Counter[str], budget: int) -> None:
    if counts["kept"] > counts["held_out"]:
        return
    found = ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in COUNTS if name not in ("kept", "bytes"))
    limit = f" The budget is {budget} bytes." if budget else ""
    raise DataError(
        f"No training document is left of the corpus ({found}).{limit} Give more text or loosen the filters."
    )


class _Part:
    """One growing flat file of texts; its offsets are written when it closes."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.offsets = array("q", [0])

    def __enter__(self) -> "_Part":
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.stream: BinaryIO = (self.folder / f"{self.name}.text").open("wb", buffering=1 << 20)
        return self

    def add(self, data: bytes) -> None:
        with disk_errors(self.folder):
            self.stream.write(data)
        self.offsets.append(self.offsets[-1] + len(data))

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is not None:
            # A disk that was full is full still: closing flushes, fails again and would hide the first error.
            with suppress(OSError):
                self.stream.close()
            return
        with disk_errors(self.folder):
            self.stream.close()
            np.save(self.folder / f"{self.name}.offsets.npy", np.frombuffer(self.offsets, dtype=np.int64))
