import numpy as np
import pytest
from scipy import sparse

from revocab.alignment import Settings, align, report
from revocab.artifacts import Alignment, Boundaries, Origin

SOURCE = [b"<s>", b" ac", b" acet", b"yl", b"et", b" the"]
TARGET = [b" ac", b"etyl", b" the", b"", b"zz"]


@pytest.fixture
def problem(make_problem):
    """` ac` begins 10 times where the source has ` ac`, 30 times where it has ` acet`, and ends as itself only."""
    from dataclasses import replace

    starts, ends = np.zeros((5, 6), dtype=np.int64), np.zeros((5, 6), dtype=np.int64)
    starts[0, [1, 2]] = 10, 30
    ends[0, 1] = 10
    ends[1, 3] = 95
    starts[2, 5] = ends[2, 5] = 20
    boundaries = Boundaries(
        starts=sparse.csr_matrix(starts),
        ends=sparse.csr_matrix(ends),
        target_tokens=200,
        documents=3,
        documents_left_out=0,
    )
    return replace(make_problem(SOURCE, TARGET), boundaries=boundaries)


def test_rows_are_blended_with_what_begins_and_ends_there(problem):
    alignment = align(problem, Settings(method="subtoken", boundary_share=0.5))
    given = 0.5 * 40 / 45  # 40 occurrences, five of which are doubted
    expected = [0, 1 - given + given * 0.25, given * 0.75, 0, 0, 0]
    np.testing.assert_allclose(alignment.output_weights[0].toarray()[0], expected, atol=1e-6)
    assert alignment.weights[0].toarray()[0].tolist() == [0, 1, 0, 0, 0, 0]
    given = 0.5 * 95 / 100  # pieces of `etyl`: `et` and `yl`
    expected = [0, 0, 0, given + (1 - given) / 2, (1 - given) / 2, 0]
    np.testing.assert_allclose(alignment.weights[1].toarray()[0], expected, atol=1e-6)
    np.testing.assert_allclose(alignment.output_weights[1].toarray()[0], [0, 0, 0, 0.5, 0.5, 0], atol=1e-6)


def test_rows_sum_to_one_and_origins_stay(problem):
    plain = align(problem, Settings(method="subtoken"))
    alignment = align(problem, Settings(method="subtoken", boundary_share=0.9))
    for table in ("input", "output", "tied"):
        np.testing.assert_allclose(alignment.for_table(table).row_sums(), 1.0, atol=1e-6)
    assert alignment.origin.tolist() == plain.origin.tolist()
    fallback = alignment.origin == Origin.UNSEEN
    assert fallback.any()
    assert alignment.weights[np.flatnonzero(fallback)].nnz == 0
    assert plain.output_weights is None


def test_tied_tables_get_the_mean_and_a_saved_alignment_keeps_both(problem, tmp_path):
    alignment = align(problem, Settings(method="subtoken", boundary_share=0.5))
    alignment.save(tmp_path)
    loaded = Alignment.load(tmp_path)
    table = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    both = [loaded.for_table(name).apply(table) for name in ("input", "output")]
    np.testing.assert_allclose(loaded.for_table("tied").apply(table), np.mean(both, axis=0), atol=1e-6)
    assert np.abs(both[0] - both[1]).max() > 0.1


def test_the_report_says_how_far_the_cuts_agree(problem):
    told = report(align(problem, Settings(method="exact", boundary_share=0.1)), problem)
    assert told["start_together"] == pytest.approx(60 / 200)
    assert told["end_together"] == pytest.approx(125 / 200)
    assert told["exact_as_themselves"] == pytest.approx(30 / 60)  # ` ac` 10 of 40, ` the` 20 of 20


def test_a_share_without_counts_is_refused(make_problem):
    with pytest.raises(ValueError, match="boundaries"):
        align(make_problem(SOURCE, TARGET), Settings(method="exact", boundary_share=0.5))
