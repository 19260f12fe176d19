import json

import numpy as np
import pytest
from scipy import sparse

from revocab.alignment import Settings, align, methods, report
from revocab.artifacts import Alignment, Origin

KEYS = {
    "target_tokens",
    "exact",
    "aligned",
    "fallback",
    "zero_initialised",
    "coverage",
    "coverage_seen",
    "hub_share_top100",
    "pivots",
    "heldout",
    "origins",
    "hubs",
    "weakest_frequent",
    "similarity_histogram",
}


@pytest.mark.parametrize("method", methods())
def test_every_report_has_every_key_and_is_plain_json(rotated_problem, method):
    told = report(align(rotated_problem, Settings(method=method)), rotated_problem)
    assert set(told) >= KEYS
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert sum(told["origins"].values()) == told["target_tokens"] == 50
    assert told["exact"] + told["aligned"] + told["fallback"] + told["zero_initialised"] == 50


def test_an_alignment_survives_its_file(rotated_problem, tmp_path):
    alignment = align(rotated_problem, Settings(method="mixed", similarity_threshold=0.5))
    alignment.save(tmp_path)
    assert report(Alignment.load(tmp_path), rotated_problem) == report(alignment, rotated_problem)


@pytest.fixture
def small(make_problem):
    """Four target tokens over 200 source tokens: a twin, two that share a hub, one that is the mean."""
    source = [f"s{i:03}".encode() for i in range(200)]
    problem = make_problem(
        source,
        [b"s000", b"x", b"y", b"z"],
        source_vectors=np.ones((200, 1)),
        target_vectors=np.ones((4, 1)),
        target_counts=[5, 9, 0, 7],
    )
    weights = np.zeros((4, 200), dtype=np.float32)
    weights[0, 0], weights[1, [7, 8]], weights[2, 7] = 1, (0.75, 0.25), 1
    alignment = Alignment(
        weights=sparse.csr_matrix(weights),
        background=np.full(200, 1 / 200, dtype=np.float32),
        background_share=np.array([0, 0, 0, 1], dtype=np.float32),
        origin=np.array([Origin.EXACT, Origin.VECTORS, Origin.VECTORS, Origin.UNSEEN], dtype=np.int8),
        similarity=np.array([np.nan, 0.5, -0.95, np.nan], dtype=np.float32),
    )
    return alignment, problem


def test_the_hub_share_counts_what_tokens_without_a_twin_lean_on(small):
    told = report(*small)
    # weights 1.75 + 0.25 on two tokens, and 98 more of the mean's 200 equal shares, and the two tokens' own shares
    assert told["hub_share_top100"] == pytest.approx((1.75 + 0.25 + 100 / 200) / 3, abs=1e-6)
    assert told["hubs"][0] == {"id": 7, "token": "s007", "weight": pytest.approx(1.755), "rows": 2}
    assert [hub["id"] for hub in told["hubs"]] == [7, 8]


def test_coverage_of_what_occurs_and_of_all(small):
    told = report(*small)
    assert told["coverage"] == 0.75
    assert told["coverage_seen"] == pytest.approx(2 / 3)


def test_examples_show_the_weakest_matches_and_what_is_left(small):
    told = report(*small)
    assert [example["token"] for example in told["weakest_frequent"]] == ["y", "x"]
    assert told["weakest_frequent"][1]["nearest"] == [["s007", 0.75], ["s008", 0.25]]
    assert [example["token"] for example in told["frequent_without_evidence"]] == ["z"]
    assert sum(told["similarity_histogram"]["counts"]) == 2
    assert told["similarity_histogram"]["counts"][0] == 1


def test_without_counts_there_is_no_coverage_of_what_occurs(make_problem):
    problem = make_problem([b"a"], [b"a", b"b"])
    told = report(align(problem, Settings(method="exact")), problem)
    assert told["coverage_seen"] is None
    assert told["weakest_frequent"] == []
