"""Documents to a corpus: filtered, mixed, cut at a budget, split into train and held-out."""

import hashlib
import json
import logging
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from revocab.artifacts import Documents
from revocab.corpus.filtering import DIGEST_BYTES, Filter, LeftOut
from revocab.corpus.hub import files_of
from revocab.corpus.inputs import HubSpec, fingerprint, resolve_inputs
from revocab.corpus.mixing import in_proportion, one_after_another
from revocab.corpus.overlap import Overlap, Overlaps
from revocab.corpus.reading import Document, read_with_kinds
from revocab.errors import ConfigError, DataError
from revocab.runtime.files import disk_errors, write_json
from revocab.runtime.progress import bar

log = logging.getLogger(__name__)
BYTES_PER_GB = 10**9
COUNTS = (
    "read", "kept", "held_out", "duplicates", "near_duplicates", "malformed", "too_short", "excluded", "contaminated",
    "over_budget", "bytes",
)  # fmt: skip
REMOVED = "removed.jsonl"
KINDS = "heldout.kinds.json"
HELDOUT = "heldout"  # the data set that `removed.jsonl` names for a document that quotes the held-out part
# A run of words that more training documents than this share with the held-out part is a stock phrase of the corpus
# (a template, a line on statistics or copyright): it tells nothing of any one held-out document.
STOCK_PHRASE = 10
MUCH = 0.05  # share of the documents read from which on it is said that they were left out for shared words
SHOWN_CHARACTERS = 200  # of a document that was removed


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
    weights: Sequence[float] | None = None,
    near_duplicates: float | None = None,
    overlap_words: int = 0,
    evaluated: Mapping[str, Iterable[str]] | None = None,
    kind_field: str | None = None,
) -> dict[str, int]:
    """Write `train.text`, `train.offsets.npy`, the same for `heldout`, and `counts.json`, for `Corpus.load`.

    Also `sources.json` (for each input what identifies it, and its counts), `removed.jsonl` (documents too close to
    evaluation texts) and `heldout.kinds.json` (of each held-out document what its row says of its kind).

    A document goes, in this order: lines shorter than `min_line_length` are dropped; it is left out if nothing remains
    (`too_short`), if it is one of the `evaluated` texts (`excluded`), if its text was seen before (`duplicates`), if it
    shares words with an evaluated text (`contaminated`), if it is much like a document before (`near_duplicates`);
    reading ends at the first document that the budget has no room for (`over_budget`), so the corpus is the longest
    beginning that fits. What is left (`kept`) is held out if the digest of its text, read as a fraction in [0, 1), is
    below `heldout_fraction`: which part a document is in depends on its text and on `hash_name` alone, not on its place
    or on other documents. Last, training documents that share words with the held-out part go (`contaminated` too), but
    for runs of words that over `STOCK_PHRASE` of them share; the budget they took is not filled again.

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
        weights: share of each input in the bytes kept, up to a common factor, see `in_proportion`; None: the inputs are
            read one after another, whole.
        near_duplicates: similarity in (0, 1] from which on a document counts as a copy, see `NearDuplicates`; None:
            only exact copies do.
        overlap_words: words in a row that a document may not share with an evaluated text, nor a training document with
            the held-out part, see `Overlaps`; 0: any.
        kind_field: see `read_with_kinds`.
        evaluated: texts of held-out sets and questions, by data set; shortened by the same rule before the comparison.

    Returns:
        The counts, also in `counts.json`: read = kept + duplicates + near_duplicates + too_short + excluded +
        contaminated + over_budget; held_out is a part of kept; bytes is the text kept; malformed counts lines.

    Raises:
        ConfigError: an unknown hash, a fraction outside of [0, 1), not as many weights as inputs.
        DataError: unreadable inputs, or no training document left.
        ResourceError: the disk is full or the folder cannot be written.
        MissingDependencyError: `near_duplicates` without its library.
    """
    digest_of = _digest_function(hash_name)
    if not 0 <= heldout_fraction < 1:
        raise ConfigError("corpus.heldout_fraction", heldout_fraction, "at least 0 and below 1")
    budget = byte_budget or round((size_gb or 0) * BYTES_PER_GB)
    rules = Filter(
        digest_of=digest_of,
        deduplicate=deduplicate,
        near_duplicates=near_duplicates,
        overlap_words=overlap_words,
        evaluated={
            name: (drop_short_lines(text, min_line_length) for text in texts)
            for name, texts in (evaluated or {}).items()
        },
    )
    counters: list[Counter[str]] = [Counter(dict.fromkeys(COUNTS, 0)) for _ in inputs]
    taken = [0] * len(inputs)  # bytes kept of each
    owners = array("I")  # number of the input of each training document
    kinds: list[str | None] = []  # of each held-out document
    with _Removed(folder) as removed:
        with ExitStack() as stack:
            train, heldout = (stack.enter_context(_Part(folder, name)) for name in ("train", "heldout"))
            progress = stack.enter_context(bar("reading the corpus", total=budget or None, unit="B"))
            for number, document in _documents(inputs, text_field, kind_field, weights, counters, taken):
                counts = counters[number]
                text = drop_short_lines(document.text, min_line_length)
                data = text.encode()
                digest = digest_of(data)
                if left_out := rules.judge(text, digest):
                    counts[left_out.reason] += 1
                    removed.note(left_out, inputs[number], text)
                    continue
                if budget and sum(taken) + len(data) > budget:
                    counts["over_budget"] += 1
                    break
                is_heldout = fraction_of(digest) < heldout_fraction
                (heldout if is_heldout else train).add(data)
                if is_heldout:
                    kinds.append(document.kind)
                else:
                    owners.append(number)
                counts["kept"] += 1
                counts["held_out"] += is_heldout
                counts["bytes"] += len(data)
                taken[number] += len(data)
                progress.update(len(data))
        if overlap_words:
            for number, overlap, text in _quoting(folder, overlap_words):
                counts, source = counters[owners[number]], inputs[owners[number]]
                counts.subtract({"kept": 1, "contaminated": -1, "bytes": len(text.encode())})
                removed.note(LeftOut("contaminated", *overlap), source, text)
    total = {name: sum(counts[name] for counts in counters) for name in COUNTS}
    _refuse_empty(total, budget)
    _say_if_much(total, overlap_words)
    with disk_errors(folder):
        write_json(folder / "counts.json", total)
        by_input = [{**_facts(name), "counts": counts} for name, counts in zip(inputs, counters, strict=True)]
        write_json(folder / "sources.json", by_input)
        write_json(folder / KINDS, kinds)
    return total


def _quoting(folder: Path, length: int) -> list[tuple[int, Overlap, str]]:
    """Take the documents that quote the held-out part out of the training part; their numbers, words and texts."""
    train, heldout = (Documents.load(folder, name) for name in ("train", "heldout"))
    if not len(heldout):
        return []
    overlaps = Overlaps(length)
    for number in range(len(heldout)):
        overlaps.add(HELDOUT, heldout[number])
    quoting = dict(overlaps.find_rare(train, STOCK_PHRASE))
    if not quoting:
        return []
    with _Part(folder, "kept") as kept:
        for number in range(len(train)):
            if number not in quoting:
                kept.add(bytes(train.text[train.offsets[number] : train.offsets[number + 1]]))
    with disk_errors(folder):
        for suffix in ("text", "offsets.npy"):
            (folder / f"kept.{suffix}").replace(folder / f"train.{suffix}")
    return [(number, overlap, train[number]) for number, overlap in quoting.items()]


def _say_if_much(counts: Mapping[str, int], length: int) -> None:
    if counts["contaminated"] > MUCH * counts["read"]:
        log.warning(
            "%d of %d documents share %d words in a row with texts that models are evaluated on and are left out: "
            "%s in the corpus's folder (which corpus.json names) lists them; corpus.overlap_words=0 keeps them",
            counts["contaminated"], counts["read"], length, REMOVED,
        )  # fmt: skip


def _documents(
    inputs: Sequence[str],
    text_field: str | None,
    kind_field: str | None,
    weights: Sequence[float] | None,
    counters: Sequence[Counter[str]],
    taken: Sequence[int],
) -> Iterator[tuple[int, Document]]:
    """(number of its input, document); says which input ended a mixture."""
    resolve_inputs(inputs)  # all of them first: a wrong name at the end of the list shows before the work
    streams = [
        read_with_kinds([name], text_field=text_field, kind_field=kind_field, counts=counts)
        for name, counts in zip(inputs, counters, strict=True)
    ]
    if weights is None:
        yield from one_after_another(streams)
        return
    if len(weights) != len(inputs):
        raise ConfigError("corpus.weights", list(weights), f"one weight for each of the {len(inputs)} corpus.inputs")
    yield from in_proportion(streams, weights, taken)
    shares = ", ".join(f"{name} {size} bytes" for name, size in zip(inputs, taken, strict=True))
    log.info("The mixture ends where its first input does (%s).", shares)


def _facts(name: str) -> dict[str, Any]:
    """What identifies an input: hashes of its files, or the revision of a Hub data set and what its card says."""
    found: dict[str, Any] = {"input": name, "licence": None}
    (first, *_) = resolve_inputs([name])
    if isinstance(first, HubSpec):
        files = files_of(first, "corpus.inputs")
        return found | {"licence": files.licence, "revision": files.revision, "files": list(files.names)}
    return found | {"files": fingerprint([name])}


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


def _refuse_empty(counts: Mapping[str, int], budget: int) -> None:
    if counts["kept"] > counts["held_out"]:
        return
    found = ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in COUNTS if name not in ("kept", "bytes"))
    limit = f" The budget is {budget} bytes." if budget else ""
    raise DataError(
        f"No training document is left of the corpus ({found}).{limit} Give more text or loosen the filters."
    )


class _Removed:
    """`removed.jsonl`: a line for each document that is, or shares words with, a text that models are evaluated on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> "_Removed":
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.stream = (self.folder / REMOVED).open("w", encoding="utf-8")
        return self

    def note(self, left_out: LeftOut, source: str, text: str) -> None:
        if left_out.dataset is None:
            return
        line = {**left_out._asdict(), "input": source, "text": text[:SHOWN_CHARACTERS]}
        with disk_errors(self.folder):
            self.stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        with suppress(OSError) if error_type is not None else disk_errors(self.folder):
            self.stream.close()


class _Part:
    """One growing flat file of texts; its offsets are written when it closes."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.offsets = array("q", [0])

    def __enter__(self) -> "_Part":
        with disk_errors(self.folder):
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
