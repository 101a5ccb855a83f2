"""The choice in an order, by brute force, in groups of every size; fixed and unwanted rows."""

from __future__ import annotations

import numpy as np
import pytest

from dask_dedup.results.roles import ORDINARY, PROTECTED, UNWANTED
from dask_dedup.results.witness_order import find_ordered

DIM = 24


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make(rows, seed=0):
    rng = np.random.default_rng(seed)
    walk = rng.normal(size=DIM) + np.cumsum(0.35 * rng.normal(size=(rows, DIM)), axis=0)
    return walk[rng.permutation(rows)].astype("f4")


def roles_of(rng, rows, is_mixed):
    if not is_mixed:
        return np.full(rows, ORDINARY, np.uint8)
    return rng.choice([PROTECTED, ORDINARY, UNWANTED], rows, p=[0.1, 0.8, 0.1]).astype(np.uint8)


def expected(near, ids, ranks, roles):
    """Witness of each row of one group, by rank."""
    witness, kept = {}, []
    for tier in (PROTECTED, ORDINARY, UNWANTED):
        for i in np.argsort(ranks):
            if roles[i] != tier:
                continue
            by = [k for k in kept if near[i, k]]
            if tier == PROTECTED or (tier == ORDINARY and not by):
                kept.append(i)
                witness[i] = ids[i]
            else:
                witness[i] = ids[by[0]] if by else -1
    return np.array([witness[i] for i in range(len(ids))])


def ranks_of(rng, roles):
    """Ranks that follow the roles, as `rank_members` gives them."""
    ranks = np.empty(len(roles), np.int64)
    ranks[np.lexsort((rng.random(len(roles)), roles))] = np.arange(len(roles))
    return ranks


@pytest.mark.parametrize("is_mixed", [False, True])
@pytest.mark.parametrize("sizes", [[2, 7, 30, 1, 3], [40, 3, 200], [900], [2600, 5]])
def test_find_ordered_is_the_greedy_choice_by_rank(sizes, is_mixed):
    rng = np.random.default_rng(3)
    rows = make(sum(sizes))
    wide = unit(rows.astype("f8"))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    ids = rng.permutation(sum(sizes))
    roles = roles_of(rng, sum(sizes), is_mixed)
    ranks = np.concatenate([ranks_of(rng, roles[a:b]) for a, b in zip(starts, starts[1:])])  # noqa: B905, RUF007
    found = find_ordered(ids, starts, ranks, roles, lambda some: rows[some], 0.9, True)
    for a, b in zip(starts, starts[1:]):  # noqa: B905, RUF007
        near = (wide[ids[a:b]] @ wide[ids[a:b]].T).astype("f4") >= np.float32(0.9)
        want = expected(near, ids[a:b], ranks[a:b], roles[a:b])
        np.testing.assert_array_equal(found.witness[a:b], want)
    has = found.witness >= 0
    cosines = (wide[ids[has]] * wide[found.witness[has]]).sum(axis=1)
    np.testing.assert_allclose(found.similarity[has], cosines, atol=2e-7)
    assert (np.unique(found.witness[has]).size > len(sizes)) or max(sizes) < 3


@pytest.mark.parametrize("sizes", [[2, 7, 30], [40, 600], [1024]])
def test_find_ordered_without_an_order_lets_the_row_stay_that_most_are_near(sizes):
    rng = np.random.default_rng(4)
    rows = make(sum(sizes))
    wide = unit(rows.astype("f8"))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    ids = np.arange(sum(sizes))
    roles = roles_of(rng, sum(sizes), True)
    ranks = np.concatenate([ranks_of(rng, roles[a:b]) for a, b in zip(starts, starts[1:])])  # noqa: B905, RUF007
    found = find_ordered(ids, starts, ranks, roles, lambda some: rows[some], 0.9, False)
    for a, b in zip(starts, starts[1:]):  # noqa: B905, RUF007
        near = (wide[a:b] @ wide[a:b].T).astype("f4") >= np.float32(0.9)
        own, some = found.witness[a:b], roles[a:b]
        stays = own == ids[a:b]
        assert stays[some == PROTECTED].all() and not stays[some == UNWANTED].any()
        dropped = np.flatnonzero(~stays & (own >= 0))
        assert near[dropped, own[dropped] - a].all() and stays[own[dropped] - a].all()
        nobody = np.flatnonzero(own < 0)
        assert (some[nobody] == UNWANTED).all() and not near[np.ix_(nobody, stays)].any()
        fixed = near[:, some == PROTECTED].any(axis=1)
        assert (some[own[dropped] - a] == PROTECTED)[fixed[dropped]].all()
        # The greedy cover of the rest, by numpy.
        left = ~fixed & (some != PROTECTED)
        while left.any():
            gain = (near & left).sum(axis=1) * (left & (some == ORDINARY))
            if not gain.max():
                break
            candidates = np.flatnonzero(gain == gain.max())
            best = candidates[np.argmin(ranks[a:b][candidates])]
            assert stays[best]
            left &= ~near[best]


def test_find_ordered_of_nothing():
    none = np.empty(0, np.int64)
    found = find_ordered(
        none, np.array([0]), none, none.astype("u1"), lambda _: np.empty((0, 3)), 0.9, True
    )
    assert len(found.witness) == 0


def test_a_large_group_is_gone_through_in_windows_as_in_one():
    rng = np.random.default_rng(5)
    rows, ids = make(700), np.arange(700)
    roles = roles_of(rng, 700, True)
    ranks = ranks_of(rng, roles)
    arguments = (ids, np.array([0, 700]), ranks, roles, lambda some: rows[some], 0.9, True)
    whole = find_ordered(*arguments)
    pieces = find_ordered(*arguments, window_rows=64)
    np.testing.assert_array_equal(pieces.witness, whole.witness)
    np.testing.assert_array_equal(pieces.similarity, whole.similarity)
