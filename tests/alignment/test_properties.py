"""What must hold for any pair of vocabularies, checked on generated ones."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

from revocab.alignment import Problem, Settings, align, methods, needs_vectors, report
from revocab.artifacts import Boundaries, Origin, Pairs, Pieces, TokenVectors, Vocabulary
from revocab.errors import DataError, ModelError

OWN_FALLBACK = ("mean", "random", "tokalign_code")  # methods on which the setting has no effect
surfaces = st.lists(st.text("ab €", min_size=1, max_size=4).map(str.encode), min_size=3, max_size=24, unique=True)


@st.composite
def problems(draw, make_problem):
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    words = draw(surfaces)
    alone = draw(st.integers(0, len(words) // 2))  # how many either side has alone
    source = list(dict.fromkeys([*words[: len(words) - alone], b"\xe2", b"\x82", b"a", b"b"]))
    source, target = [b"", b"", *source], [b"", *words[alone:], b""]
    problem = make_problem(
        source,
        target,
        source_roles={"bos": 0, "eos": 1},
        target_roles={"eos": 0},
        source_vectors=generator.normal(size=(len(source), 3)) * (np.arange(len(source)) > 1)[:, None],
        target_vectors=generator.normal(size=(len(target), 3)) * (np.arange(len(target)) > 0)[:, None],
        source_counts=generator.integers(3, 30, size=len(source)),
        target_counts=generator.integers(3, 30, size=len(target)),
    )
    starts, ends = (sparse.csr_matrix(generator.poisson(0.3, problem.shape) * in_text(problem)) for _ in range(2))
    return replace(
        problem,
        boundaries=Boundaries(starts=starts, ends=ends, target_tokens=99, documents=1, documents_left_out=0),
        source_counts=problem.source_vectors.counts,
        target_counts=problem.target_vectors.counts,
    )


def in_text(problem):
    """(T, S): whether both tokens stand for text."""
    return ~problem.target.special[:, None] & ~problem.source.special[None, :]


def align_if_possible(problem, chosen):
    """The alignment; None where too few tokens are shared and frequent to compare anything."""
    shared = num_frequent_pairs(problem)
    if needs_vectors(chosen.method) and shared == 0:
        with pytest.raises((ModelError, DataError), match=r"use alignment=subtoken|larger corpus"):
            align(problem, chosen)
        return None
    return align(problem, chosen)


def num_frequent_pairs(problem, min_count=5):
    source, target = problem.source_vectors.counts, problem.target_vectors.counts
    rows = zip(problem.exact.source_ids, problem.exact.target_ids, strict=True)
    return sum(source[s] >= min_count and target[t] >= min_count for s, t in rows)


@pytest.mark.parametrize("method", methods())
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_w_is_row_stochastic_and_its_counts_add_up(make_problem, method, data):
    problem = data.draw(problems(make_problem))
    chosen = Settings(
        method=method,
        fallback=data.draw(st.sampled_from(["mean", "subtoken", "random", "zero"])),
        similarity=data.draw(st.sampled_from(["cosine", "dot"])),
        similarity_threshold=data.draw(st.none() | st.floats(-1, 1)),
        top_k=data.draw(st.integers(1, 5)),
        pivot_count=data.draw(st.integers(1, 8)),
    )
    alignment = align_if_possible(problem, chosen)
    if alignment is None:
        return
    told, sums = report(alignment, problem), alignment.row_sums()
    assert np.isfinite(alignment.weights.data).all()
    assert (alignment.weights.data > 0).all()
    zero = sums == 0
    np.testing.assert_allclose(sums[~zero], 1.0, atol=1e-5)
    assert told["zero_initialised"] == zero.sum()
    assert (chosen.fallback == "zero" and method not in OWN_FALLBACK) or not zero.any()
    assert told["exact"] + told["aligned"] + told["fallback"] + told["zero_initialised"] == len(problem.target)
    if method not in ("mean", "random"):
        exact = problem.exact_by_string if method == "tokalign_code" else problem.exact
        rows = alignment.weights.toarray()[exact.target_ids]
        assert (rows[np.arange(len(rows)), exact.source_ids] == 1).all()
        assert (rows.sum(axis=1) == 1).all()
        assert (alignment.origin[exact.target_ids] == Origin.EXACT).all()


@pytest.mark.parametrize("method", methods())
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_in_context_every_table_has_rows_that_sum_to_one(make_problem, method, data):
    problem = data.draw(problems(make_problem))
    share, strength = data.draw(st.floats(0, 1)), data.draw(st.floats(0, 2))
    plain = align_if_possible(problem, Settings(method=method))
    if plain is None:
        return
    alignment = align(problem, Settings(method=method, boundary_share=share, frequency_shift=strength))
    for name in ("input", "output", "tied"):
        table = alignment.for_table(name)
        np.testing.assert_allclose(table.row_sums(), 1.0, atol=1e-4)
        assert np.isfinite(table.apply(np.eye(problem.shape[1], dtype=np.float32))).all()
        assert (table.weights.toarray() >= (1 - share) * plain.weights.toarray() - 1e-5).all()
    np.testing.assert_array_equal(alignment.origin, plain.origin)


def renumber(problem, source_order, target_order):
    """The same problem with other ids: new token i is old token order[i]."""
    new_source, new_target = np.argsort(source_order), np.argsort(target_order)

    def vocabulary(old, order, new):
        return Vocabulary(
            tokens=tuple(old.tokens[i] for i in order),
            surfaces=tuple(old.surfaces[i] for i in order),
            special=old.special[order],
            single_byte=old.single_byte[order],
            roles={role: int(new[i]) for role, i in old.roles.items()},
        )

    def pairs(old):
        order = np.argsort(new_target[old.target_ids])
        return Pairs(target_ids=new_target[old.target_ids][order], source_ids=new_source[old.source_ids][order])

    def vectors(old, order):
        return TokenVectors(vectors=old.vectors[order], counts=old.counts[order])

    pieces = [new_source[problem.pieces[i]] for i in target_order]
    return Problem(
        source=vocabulary(problem.source, source_order, new_source),
        target=vocabulary(problem.target, target_order, new_target),
        exact=pairs(problem.exact),
        exact_by_string=pairs(problem.exact_by_string),
        roles=pairs(problem.roles),
        pieces=Pieces(ids=np.concatenate(pieces), offsets=np.cumsum([0, *map(len, pieces)])),
        source_vectors=vectors(problem.source_vectors, source_order),
        target_vectors=vectors(problem.target_vectors, target_order),
        boundaries=replace(
            problem.boundaries,
            starts=problem.boundaries.starts[target_order][:, source_order],
            ends=problem.boundaries.ends[target_order][:, source_order],
        ),
        source_counts=problem.source_counts[source_order],
        target_counts=problem.target_counts[target_order],
    )


@pytest.mark.parametrize("method", ["exact", "mean", "subtoken", "tokalign_paper", "procrustes", "mixed"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(data=st.data())
def test_other_ids_for_the_same_tokens_permute_w(make_problem, method, data):
    problem = data.draw(problems(make_problem))
    assume(num_frequent_pairs(problem) >= 5)  # fewer leave the rotation undetermined, and cosines tied
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    source_order, target_order = (generator.permutation(size) for size in problem.shape[::-1])
    chosen = Settings(
        method=method,
        pivot_count=4,
        top_k=3,
        boundary_share=data.draw(st.sampled_from([0.0, 0.5])),
        frequency_shift=data.draw(st.sampled_from([0.0, 1.0])),
    )
    plain = align(problem, chosen)
    renumbered = align(renumber(problem, source_order, target_order), chosen)
    every_token = np.eye(problem.shape[1], dtype=np.float32)
    for table in ("input", "output", "tied"):
        expected = plain.for_table(table).apply(every_token)[target_order][:, source_order]
        np.testing.assert_allclose(renumbered.for_table(table).apply(every_token), expected, atol=1e-4)
    np.testing.assert_array_equal(renumbered.origin, plain.origin[target_order])
    assert renumbered.report.get("heldout") == plain.report.get("heldout")


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_fit_for_the_score_leaves_the_alignment_alone(make_problem, data):
    problem = data.draw(problems(make_problem))
    with_score, without = (
        align_if_possible(problem, replace(Settings(method="procrustes", top_k=2), heldout_pairs=pairs))
        for pairs in (5, 0)
    )
    if with_score is not None:
        assert (with_score.weights != without.weights).nnz == 0
