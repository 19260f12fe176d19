"""Counts on disk: shards add up to the whole to the bit, and the frequent pairs are those of a plain sort."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from revocab.vectors import PairCounts, add_shards, count_shard
from revocab.vectors.counting import count_pairs
from revocab.vectors.pair_counts import frequent_pairs, row_blocks


@pytest.fixture(scope="module")
def documents():
    return np.random.default_rng(5).zipf(1.4, size=(120, 30)).clip(max=40).tolist()


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("shards", [1, 3, 120])
@pytest.mark.parametrize("pairs_at_once", [1, 50, 10**6])
def test_shards_add_up_to_the_whole_to_the_bit(make_corpus, tmp_path, documents, shards, pairs_at_once):
    count_shard(tmp_path / "whole", make_corpus(documents, vocabulary_size=41, special_ids=(1,)), 4)
    folders = [tmp_path / f"shard{i}" for i in range(shards)]
    for i, folder in enumerate(folders):
        count_shard(folder, make_corpus(documents[i::shards], vocabulary_size=41, special_ids=(1,)), 4)
    facts = add_shards(tmp_path / "sum", folders, pairs_at_once=pairs_at_once)
    assert files_of(tmp_path / "sum") == files_of(tmp_path / "whole")
    assert facts == {"pairs": len(PairCounts.load(tmp_path / "whole")), "tokens": 120 * 30}


def test_rows_come_back_as_they_were_counted(make_corpus, counted, documents):
    corpus = make_corpus(documents, vocabulary_size=41)
    counts, expected = counted(corpus, 4), count_pairs(corpus, 4)
    np.testing.assert_array_equal(counts.rows(0, 41).toarray(), expected.toarray())
    np.testing.assert_array_equal(counts.rows(7, 9).toarray(), expected[7:9].toarray())
    assert counts.occurrences.tolist() == np.bincount(np.ravel(documents), minlength=41).tolist()


@pytest.mark.parametrize("max_pairs", [1, 5, 37, 150, 10**6])
@pytest.mark.parametrize("pairs_at_once", [3, 10**6])
def test_frequent_pairs_are_those_of_a_plain_sort(
    make_corpus, counted, documents, max_pairs, pairs_at_once, count_neighbours
):
    corpus = make_corpus(documents, vocabulary_size=41)
    kept = np.arange(2, 35)
    every = count_neighbours(corpus, 5)[kept][:, kept]
    chosen, totals = frequent_pairs(counted(corpus), kept, max_pairs, pairs_at_once=pairs_at_once)
    np.testing.assert_array_equal(totals, np.asarray(every.sum(axis=1)).ravel())
    upper = sparse.triu(every).tocoo()
    sizes = np.where(upper.row == upper.col, upper.data // 2, upper.data)  # as a pair, seen once
    number = sparse.triu(chosen).nnz
    assert number <= max_pairs
    smallest = np.sort(sizes)[::-1][number - 1] if number else np.inf
    assert number == (sizes >= smallest).sum()  # nothing as frequent as a kept pair was dropped
    if number < len(sizes):
        next_one = sizes[sizes < smallest].max()
        alike = (sizes < smallest) & (sizes > next_one * (1 - 1 / 128))
        assert number + alike.sum() > max_pairs  # one step more would have been too many
    dense = every.toarray()
    np.testing.assert_array_equal(chosen.toarray()[chosen.toarray() > 0], dense[chosen.toarray() > 0])
    np.testing.assert_array_equal(chosen.toarray(), chosen.toarray().T)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(0, 9), max_size=12), most=st.integers(1, 20))
def test_blocks_of_rows_cover_all_rows_and_hold_no_more_than_they_may(lengths, most):
    row_starts = np.cumsum([0, *lengths])
    blocks = row_blocks(row_starts, most)
    assert [row for first, last in blocks for row in range(first, last)] == list(range(len(lengths)))
    for first, last in blocks:
        assert last - first == 1 or row_starts[last] - row_starts[first] <= most


def test_no_text_is_no_pairs(make_corpus, counted):
    counts = counted(make_corpus([], vocabulary_size=4))
    assert len(counts) == 0
    assert counts.rows(0, 4).nnz == 0
