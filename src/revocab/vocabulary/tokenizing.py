"""A corpus as token ids in one flat file, read back as a memory map."""

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from revocab.artifacts import Documents
from revocab.runtime.files import disk_errors, write_json
from revocab.runtime.progress import bar
from revocab.vocabulary.spelling import undisturbed
from revocab.vocabulary.surfaces import vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The library holds strings and offsets of every token of a batch, about 30 times the bytes of the text.
BATCH_BYTES = 4 << 20
LARGEST_16_BIT_VOCABULARY = 1 << 16


def document_marks(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """Ids that stand before and after each document in training: `([bos], [eos])`, or `[]` for one that is missing.

    Taken from the roles, not from the tokenizer's post-processor, which adds bos only, both or nothing as it was saved.
    """
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    return ([] if bos is None else [bos]), ([] if eos is None else [eos])


def tokenize_corpus(folder: Path, documents: Documents, tokenizer: "PreTrainedTokenizerBase") -> dict[str, int]:
    """Write `tokens.bin`, `offsets.npy` and `tokens.json`, for `TokenizedCorpus.load`.

    Each document becomes `[bos] ids [eos]`, with the ids that the tokenizer itself gives without special tokens;
    truncation and padding that it was saved with do not apply. Memory is that of one batch of a few megabytes, or of
    the longest document.

    Returns:
        documents, tokens (marks included) and text_bytes.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    size = vocabulary_size(tokenizer)
    dtype = np.dtype(np.uint16 if size <= LARGEST_16_BIT_VOCABULARY else np.uint32)
    before, after = document_marks(tokenizer)
    backend = tokenizer.backend_tokenizer
    offsets = array("q", [0])
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (
            (folder / "tokens.bin").open("wb") as stream,
            bar("tokenizing", total=documents.num_bytes, unit="B") as progress,
            undisturbed(backend),
        ):
            for texts, num_bytes in _batches(documents):
                for encoding in backend.encode_batch_fast(texts, add_special_tokens=False):
                    ids = np.array(before + encoding.ids + after, dtype=dtype)
                    stream.write(ids.tobytes())
                    offsets.append(offsets[-1] + len(ids))
                progress.update(num_bytes)
        np.save(folder / "offsets.npy", np.array(offsets, dtype=np.int64))
        facts = {"documents": len(documents), "tokens": offsets[-1], "text_bytes": documents.num_bytes}
        special_ids = sorted({*before, *after})
        write_json(
            folder / "tokens.json",
            {**facts, "dtype": dtype.str, "vocabulary_size": size, "special_ids": special_ids},
        )
    return facts


def _batches(documents: Documents) -> Iterator[tuple[list[str], int]]:
    """Texts of about `BATCH_BYTES` together, and how many bytes they are."""
    texts: list[str] = []
    num_bytes = 0
    lengths = np.diff(documents.offsets)
    for index, length in enumerate(lengths.tolist()):
        if texts and num_bytes + length > BATCH_BYTES:
            yield texts, num_bytes
            texts, num_bytes = [], 0
        texts.append(documents[index])
        num_bytes += length
    if texts:
        yield texts, num_bytes
