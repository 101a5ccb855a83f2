"""Witnesses beside brute force: every dropped row has one, few rows stay, and always the same."""

from functools import partial

import numpy as np
import pytest

from dask_dedup.results.witness import find_witnesses

DIM = 16


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def cosines(rows):
    """float32 of all cosines in float64."""
    wide = unit(rows.astype("f8"))
    return (wide @ wide.T).clip(-1, 1).astype("f4")


class Stored:
    """Rows, and how often each was asked for."""

    def __init__(self, rows, first_id=0):
        self.rows, self.first_id, self.asked = rows, first_id, np.zeros(len(rows), int)

    def gather(self, row_ids):
        assert (np.diff(row_ids) > 0).all()
        np.add.at(self.asked, row_ids - self.first_id, 1)
        return self.rows[row_ids - self.first_id]


def greedy_by_hand(near):
    """Of the rows without a witness, again and again the one that is near most of them."""
    near = near | np.eye(len(near), dtype=bool)
    chosen = np.full(len(near), -1)
    while (chosen < 0).any():
        gain = np.where(chosen < 0, (near & (chosen < 0)).sum(axis=1), 0)
        best = gain.argmax()
        chosen[near[best] & (chosen < 0)] = best
    return chosen


def check(found, row_ids, similarity, threshold):
    """Every row that does not stay has a witness that stays and is near, with their cosine."""
    stays = dict(zip(row_ids.tolist(), (found.witness == row_ids).tolist(), strict=True))
    assert all(stays[one] for one in found.witness.tolist())
    to_witness = similarity[row_ids, found.witness]
    dropped = found.witness != row_ids
    assert (found.similarity[dropped] >= np.float32(threshold)).all()
    np.testing.assert_allclose(found.similarity[dropped], to_witness[dropped], rtol=0, atol=2e-7)
    assert (found.similarity[~dropped] == 1).all()


def test_find_witnesses_of_groups_of_all_sizes_is_the_greedy_cover_of_each():
    rng = np.random.default_rng(0)
    sizes = [1, 2, 3, 5, 31, 32, 33, 34, 2, 1, 200, 7, 1000]
    centres = np.repeat(unit(rng.normal(size=(len(sizes), DIM))), sizes, axis=0)
    rows = (centres + 0.12 * rng.normal(size=centres.shape)).astype("f4")
    row_ids = np.concatenate(
        [rng.permutation(np.arange(a, b)) for a, b in zip(*ends(sizes), strict=True)]
    )
    similarity, stored = cosines(rows), Stored(rows)
    starts = np.cumsum([0, *sizes])
    found = find_witnesses(row_ids, starts, stored.gather, 0.9)
    check(found, row_ids, similarity, 0.9)
    assert (stored.asked == 1).all()
    for begin, stop in zip(*ends(sizes), strict=True):
        ids = np.arange(begin, stop)
        by_hand = ids[greedy_by_hand(similarity[np.ix_(ids, ids)] >= np.float32(0.9))]
        ours = dict(zip(row_ids.tolist(), found.witness.tolist(), strict=True))
        assert [ours[i] for i in ids.tolist()] == by_hand.tolist()


def ends(sizes):
    stops = np.cumsum(sizes)
    return stops - sizes, stops


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_find_witnesses_at_the_edge_is_decided_in_float32(dtype):
    """Cosines a float32 step above, at and below the threshold, in windows of either kind."""
    edge = np.float32(0.95)
    for others in (0, 60):  # few rows are compared in float64, many by a matrix product
        for wanted in (np.nextafter(edge, np.float32(1)), edge, np.nextafter(edge, np.float32(0))):
            pair = np.zeros((2 + others, 64))
            pair[0, 0] = 1
            pair[1, :2] = wanted, np.sqrt(1 - float(wanted) ** 2)
            pair[np.arange(2, 2 + others), np.arange(2, 2 + others)] = 1
            rows = pair.astype(dtype)
            is_near = cosines(rows)[0, 1] >= edge
            ids = np.arange(len(rows))
            found = find_witnesses(ids, np.array([0, len(ids)]), Stored(rows).gather, 0.95)
            assert (found.witness[1] == 0) == is_near


def test_find_witnesses_of_rows_of_any_length():
    """A cosine knows no length: float64 rows whose squares would leave float64 count as others."""
    rows = np.tile(unit(np.random.default_rng(1).normal(size=(40, DIM))), (2, 1))
    rows *= np.logspace(-150, 150, 80)[:, None]
    found = find_witnesses(np.arange(80), np.array([0, 80]), Stored(rows).gather, 0.9999)
    assert found.witness.tolist() == [*range(40), *range(40)]


def near_copies(rows, rng):
    """Rows at a cosine of about 0.98 to one centre, 0.96 to each other."""
    centre = unit(rng.normal(size=(1, 64)))
    return unit(centre + 0.2 * unit(rng.normal(size=(rows, 64)))).astype("f4")


def test_find_witnesses_of_20_000_near_copies_keeps_a_few():
    rng = np.random.default_rng(2)
    copies = near_copies(20_000, rng)
    row_ids = rng.permutation(20_000)
    found = find_witnesses(row_ids, np.array([0, 20_000]), Stored(copies).gather, 0.95)
    stays = np.flatnonzero(np.bincount(found.witness, minlength=20_000))
    wide = unit(copies.astype("f8"))
    products = (wide[row_ids] * wide[found.witness]).sum(axis=1)
    assert (products >= 0.95 - 1e-7).all()
    assert len(stays) <= 20
    # No two rows of the first window that stay are near each other.
    first = stays[np.isin(stays, row_ids[:1024])]
    assert (cosines(copies[first])[np.triu_indices(len(first), 1)] < np.float32(0.95)).all()


@pytest.mark.slow
def test_find_witnesses_of_300_000_near_copies_is_quick_and_keeps_a_few():
    rng = np.random.default_rng(3)
    copies = near_copies(300_000, rng)
    row_ids = np.arange(300_000)
    stored = Stored(copies)
    found = find_witnesses(row_ids, np.array([0, 300_000]), stored.gather, 0.95)
    wide = unit(copies.astype("f8"))
    assert ((wide * wide[found.witness]).sum(axis=1) >= 0.95 - 1e-7).all()
    assert len(np.unique(found.witness)) < 100
    assert (stored.asked == 1).all()


def chain(links, dim=64):
    """Rows on a curve, neighbours at a cosine of 0.97, and those two apart below 0.95."""
    rng = np.random.default_rng(4)
    step = np.arccos(0.97)
    rows = np.zeros((links, dim))
    rows[0, 0], ahead = 1, np.eye(dim)[1]  # the direction of the walk, at right angles to the row
    for i in range(1, links):
        rows[i] = np.cos(step) * rows[i - 1] + np.sin(step) * ahead
        ahead = np.cos(step) * ahead - np.sin(step) * rows[i - 1]
        ahead += 0.2 * unit(rng.normal(size=(1, dim)))[0]  # and it turns a little
        ahead -= (ahead @ rows[i]) * rows[i]
        ahead /= np.linalg.norm(ahead)
    return rows.astype("f4")


def test_find_witnesses_of_a_chain_keeps_every_third_link():
    rows = chain(999)
    similarity = cosines(rows)
    assert (np.diagonal(similarity, 1) >= 0.95).all()
    assert (np.diagonal(similarity, 2) < 0.95).all()
    found = find_witnesses(np.arange(999), np.array([0, 999]), Stored(rows).gather, 0.95)
    check(found, np.arange(999), similarity, 0.95)
    assert len(np.unique(found.witness)) == 333


def test_find_witnesses_of_a_clique_keeps_one_and_of_a_hub_the_hub():
    rng = np.random.default_rng(5)
    clique = unit(unit(rng.normal(size=(1, 64))) + 0.01 * rng.normal(size=(500, 64)))
    found = find_witnesses(np.arange(500), np.array([0, 500]), Stored(clique).gather, 0.95)
    assert len(np.unique(found.witness)) == 1
    hub = np.zeros((60, 64))
    hub[:, 0] = 0.96  # the spokes are at 0.96 to the hub, and at 0.92 to each other
    hub[np.arange(60), 1 + np.arange(60)] = np.sqrt(1 - 0.96**2)
    hub[17] = np.eye(64)[0]
    found = find_witnesses(np.arange(60), np.array([0, 60]), Stored(hub).gather, 0.95)
    assert (found.witness == 17).all()


def test_find_witnesses_is_the_same_in_any_order_of_a_window_and_beside_any_groups():
    rng = np.random.default_rng(6)
    find = partial(find_witnesses, window_rows=100)
    centres = np.repeat(unit(rng.normal(size=(20, DIM))), 30, axis=0)
    rows = (centres + 0.12 * rng.normal(size=centres.shape)).astype("f4")
    similarity = cosines(rows)
    whole = find(np.arange(600), np.array([0, 40, 600]), Stored(rows).gather, 0.9)
    check(whole, np.arange(600), similarity, 0.9)
    alone = find(np.arange(40, 600), np.array([0, 560]), Stored(rows).gather, 0.9)
    np.testing.assert_array_equal(alone.witness, whole.witness[40:])
    mixed = np.concatenate(
        [40 + begin + rng.permutation(min(100, 560 - begin)) for begin in range(0, 560, 100)]
    )
    again = find(mixed, np.array([0, 560]), Stored(rows).gather, 0.9)
    np.testing.assert_array_equal(again.witness, whole.witness[mixed])
    np.testing.assert_array_equal(again.similarity, whole.similarity[mixed])


def test_find_witnesses_of_nothing():
    none = np.empty(0, np.int64)
    found = find_witnesses(none, np.array([0]), Stored(np.empty((0, 3))).gather, 0.9)
    assert len(found.witness) == len(found.similarity) == 0
