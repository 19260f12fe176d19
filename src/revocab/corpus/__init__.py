"""From files, folders and Hub data sets to one deduplicated corpus with a held-out part.

An input is resolved first (`inputs`: does it exist, is it text, what identifies it), then read as a stream of
documents (`reading`), then built into flat files that are read back as memory maps (`building`).
"""

from revocab.corpus.building import STOCK_PHRASE, build_corpus
from revocab.corpus.choosing import first_by_hash
from revocab.corpus.inputs import HubSpec, dataset_name, fingerprint, resolve_inputs
from revocab.corpus.reading import read_documents, read_rows

__all__ = [
    "STOCK_PHRASE", "HubSpec", "build_corpus", "dataset_name", "fingerprint", "first_by_hash", "read_documents",
    "read_rows", "resolve_inputs",
]  # fmt: skip
