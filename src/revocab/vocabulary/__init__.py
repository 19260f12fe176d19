"""Two tokenizers made comparable: every token by the bytes that it stands for.

Token strings of two tokenizers spell the same text differently (`▁the`, `Ġthe`). `spelling` knows the spellings,
`surfaces` reads a whole vocabulary into one common form, `pairs` finds the tokens that two vocabularies share,
`pieces` cuts the tokens of one into tokens of the other, `tokenizing` turns a corpus into ids, and `boundaries`
compares where two tokenizers cut it; `segmenting` shows it. `terms` finds words and phrases of a corpus that deserve a
token, `extending` makes them tokens, `domain` does both, and `coverage` says how a tokenizer copes with them.
"""

from revocab.vocabulary.boundaries import count_boundaries
from revocab.vocabulary.coverage import domain_terms, split_by_terms, term_compression
from revocab.vocabulary.domain import add_terms, token_savings
from revocab.vocabulary.encoding import decode_texts, encode_texts
from revocab.vocabulary.extending import extend_tokenizer
from revocab.vocabulary.loading import load_tokenizer
from revocab.vocabulary.pairs import exact_pairs, role_pairs
from revocab.vocabulary.pieces import cut_into_pieces
from revocab.vocabulary.segmenting import segments_of
from revocab.vocabulary.surfaces import read_vocabulary
from revocab.vocabulary.terms import mine_terms
from revocab.vocabulary.tokenizing import cut_into_shards, document_marks, join_shards, tokenize_corpus

__all__ = [
    "add_terms",
    "count_boundaries",
    "cut_into_pieces",
    "cut_into_shards",
    "decode_texts",
    "document_marks",
    "domain_terms",
    "encode_texts",
    "exact_pairs",
    "extend_tokenizer",
    "join_shards",
    "load_tokenizer",
    "mine_terms",
    "read_vocabulary",
    "role_pairs",
    "segments_of",
    "split_by_terms",
    "term_compression",
    "token_savings",
    "tokenize_corpus",
]
