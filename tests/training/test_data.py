"""What is read, in which order: against lists worked by hand, and as properties."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from revocab.errors import ConfigError, DataError
from revocab.training.data import PackedSequences, ReadingOrder, StageData


def order(**changes) -> ReadingOrder:
    return ReadingOrder(**({"available": 5, "total": 8, "batch_size": 2, "shuffle": False, "seed": 0} | changes))


def test_windows_begin_with_the_start_document_and_wrap(make_corpus):
    """Tokens 0 .. 10 in documents of 3, 4 and 4; sequences of 4 from document 1, whose first token is 3."""
    sequences = PackedSequences(make_corpus([3, 4, 4], counting=True), 4, start_document=1)
    assert len(sequences) == 2
    assert sequences[[0, 1]].tolist() == [[3, 4, 5, 6], [7, 8, 9, 10]]
    sequences = PackedSequences(make_corpus([3, 4, 4], counting=True), 4, start_document=2)
    assert sequences[[0, 1]].tolist() == [[7, 8, 9, 10], [0, 1, 2, 3]]
    sequences = PackedSequences(make_corpus([3, 4, 5], counting=True), 3, start_document=2)
    assert sequences[[1, 2, 3]].tolist() == [[10, 11, 0], [1, 2, 3], [4, 5, 6]]
    assert sequences[[0]].dtype == torch.int64


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(sum),
    length=st.integers(1, 7),
    data=st.data(),
)
def test_sequences_of_a_pass_do_not_overlap(lengths, length, data):
    from revocab.artifacts import TokenizedCorpus

    offsets = np.concatenate([[0], np.cumsum(lengths)])
    total = int(offsets[-1])
    corpus = TokenizedCorpus(
        tokens=np.arange(total, dtype=np.uint16),
        offsets=offsets,
        vocabulary_size=total,
        text_bytes=total,
        special_ids=(),
    )
    start = data.draw(st.integers(0, len(lengths) - 1))
    sequences = PackedSequences(corpus, length, start)
    read = [token for number in range(len(sequences)) for token in sequences[[number]][0].tolist()]
    assert read == [(int(offsets[start]) + k) % total for k in range(total // length * length)]


def test_file_order_over_two_passes():
    assert list(order()) == [[0, 1], [2, 3], [4, 0], [1, 2]]
    assert len(order()) == 4


def test_two_processes_take_turns():
    assert list(order(total=8, rank=0, world_size=2)) == [[0, 1], [4, 0]]
    assert list(order(total=8, rank=1, world_size=2)) == [[2, 3], [1, 2]]


@given(
    available=st.integers(1, 20),
    batch_size=st.integers(1, 4),
    batches=st.integers(1, 20),
    world_size=st.integers(1, 3),
    seed=st.integers(0, 100),
    shuffle=st.booleans(),
    data=st.data(),
)
def test_each_pass_reads_each_sequence_once(available, batch_size, batches, world_size, seed, shuffle, data):
    facts = {"available": available, "batch_size": batch_size, "shuffle": shuffle, "seed": seed}
    total = batches * batch_size * world_size
    ranks = [list(order(**facts, total=total, rank=rank, world_size=world_size)) for rank in range(world_size)]
    read = [int(ranks[r][b][i]) for b in range(batches) for r in range(world_size) for i in range(batch_size)]
    assert [ranks[r][b] for b in range(batches) for r in range(world_size)] == list(order(**facts, total=total))
    for first in range(0, total, available):
        one_pass = read[first : first + available]
        assert len(set(one_pass)) == len(one_pass)
        if not shuffle or len(one_pass) == available:
            assert sorted(one_pass) == list(range(len(one_pass)))  # all, or in file order as far as it is read
    start = data.draw(st.integers(0, batches))
    assert list(order(**facts, total=total, world_size=world_size, start=start)) == ranks[0][start:]


def test_shuffling_differs_between_passes_and_seeds():
    long = {"available": 50, "total": 100, "batch_size": 50, "shuffle": True}
    first, second = order(**long)
    other, _ = order(**long, seed=1)
    assert first != second
    assert first != other
    assert first != list(range(50))
    assert [first, second] == list(order(**long))


def test_a_short_shuffled_stage_samples_the_whole_corpus():
    (read,) = order(available=1000, total=100, batch_size=100, shuffle=True)
    assert max(read) > 900
    assert min(read) < 100
    assert 350 < sum(read) / len(read) < 650


def test_corpus_below_one_packed_batch(make_corpus, settings):
    with pytest.raises(DataError, match=r"has 100 tokens, one packed batch needs 128 \(16 sequences of 8 tokens\)"):
        StageData(make_corpus([100]), settings(batch_size=4, gradient_accumulation=4), num_workers=0)


def test_empty_corpus(make_corpus, settings):
    with pytest.raises(DataError, match="has 0 tokens"):
        StageData(make_corpus([]), settings(), num_workers=0)


def test_offset_beyond_the_documents(corpus, settings):
    with pytest.raises(ConfigError, match=r"vocab\.train_start_idx_stage2 must be below 40, .* got 40"):
        StageData(corpus, settings(start_document=40), num_workers=0)
