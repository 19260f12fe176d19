"""Small alignment problems made in memory, from surfaces alone: pairs and pieces follow from them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from revocab.alignment import Problem
from revocab.artifacts import Pairs, Pieces, TokenVectors, Vocabulary

MakeProblem = Callable[..., Problem]


def vocabulary(surfaces: Sequence[bytes], roles: Mapping[str, int]) -> Vocabulary:
    return Vocabulary(
        tokens=tuple(surface.decode(errors="replace") or f"<{i}>" for i, surface in enumerate(surfaces)),
        surfaces=tuple(surfaces),
        special=np.array([not surface for surface in surfaces]),
        single_byte=np.array([len(surface) == 1 and surface[0] >= 128 for surface in surfaces]),
        roles=roles,
    )


def pairs(rows: Mapping[int, int]) -> Pairs:
    targets = sorted(rows)
    return Pairs(
        target_ids=np.array(targets, dtype=np.int64),
        source_ids=np.array([rows[target] for target in targets], dtype=np.int64),
    )


def greedy_pieces(surface: bytes, source_ids: Mapping[bytes, int]) -> list[int]:
    found = []
    while surface:
        length = next((n for n in range(len(surface), 0, -1) if surface[:n] in source_ids), 1)
        if surface[:length] in source_ids:
            found.append(source_ids[surface[:length]])
        surface = surface[length:]
    return found


@pytest.fixture(scope="session")
def make_problem() -> MakeProblem:
    def make(
        source: Sequence[bytes],
        target: Sequence[bytes],
        *,
        source_vectors: np.ndarray | None = None,
        target_vectors: np.ndarray | None = None,
        source_counts: Sequence[int] | np.ndarray | None = None,
        target_counts: Sequence[int] | np.ndarray | None = None,
        source_roles: Mapping[str, int] | None = None,
        target_roles: Mapping[str, int] | None = None,
        drop_exact: Sequence[bytes] = (),
    ) -> Problem:
        """Surfaces by id, empty for special tokens; `drop_exact` are shared surfaces that no pair tells of."""
        source_roles, target_roles = source_roles or {}, target_roles or {}
        source_ids = {surface: i for i, surface in enumerate(source) if surface}
        exact = {i: source_ids[s] for i, s in enumerate(target) if s in source_ids and s not in drop_exact}
        pieces = [greedy_pieces(surface, source_ids) for surface in target]
        return Problem(
            source=vocabulary(source, source_roles),
            target=vocabulary(target, target_roles),
            exact=pairs(exact),
            exact_by_string=pairs(exact),
            roles=pairs({target_roles[role]: source_roles[role] for role in target_roles if role in source_roles}),
            pieces=Pieces(
                ids=np.array([i for ids in pieces for i in ids], dtype=np.int64),
                offsets=np.cumsum([0, *(len(ids) for ids in pieces)]),
            ),
            source_vectors=token_vectors(source_vectors, source_counts),
            target_vectors=token_vectors(target_vectors, target_counts),
        )

    return make


def token_vectors(vectors: np.ndarray | None, counts: Sequence[int] | np.ndarray | None) -> TokenVectors | None:
    if vectors is None:
        return None
    counts = np.full(len(vectors), 100) if counts is None else np.asarray(counts)
    return TokenVectors(vectors=vectors.astype(np.float32), counts=counts.astype(np.int64))


@pytest.fixture(scope="session")
def rotated_problem(make_problem: MakeProblem) -> Problem:
    """60 source tokens; the 50 target tokens are source tokens in another order, their vectors rotated.

    The last ten target tokens have no surface in the source, so their truth, source token 40 + i, has to be found.
    """
    generator = np.random.default_rng(11)
    source_vectors = generator.normal(size=(60, 8))
    rotation = np.linalg.qr(generator.normal(size=(8, 8)))[0]
    source = [f"w{i:02}".encode() for i in range(60)]
    order = [*generator.permutation(40), *range(40, 50)]
    target = [source[i] if i < 40 else f"q{i}".encode() for i in order]
    return make_problem(source, target, source_vectors=source_vectors, target_vectors=source_vectors[order] @ rotation)
