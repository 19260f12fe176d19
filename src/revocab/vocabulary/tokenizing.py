"""A corpus as token ids in one flat file, read back as a memory map."""

import json
import shutil
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from struct import pack
from typing import TYPE_CHECKING, Any

import numpy as np

from revocab.artifacts import Documents
from revocab.runtime.ahead import one_ahead
from revocab.runtime.files import disk_errors, write_json
from revocab.runtime.progress import bar, track
from revocab.vocabulary.spelling import undisturbed
from revocab.vocabulary.surfaces import vocabulary_size

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

# The library holds strings and offsets of every token of a batch, about 30 times the bytes of the text.
BATCH_BYTES = 2 << 20
COPIED_AT_ONCE = 4 << 20
LARGEST_16_BIT_VOCABULARY = 1 << 16


def document_marks(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """Ids that stand before and after each document in training: `([bos], [eos])`, or `[]` for one that is missing.

    Taken from the roles, not from the tokenizer's post-processor, which adds bos only, both or nothing as it was saved.
    """
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    return ([] if bos is None else [bos]), ([] if eos is None else [eos])


def cut_into_shards(documents: Documents, shard_bytes: int) -> list[tuple[int, int]]:
    """Return the first document and the one behind the last of every shard, in document order; at least one shard.

    A shard is the longest run of documents of at most `shard_bytes` of text, or one longer document.
    """
    shards, first = [], 0
    while first < len(documents):
        room = documents.offsets[first] + shard_bytes
        last = max(int(np.searchsorted(documents.offsets, room, side="right")) - 1, first + 1)
        shards.append((first, last))
        first = last
    return shards or [(0, 0)]


def tokenize_corpus(
    folder: Path,
    documents: Documents,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    first: int = 0,
    last: int | None = None,
) -> dict[str, int]:
    """Write `tokens.bin`, `offsets.npy` and `tokens.json` of documents first..last, for `TokenizedCorpus.load`.

    Each document becomes `[bos] ids [eos]`, with the ids that the tokenizer itself gives without special tokens;
    truncation and padding that it was saved with do not apply. Memory is that of two batches of a few megabytes, or of
    the two longest documents, and the text of these documents, which is read through its memory map. While ids are
    written, the library's threads are at the next batch.

    Returns:
        documents, tokens (marks included) and text_bytes.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    last = len(documents) if last is None else last
    size = vocabulary_size(tokenizer)
    dtype, code = (np.uint16, "H") if size <= LARGEST_16_BIT_VOCABULARY else (np.uint32, "I")
    before, after = document_marks(tokenizer)
    marks = len(before) + len(after)
    offsets = array("q", [0])
    text_bytes = int(documents.offsets[last] - documents.offsets[first])
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (
            (folder / "tokens.bin").open("wb") as stream,
            bar("tokenizing", total=text_bytes, unit="B") as progress,
            undisturbed(tokenizer.backend_tokenizer) as backend,
            closing(one_ahead(_encoded(backend, documents, first, last))) as batches,
        ):
            for encodings, num_bytes in batches:
                for encoding in encodings:
                    ids = encoding.ids  # pack takes them in half the time that an array of NumPy does
                    length = marks + len(ids)
                    stream.write(pack(f"={length}{code}", *before, *ids, *after))
                    offsets.append(offsets[-1] + length)
                progress.update(num_bytes)
        facts = {"dtype": np.dtype(dtype).str, "vocabulary_size": size, "special_ids": sorted({*before, *after})}
        return _write_facts(folder, np.array(offsets, dtype=np.int64), text_bytes, facts)


def join_shards(folder: Path, shards: Sequence[Path]) -> dict[str, int]:
    """Write the tokenized corpus that shards, given in document order, are the parts of; the same files and facts.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    offsets, text_bytes, facts = [np.zeros(1, dtype=np.int64)], 0, {}
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "tokens.bin").open("wb") as stream:
            for shard in track(shards, "joining shards", unit="shard"):
                facts = json.loads((shard / "tokens.json").read_text())
                text_bytes += facts["text_bytes"]
                offsets.append(offsets[-1][-1] + np.load(shard / "offsets.npy")[1:])
                with (shard / "tokens.bin").open("rb") as part:
                    shutil.copyfileobj(part, stream, COPIED_AT_ONCE)
        same = {name: facts[name] for name in ("dtype", "vocabulary_size", "special_ids")}
        return _write_facts(folder, np.concatenate(offsets), text_bytes, same)


def _write_facts(folder: Path, offsets: np.ndarray, text_bytes: int, facts: dict[str, Any]) -> dict[str, int]:
    np.save(folder / "offsets.npy", offsets)
    counts = {"documents": len(offsets) - 1, "tokens": int(offsets[-1]), "text_bytes": text_bytes}
    write_json(folder / "tokens.json", {**counts, **facts})
    return counts


def _encoded(backend: "Tokenizer", documents: Documents, first: int, last: int) -> Iterator[tuple[list[Any], int]]:
    """The library's encodings of each batch of texts, and how many bytes these are."""
    for texts, num_bytes in _batches(documents, first, last):
        yield backend.encode_batch_fast(texts, add_special_tokens=False), num_bytes


def _batches(documents: Documents, first: int, last: int) -> Iterator[tuple[list[str], int]]:
    """Texts of about `BATCH_BYTES` together, and how many bytes they are."""
    texts: list[str] = []
    num_bytes = 0
    lengths = np.diff(documents.offsets[first : last + 1])
    for index, length in enumerate(lengths.tolist(), start=first):
        if texts and num_bytes + length > BATCH_BYTES:
            yield texts, num_bytes
            texts, num_bytes = [], 0
        texts.append(documents[index])
        num_bytes += length
    if texts:
        yield texts, num_bytes
