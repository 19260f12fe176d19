import numpy as np
import pytest

from revocab.alignment import Settings, align, methods, needs_vectors
from revocab.artifacts import Origin
from revocab.errors import ConfigError, DataError, ModelError
from revocab.identity import METHODS_THAT_READ

SOURCE = [b"", b"", b" the", b" cat", b"s", b" dog", b"\xe2", b"\x82"]
TARGET = [b"", b"", b" the", b" cats", b" dogs", "\u20ac".encode(), b"", b" cat"]
ROLES = {"bos": 0, "eos": 1}


@pytest.fixture
def words(make_problem):
    """Target: roles 0 and 1, exact 2 and 7, pieces 3 and 4, bytes alone 5, a control token 6."""
    generator = np.random.default_rng(0)
    return make_problem(
        SOURCE,
        TARGET,
        source_roles=ROLES,
        target_roles={"bos": 1, "eos": 0},
        source_vectors=generator.normal(size=(8, 3)) * (np.arange(8) > 1)[:, None],
        target_vectors=generator.normal(size=(8, 3)) * (np.arange(8) > 1)[:, None],
    )


def dense(alignment):
    return alignment.weights.toarray() + alignment.background_share[:, None] * alignment.background


def test_methods_are_the_files_of_the_folder():
    expected = {"exact", "mean", "mixed", "procrustes", "random", "subtoken", "tokalign_code", "tokalign_paper"}
    assert expected <= set(methods())
    assert [m for m in sorted(expected) if needs_vectors(m)] == [
        "mixed",
        "procrustes",
        "tokalign_code",
        "tokalign_paper",
    ]


def test_an_unknown_method_names_those_that_exist(words):
    with pytest.raises(ConfigError, match=r"alignment\.method must be one of exact, focus, mean.*got 'best'"):
        align(words, Settings(method="best"))


@pytest.mark.parametrize("method", methods())
def test_rows_sum_to_one_and_every_origin_is_told(words, method):
    alignment = align(words, Settings(method=method, pivot_count=2, top_k=2))
    np.testing.assert_allclose(alignment.row_sums(), 1.0, atol=1e-6)
    assert alignment.shape == (8, 8)
    assert (dense(alignment) >= 0).all()
    assert alignment.origin[[0, 1]].tolist() == [Origin.ROLE, Origin.ROLE]
    assert dense(alignment)[0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0]


def test_exact_tokens_stand_for_themselves_and_the_rest_is_the_mean_of_text(words):
    alignment = align(words, Settings(method="exact"))
    rows = dense(alignment)
    assert rows[2].tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert rows[7].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    for other in (3, 4, 5, 6):
        assert alignment.origin[other] == Origin.UNSEEN
        np.testing.assert_allclose(rows[other], np.array([0, 0, 1, 1, 1, 1, 1, 1]) / 6)


def test_subtoken_is_the_mean_of_the_pieces_but_not_of_bytes(words):
    alignment = align(words, Settings(method="subtoken"))
    rows = dense(alignment)
    np.testing.assert_allclose(rows[3], [0, 0, 0, 0.5, 0.5, 0, 0, 0])
    np.testing.assert_allclose(rows[4], [0, 0, 0, 0, 0.5, 0.5, 0, 0])
    assert alignment.origin[3:7].tolist() == [Origin.SUBTOKENS, Origin.SUBTOKENS, Origin.UNSEEN, Origin.UNSEEN]
    assert alignment.report["single_bytes_alone"] == 1


def test_a_piece_met_twice_counts_twice(make_problem):
    problem = make_problem([b"ha", b"!", b"o"], [b"haha!", b"o"])
    np.testing.assert_allclose(dense(align(problem, Settings(method="subtoken")))[0], [2 / 3, 1 / 3, 0])


@pytest.mark.parametrize("method", ["procrustes", "mixed", "tokalign_paper"])
def test_tokens_without_a_twin_find_their_truth(rotated_problem, method):
    settings = Settings(method=method, pivot_count=30, top_k=5, csls_neighbours=3, temperature=0.05)
    alignment = align(rotated_problem, settings)
    weights = alignment.weights.toarray()
    for target_id in range(40, 50):
        assert weights[target_id].argmax() == target_id
        assert alignment.origin[target_id] == Origin.VECTORS
        assert alignment.similarity[target_id] == pytest.approx(1.0, abs=1e-4)
    assert (np.isnan(alignment.similarity[:40])).all()


@pytest.mark.parametrize("method", ["procrustes", "tokalign_paper"])
def test_held_out_pairs_are_scored_on_a_fit_without_them(rotated_problem, method):
    settings = Settings(method=method, pivot_count=30, heldout_pairs=1000)
    heldout = align(rotated_problem, settings).report["heldout"]
    assert heldout == {"pairs": 8, "fitted_on": 32, "top1": 1.0, "top5": 1.0}
    assert align(rotated_problem, Settings(method=method, heldout_pairs=0)).report["heldout"] is None


def test_held_out_pairs_of_vectors_without_relation_are_not_found(make_problem):
    generator = np.random.default_rng(5)
    surfaces = [f"w{i}".encode() for i in range(100)]
    problem = make_problem(
        surfaces,
        surfaces,
        source_vectors=generator.normal(size=(100, 4)),
        target_vectors=generator.normal(size=(100, 4)),
    )
    for method in ("procrustes", "tokalign_paper"):
        assert align(problem, Settings(method=method)).report["heldout"]["top1"] < 0.3


def test_top_k_weights_are_the_softmax_of_the_scores(rotated_problem):
    one = align(rotated_problem, Settings(method="procrustes", top_k=1)).weights
    assert np.diff(one.indptr).tolist() == [1] * 50
    cold = align(rotated_problem, Settings(method="procrustes", top_k=4, temperature=1e-4)).weights[40:]
    warm = align(rotated_problem, Settings(method="procrustes", top_k=4, temperature=1e4)).weights[40:]
    assert cold.max(axis=1).toarray().min() > 0.99
    np.testing.assert_allclose(warm.data, 0.25, atol=1e-3)


def test_mixed_is_half_pieces_half_matches_where_both_exist(words):
    settings = Settings(method="mixed", top_k=2, subtoken_share=0.25)
    mixed = align(words, settings)
    pieces = dense(align(words, Settings(method="subtoken")))
    matches = dense(align(words, Settings(method="procrustes", top_k=2)))
    np.testing.assert_allclose(dense(mixed)[3], 0.25 * pieces[3] + 0.75 * matches[3], atol=1e-6)
    np.testing.assert_allclose(dense(mixed)[5], matches[5], atol=1e-6)
    assert mixed.origin[3:7].tolist() == [Origin.MIXED, Origin.MIXED, Origin.VECTORS, Origin.UNSEEN]


def test_rare_tokens_are_no_evidence_so_mixed_uses_their_pieces(make_problem):
    generator = np.random.default_rng(2)
    problem = make_problem(
        [b"a", b"b", b"c", b"d"],
        [b"a", b"b", b"ab", b"bc"],
        source_vectors=generator.normal(size=(4, 2)),
        target_vectors=generator.normal(size=(4, 2)),
        source_counts=[50, 50, 4, 50],
        target_counts=[50, 50, 4, 50],
    )
    mixed = align(problem, Settings(method="mixed", min_count=5))
    assert mixed.origin.tolist() == [Origin.EXACT, Origin.EXACT, Origin.SUBTOKENS, Origin.MIXED]
    np.testing.assert_allclose(dense(mixed)[2], [0.5, 0.5, 0, 0])
    vectors_alone = align(problem, Settings(method="procrustes", min_count=5))
    assert vectors_alone.origin[2] == Origin.UNSEEN
    assert dense(vectors_alone)[3, 2] == 0, "a rare source token is no candidate"


def test_mean_and_random_look_at_no_evidence(words):
    mean, random = (align(words, Settings(method=method, fallback="zero")) for method in ("mean", "random"))
    assert set(mean.origin[2:]) == set(random.origin[2:]) == {Origin.BASELINE}
    np.testing.assert_allclose(dense(mean)[2:], np.tile(np.array([0, 0, 1, 1, 1, 1, 1, 1]) / 6, (6, 1)), atol=1e-6)
    assert np.diff(random.weights.indptr).tolist() == [1] * 8
    assert not random.weights[2:].toarray()[:, :2].any(), "special tokens stand for no text and are never drawn"
    again, other = (align(words, Settings(method="random", seed=seed)) for seed in (0, 1))
    assert (again.weights != random.weights).nnz == 0
    assert (other.weights != random.weights).nnz > 0


@pytest.mark.parametrize("method", ["procrustes", "mixed", "tokalign_paper"])
def test_vocabularies_without_overlap_are_an_error_that_names_what_works(make_problem, method):
    problem = make_problem([b"a", b"b"], [b"x", b"y"], source_vectors=np.eye(2), target_vectors=np.eye(2))
    with pytest.raises(ModelError, match="the source tokenizer and the target tokenizer have none: use alignment=sub"):
        align(problem, Settings(method=method))
    assert align(problem, Settings(method="subtoken")).origin.tolist() == [Origin.UNSEEN, Origin.UNSEEN]


def test_shared_tokens_that_are_all_rare_are_an_error(make_problem):
    vectors = {"source_vectors": np.eye(2), "target_vectors": np.eye(2)}
    problem = make_problem([b"a", b"b"], [b"a", b"b"], **vectors, source_counts=[1, 9], target_counts=[9, 1])
    with pytest.raises(DataError, match=r"none of the 2 shared tokens occurs alignment\.min_count=5 times"):
        align(problem, Settings(method="procrustes"))


def test_fewer_shared_tokens_than_pivots_are_said_and_counted(rotated_problem, caplog):
    alignment = align(rotated_problem, Settings(method="tokalign_paper", pivot_count=2000))
    assert alignment.report["pivots"] == 40
    assert alignment.report["pivots_asked"] == 2000
    assert "only 40 shared tokens occur often enough to be pivots" in caplog.text


@pytest.mark.parametrize("method", ["procrustes", "mixed", "tokalign_paper"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_blocks_change_nothing(rotated_problem, method, similarity):
    small, large = (
        align(rotated_problem, Settings(method=method, similarity=similarity, pivot_count=20, rows_at_once=rows))
        for rows in (3, 5000)
    )
    np.testing.assert_allclose(small.weights.toarray(), large.weights.toarray(), atol=1e-5)
    np.testing.assert_array_equal(small.origin, large.origin)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("uniform", {3: 0.5, 4: 0.5}),
        ("length", {3: 4 / 5, 4: 1 / 5}),
        ("first", {3: 1.0}),
        ("last", {4: 1.0}),
    ],
)
def test_pieces_share_a_row_as_the_setting_says(words, kind, expected):
    row = align(words, Settings(method="subtoken", subtoken_weights=kind)).weights[3].toarray()[0]  # ` cat`, `s`
    assert {int(i): pytest.approx(row[i]) for i in np.flatnonzero(row)} == expected


@pytest.mark.parametrize("method", ["subtoken", "mixed"])
def test_ends_reads_by_the_last_piece_and_speaks_by_the_first(words, method):
    alignment = align(words, Settings(method=method, subtoken_weights="ends", subtoken_share=1.0))
    assert alignment.for_table("input").weights[3].toarray()[0, [3, 4]].tolist() == [0.0, 1.0]
    assert alignment.for_table("output").weights[3].toarray()[0, [3, 4]].tolist() == [1.0, 0.0]
    np.testing.assert_allclose(alignment.for_table("tied").row_sums(), 1.0, atol=1e-6)


def test_a_space_and_single_bytes_say_nothing_but_spaces_tell_of_spaces(make_problem):
    problem = make_problem([b" ", b"\xce", b"\xb1", b"a"], [" \u03b1".encode(), b"   ", b" a", b"a"])
    alignment = align(problem, Settings(method="subtoken"))
    assert alignment.origin.tolist() == [Origin.UNSEEN, Origin.SUBTOKENS, Origin.SUBTOKENS, Origin.EXACT]
    assert alignment.weights[1].toarray()[0].tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("setting", "usual", "other"),
    [("pivot_count", 20, 1), ("subtoken_weights", "uniform", "length"), ("top_k", 4, 1)],
)
@pytest.mark.parametrize("method", methods())
def test_a_setting_is_a_label_of_the_methods_that_it_changes(words, rotated_problem, method, setting, usual, other):
    """What no job of a method is labelled by must not change what it does."""
    changed = False
    for problem in (words, rotated_problem):
        first, second = (align(problem, Settings(method=method, **{setting: value})) for value in (usual, other))
        changed |= bool((dense(first) != dense(second)).any())
    assert changed == (method in METHODS_THAT_READ[f"alignment.{setting}"])
