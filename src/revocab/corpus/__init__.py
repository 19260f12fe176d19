"""From files, folders and Hub data sets to one deduplicated corpus with a held-out part.

An input is resolved first (`inputs`: does it exist, is it text, what identifies it), then read as a stream of
documents (`reading`), then built into flat files that are read back as memory maps (`building`).
"""

from revocab.corpus.building import KINDS, STOCK_PHRASE, build_corpus
from revocab.corpus.choosing import first_by_hash
from revocab.corpus.inputs import HubSpec, dataset_name, fingerprint, resolve_inputs
from revocab.corpus.reading import Document, read_documents, read_rows, read_with_kinds

__all__ = [
    "KINDS", "STOCK_PHRASE", "Document", "HubSpec", "build_corpus", "dataset_name", "fingerprint", "first_by_hash",
    "read_documents", "read_rows", "read_with_kinds", "resolve_inputs",
]  # fmt: skip
