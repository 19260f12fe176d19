from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from revocab.errors import ConfigError
from revocab.vectors.counting import count_pairs, units_per_count

# "cpu" counts with numpy; any other name counts with torch, as on a GPU
DEVICES = ["cpu", "cpu:0", *(["cuda"] if torch.cuda.is_available() else [])]
documents_of_ids = st.lists(st.lists(st.integers(0, 6), max_size=12), max_size=8)


def brute_force(documents, window, size, special):
    """Every ordered pair of positions within the window, as exact fractions."""
    counts = {}
    for document in documents:
        for i, first in enumerate(document):
            for j, second in enumerate(document):
                near = i != j and abs(i - j) <= window
                if near and first not in special and second not in special:
                    counts[first, second] = counts.get((first, second), Fraction(0)) + Fraction(1, abs(i - j))
    dense = np.zeros((size, size), dtype=np.int64)
    for pair, value in counts.items():
        units = value * units_per_count(window)
        assert units.denominator == 1
        dense[pair] = units.numerator
    return dense


@settings(max_examples=60, deadline=None)
@given(
    documents=documents_of_ids,
    window=st.integers(1, 6),
    pairs_at_once=st.integers(1, 40),
    special=st.sets(st.integers(0, 6), max_size=2),
    device=st.sampled_from(DEVICES),
)
def test_counts_are_the_brute_force_counts_whatever_the_chunks(
    make_corpus, documents, window, pairs_at_once, special, device, count_neighbours
):
    corpus = make_corpus(documents, vocabulary_size=7, special_ids=sorted(special))
    counted = count_pairs(corpus, window, pairs_at_once=pairs_at_once, threads=2, device=device)
    assert counted.dtype == np.int64
    upper = np.triu(brute_force(documents, window, 7, special))
    upper[np.diag_indices(7)] //= 2  # a token beside itself was seen from both ends
    np.testing.assert_array_equal(counted.toarray(), upper)
    both = count_neighbours(corpus, window, device=device).toarray()
    np.testing.assert_array_equal(both, brute_force(documents, window, 7, special))


def test_a_case_worked_by_hand(make_corpus, count_neighbours):
    # a b a | a c, window 2: a-b at distance 1 twice, a-a at distance 2 (seen from both ends), a-c at distance 1
    counts = count_neighbours(make_corpus([[0, 1, 0], [0, 2]], vocabulary_size=3), 2).toarray()
    assert units_per_count(2) == 2
    np.testing.assert_array_equal(counts, [[2, 4, 2], [4, 0, 0], [2, 0, 0]])


def test_chunks_threads_and_device_change_no_bit(topical_corpus):
    whole = count_pairs(topical_corpus, 5, threads=1)
    cases = [(7, 1, "cpu"), (500, 3, "cpu"), (10**6, 2, "cpu"), *((500, 1, device) for device in DEVICES[1:])]
    for pairs_at_once, threads, device in cases:
        part = count_pairs(topical_corpus, 5, pairs_at_once=pairs_at_once, threads=threads, device=device)
        assert part.has_canonical_format
        for name in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name))


def test_counts_of_shards_add_up_to_the_counts_of_the_whole(make_corpus, count_neighbours):
    documents = np.random.default_rng(0).integers(0, 9, size=(30, 11)).tolist()
    whole = count_neighbours(make_corpus(documents, vocabulary_size=9), 4)
    shards = [count_neighbours(make_corpus(documents[i::3], vocabulary_size=9), 4) for i in range(3)]
    assert (sum(shards[1:], shards[0]) != whole).nnz == 0


@pytest.mark.parametrize("device", DEVICES)
def test_wide_vocabularies_are_packed_without_collisions(make_corpus, device, count_neighbours):
    corpus = make_corpus([[65535, 0, 65535], [32768, 32767]], vocabulary_size=65536)
    counts = count_neighbours(corpus, 5, device=device).tocoo()
    found = {(int(i), int(j)): int(n) for i, j, n in zip(counts.row, counts.col, counts.data, strict=True)}
    assert found == {
        (0, 65535): 120,
        (65535, 0): 120,
        (65535, 65535): 60,
        (32767, 32768): 60,
        (32768, 32767): 60,
    }


def test_an_empty_corpus_has_no_counts(make_corpus, count_neighbours):
    assert count_neighbours(make_corpus([], vocabulary_size=4), 5).nnz == 0


@pytest.mark.parametrize("window", [0, -1, 21])
def test_a_window_that_cannot_work_is_refused(make_corpus, window, count_neighbours):
    with pytest.raises(ConfigError, match=r"embedding\.cooccurrence\.window must be in 1\.\.20"):
        count_neighbours(make_corpus([[0, 1]], vocabulary_size=2), window)
