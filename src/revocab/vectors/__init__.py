"""Token vectors learned from a corpus of token ids: co-occurrence statistics factorised, fastText, or GloVe.

A token is described by the tokens that it stands beside. The same corpus in two vocabularies gives two sets of
vectors whose shapes agree, up to a rotation, so that tokens of the two can be compared.
"""

from revocab.vectors.cooccurrence import cooccurrence_vectors
from revocab.vectors.fasttext import fasttext_vectors
from revocab.vectors.glove import glove_vectors
from revocab.vectors.occurrences import token_counts
from revocab.vectors.pair_counts import PairCounts, add_shards, count_shard

__all__ = [
    "PairCounts",
    "add_shards",
    "cooccurrence_vectors",
    "count_shard",
    "fasttext_vectors",
    "glove_vectors",
    "token_counts",
]
