"""Two tokenizers made comparable: every token by the bytes that it stands for.

Token strings of two tokenizers spell the same text differently (`▁the`, `Ġthe`). `spelling` knows the spellings,
`surfaces` reads a whole vocabulary into one common form, `pairs` finds the tokens that two vocabularies share,
`pieces` cuts the tokens of one into tokens of the other, and `tokenizing` turns a corpus into ids.
"""

from revocab.vocabulary.loading import load_tokenizer
from revocab.vocabulary.pairs import exact_pairs, role_pairs
from revocab.vocabulary.pieces import cut_into_pieces
from revocab.vocabulary.surfaces import read_vocabulary
from revocab.vocabulary.tokenizing import document_marks, tokenize_corpus

__all__ = [
    "cut_into_pieces",
    "document_marks",
    "exact_pairs",
    "load_tokenizer",
    "read_vocabulary",
    "role_pairs",
    "tokenize_corpus",
]
