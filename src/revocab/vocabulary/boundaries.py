"""Where both tokenizers cut a text at the same place: which source token begins, and ends, where a target token does.

An exact token is not always used alike: the target may begin "acetyl" with ` ac`, which the source would never do,
having ` acet`. Counted over a corpus that both tokenizers cut, the source tokens that begin where a target token begins
say what the model would have predicted there, and those that end where it ends what it would have just read.
"""

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from revocab.artifacts import Boundaries, TokenizedCorpus, Vocabulary
from revocab.runtime.progress import bar

CHUNK_TOKENS = 1 << 20  # target tokens looked at together
MAX_CHUNKS = 48  # evenly spread over the corpus where it is longer: 50 million tokens tell enough
LEADING_SPACE = 1  # byte that some tokenizers put before a text


def count_boundaries(
    source_corpus: TokenizedCorpus, target_corpus: TokenizedCorpus, source: Vocabulary, target: Vocabulary
) -> Boundaries:
    """Count pairs of tokens that begin, and that end, at the same byte of the same document.

    Documents whose tokens do not spell the same number of bytes in both (but for one leading space) are left out: a
    normaliser or an unknown token changed their text. Memory: that of one chunk and of the distinct pairs.

    Args:
        source_corpus: S-vocabulary ids of the same documents, in the same order, as
        target_corpus: T-vocabulary ids.
        source: surfaces give the bytes of each token.
        target: the same.

    Raises:
        ValueError: the corpora have different numbers of documents.
    """
    if len(source_corpus) != len(target_corpus):
        raise ValueError(f"{len(source_corpus)} documents of source tokens, {len(target_corpus)} of target tokens")
    shape = len(target), len(source)
    lengths_S, lengths_T = _byte_lengths(source), _byte_lengths(target)
    starts, ends = _PairCounts(shape), _PairCounts(shape)
    compared = used = seen = 0
    chunks = _chunks(target_corpus)
    with bar("boundaries", total=len(chunks), unit="chunk") as progress:
        for first, last in chunks:
            from_source = _Cuts(source_corpus, lengths_S, first, last)
            from_target = _Cuts(target_corpus, lengths_T, first, last)
            same_D = np.abs(from_source.bytes_D - from_target.bytes_D) <= LEADING_SPACE
            room_D = np.maximum(from_source.bytes_D, from_target.bytes_D) + 1
            source_ids, source_starts, source_ends = from_source.spans(same_D, room_D)
            target_ids, target_starts, target_ends = from_target.spans(same_D, room_D)
            starts.add(target_ids, source_ids, target_starts, source_starts)
            ends.add(target_ids, source_ids, target_ends, source_ends)
            compared += len(target_ids)
            used, seen = used + int(same_D.sum()), seen + len(same_D)
            progress.update()
    return Boundaries(
        starts=starts.matrix(),
        ends=ends.matrix(),
        target_tokens=compared,
        documents=used,
        documents_left_out=seen - used,
    )


def _byte_lengths(vocabulary: Vocabulary) -> np.ndarray:
    pairs = zip(vocabulary.surfaces, vocabulary.special, strict=True)
    return np.array([0 if special else len(surface) for surface, special in pairs], dtype=np.int64)


def _chunks(corpus: TokenizedCorpus) -> list[tuple[int, int]]:
    """Ranges of documents of about CHUNK_TOKENS tokens, at most MAX_CHUNKS of them."""
    cuts = np.searchsorted(corpus.offsets, np.arange(0, corpus.offsets[-1] + CHUNK_TOKENS, CHUNK_TOKENS))
    cuts = np.unique(np.minimum(cuts, len(corpus)))
    ranges = list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))
    if len(ranges) <= MAX_CHUNKS:
        return ranges
    return [ranges[place] for place in np.linspace(0, len(ranges) - 1, MAX_CHUNKS).round().astype(int)]


class _Cuts:
    """Tokens of the documents `first` to `last` with the bytes that they span."""

    def __init__(self, corpus: TokenizedCorpus, lengths_V: np.ndarray, first: int, last: int) -> None:
        begin, end = corpus.offsets[first], corpus.offsets[last]
        self.ids = corpus.read(int(begin), int(end)).astype(np.int64)
        self.lengths = lengths_V[self.ids]
        self.passed = np.concatenate([[0], np.cumsum(self.lengths)])  # bytes before each token, of all documents
        self.offsets = corpus.offsets[first : last + 1] - begin
        self.bytes_D = np.diff(self.passed[self.offsets])

    def spans(self, kept_D: np.ndarray, room_D: np.ndarray) -> Iterator[np.ndarray]:
        """Ids, first and last byte positions of all tokens that stand for text, in the documents that are kept.

        Positions are counted back from a document's end, which a leading space does not move.
        """
        document = np.repeat(np.arange(len(kept_D)), np.diff(self.offsets))
        end_of_document_D = np.cumsum(room_D)
        ends = end_of_document_D[document] - (self.passed[self.offsets[1:]][document] - self.passed[1:])
        text = (self.lengths > 0) & kept_D[document]
        return iter((self.ids[text], (ends - self.lengths)[text], ends[text]))


class _PairCounts:
    """Counts of (target, source) pairs, as sorted keys and their numbers."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.keys, self.counts = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)

    def add(self, target_ids: np.ndarray, source_ids: np.ndarray, target_at: np.ndarray, source_at: np.ndarray) -> None:
        """Count the pairs whose positions are equal; positions ascend."""
        _, in_target, in_source = np.intersect1d(target_at, source_at, assume_unique=True, return_indices=True)
        new = target_ids[in_target] * self.shape[1] + source_ids[in_source]
        keys, place = np.unique(np.concatenate([self.keys, new]), return_inverse=True)
        weights = np.concatenate([self.counts, np.ones(len(new), dtype=np.int64)])
        self.keys, self.counts = keys, np.bincount(place, weights, minlength=len(keys)).astype(np.int64)

    def matrix(self) -> sparse.csr_matrix:
        rows, columns = np.divmod(self.keys, self.shape[1])
        return sparse.csr_matrix((self.counts, (rows, columns)), shape=self.shape)
