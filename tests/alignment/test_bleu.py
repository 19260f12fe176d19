import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from revocab.alignment import bleu1, map_documents
from revocab.alignment.bleu import best_source
from revocab.artifacts import Alignment, Origin


def alignment(rows, share=None, background=None):
    weights = np.array(rows, dtype=np.float32)
    number, size = weights.shape
    return Alignment(
        weights=sparse.csr_matrix(weights),
        background=np.full(size, 1 / size, dtype=np.float32) if background is None else background,
        background_share=np.zeros(number, dtype=np.float32) if share is None else np.array(share, dtype=np.float32),
        origin=np.full(number, Origin.VECTORS, dtype=np.int8),
        similarity=np.full(number, np.nan, dtype=np.float32),
    )


def test_the_largest_weight_wins_and_the_lower_id_among_equals():
    best, has = best_source(alignment([[0, 0.25, 0.75], [0.5, 0, 0.5], [0, 1, 0]]))
    assert best.tolist() == [2, 0, 1]
    assert has.all()


def test_a_row_of_the_mean_or_of_zeros_has_no_source_token():
    rows = [[0, 0, 0], [0, 0, 0], [0, 0.4, 0], [0.1, 0, 0]]
    background = np.array([0.1, 0.2, 0.7], dtype=np.float32)
    best, has = best_source(alignment(rows, share=[1, 0, 0.6, 0.9], background=background))
    assert has.tolist() == [False, False, True, False]  # 0.4 + 0.12 > 0.42; 0.1 + 0.09 < 0.63
    assert best[2] == 1
    assert map_documents(alignment(rows, share=[1, 0, 0.6, 0.9], background=background), [[2, 0], []]) == [
        [1, None],
        [],
    ]


def test_identity_gives_a_hundred():
    ids = [[3, 1, 1, 4], [0], [2, 2]]
    mapped = map_documents(alignment(np.eye(5)), ids)
    assert bleu1(mapped, ids) == {"bleu1": pytest.approx(100), "bleu1_document_mean": pytest.approx(100)}


def test_a_case_worked_by_hand():
    """Clipped matches 2 of 3 (a third 7 is one too many) and 1 of 2; 5 ids for 6: brevity exp(1 - 6/5) over all."""
    mapped, source = [[7, 7, 7], [5, None]], [[7, 7, 8, 9], [5, 6]]
    scores = bleu1(mapped, source)
    assert scores["bleu1"] == pytest.approx(100 * np.exp(1 - 6 / 5) * 3 / 5)
    assert scores["bleu1_document_mean"] == pytest.approx(100 * (np.exp(1 - 4 / 3) * 2 / 3 + 1 / 2) / 2)


def test_a_miss_counts_against_the_score():
    left_out = bleu1([[1, 2]], [[1, 2]])["bleu1"]
    assert left_out == pytest.approx(100)
    assert bleu1([[1, 2, None]], [[1, 2]])["bleu1"] == pytest.approx(100 * 2 / 3)


def test_nothing_in_common_is_zero_and_nothing_at_all_is_null():
    assert bleu1([[1], [2]], [[3], [4]]) == {"bleu1": 0, "bleu1_document_mean": 0}
    assert bleu1([[], []], [[], []]) == {"bleu1": None, "bleu1_document_mean": None}


documents = st.lists(st.tuples(*[st.lists(st.integers(0, 5), min_size=1, max_size=8)] * 2), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(pairs=documents)
def test_it_is_clipped_precision_times_brevity(pairs):
    matches = sum(min(ours.count(i), theirs.count(i)) for ours, theirs in pairs for i in range(6))
    length, reference = sum(len(ours) for ours, _ in pairs), sum(len(theirs) for _, theirs in pairs)
    expected = 100 * matches / length * min(1.0, np.exp(1 - reference / length))
    assert bleu1(*zip(*pairs, strict=True))["bleu1"] == pytest.approx(expected)
