import numpy as np
import pytest

from revocab.alignment import Settings, align, report
from revocab.artifacts import ALIGNED_ORIGINS, EXACT_ORIGINS, Origin
from revocab.errors import ConfigError


@pytest.fixture
def unsure(make_problem):
    """Twenty shared tokens, and twenty pairs of them glued together whose vectors are only vaguely like anything."""
    generator = np.random.default_rng(8)
    source = [f"<{i:02}>".encode() for i in range(20)]
    glued = [source[i] + source[(i + 1) % 20] for i in range(20)]
    source_vectors = generator.normal(size=(20, 5))
    noise = generator.normal(size=(20, 5))
    return make_problem(
        source,
        [*source, *glued, b"~"],
        source_vectors=source_vectors,
        target_vectors=np.vstack([source_vectors, source_vectors + noise, noise[:1]]),
    )


def dense(alignment):
    return alignment.weights.toarray() + alignment.background_share[:, None] * alignment.background


@pytest.mark.parametrize("method", ["procrustes", "tokalign_paper", "mixed"])
def test_a_higher_threshold_never_aligns_more_and_moves_no_row_that_passes(unsure, method):
    settings = {"method": method, "pivot_count": 20, "top_k": 3}
    free = align(unsure, Settings(**settings))
    before = np.ones(41, dtype=bool)
    for threshold in (-1.0, 0.3, 0.6, 0.8, 0.95, 1.0):
        strict = align(unsure, Settings(**settings, similarity_threshold=threshold))
        passes = ~(strict.similarity < threshold)
        assert not (passes & ~before).any()
        np.testing.assert_allclose(dense(strict)[passes], dense(free)[passes])
        assert strict.report["below_threshold"] == (~passes).sum()
        assert (strict.origin[~passes] != Origin.VECTORS).all()
        np.testing.assert_allclose(strict.row_sums(), 1.0, atol=1e-6)
        before = passes
    assert not before[20:].all()
    assert before[:20].all(), "exact tokens are untouched"


def test_below_the_threshold_procrustes_falls_back_and_mixed_keeps_the_pieces(unsure):
    vectors, mixed = (
        align(unsure, Settings(method=method, similarity_threshold=1.0)) for method in ("procrustes", "mixed")
    )
    assert set(vectors.origin[20:]) == {Origin.BELOW_THRESHOLD}
    assert (vectors.background_share[20:] == 1).all()
    assert set(mixed.origin[20:40]) == {Origin.SUBTOKENS}
    np.testing.assert_allclose(dense(mixed)[20], [0.5, 0.5, *[0] * 18])
    assert mixed.origin[40] == Origin.BELOW_THRESHOLD
    assert mixed.report["below_threshold_kept_by_pieces"] == 20


def test_a_threshold_with_dot_is_a_limit_for_the_product(unsure):
    settings = {"method": "tokalign_paper", "similarity": "dot", "pivot_count": 20}
    products = align(unsure, Settings(**settings)).similarity
    limit = float(np.nanmedian(products))
    assert limit > 1
    strict = align(unsure, Settings(**settings, similarity_threshold=limit))
    np.testing.assert_array_equal(strict.origin == Origin.BELOW_THRESHOLD, products < limit)


@pytest.mark.parametrize("fallback", ["mean", "subtoken", "random", "zero"])
def test_each_fallback_does_what_it_says_and_the_counts_add_up(unsure, fallback):
    alignment = align(unsure, Settings(method="procrustes", similarity_threshold=1.0, fallback=fallback))
    told = report(alignment, unsure)
    rows = dense(alignment)[20:]
    if fallback == "mean":
        np.testing.assert_allclose(rows, 1 / 20, atol=1e-6)
    if fallback == "subtoken":
        assert told["aligned"] == told["fallback_by_pieces"] == 20
        np.testing.assert_allclose(rows[:20].max(axis=1), 0.5)
        np.testing.assert_allclose(rows[20], 1 / 20, atol=1e-6)
    if fallback == "random":
        assert (rows.max(axis=1) == 1).all()
        assert len(set(rows.argmax(axis=1))) > 5
    if fallback == "zero":
        assert not rows.any()
    assert told["zero_initialised"] == (21 if fallback == "zero" else 0)
    assert told["exact"] + told["aligned"] + told["fallback"] + told["zero_initialised"] == 41
    assert told["coverage"] == pytest.approx(np.isin(alignment.origin, EXACT_ORIGINS + ALIGNED_ORIGINS).mean())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"similarity": "euclid"}, r"alignment\.similarity must be one of cosine, dot"),
        ({"fallback": "nothing"}, r"alignment\.fallback must be one of mean, subtoken, random, zero"),
        ({"similarity_threshold": 1.5}, r"alignment\.similarity_threshold must be null or a cosine"),
        ({"top_k": 0}, r"alignment\.top_k must be at least 1, got 0"),
        ({"temperature": 0.0}, r"alignment\.temperature must be above 0"),
        ({"subtoken_share": 1.1}, r"alignment\.subtoken_share must be in \[0, 1\]"),
        ({"heldout_pairs": -1}, r"alignment\.heldout_pairs must be at least 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        Settings(method="mixed", **change)
