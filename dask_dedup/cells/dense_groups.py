"""Dense groups: rows so near to a leader that comparing them with each other finds nothing new.

An image that is in a data set a hundred thousand times, each time a little different, makes 10^10
pairs. In a cell of many entries:

1. Try rows, evenly spaced, as leaders: those that have many others within the filter's radius of
   `SAME_SIMILARITY`.
2. Verify those others. Rows at `SAME_SIMILARITY` or above are the leader's members, and each is
   linked to it by an edge.
3. Members of one leader are not compared with each other. At every threshold below
   `SAME_SIMILARITY` they are one component, so no pair of theirs is missing from the forest there;
   above it the forest may be cut finer than the data.
4. For the same reason only the best pair of a row outside and a group counts. Where a row has many
   candidates in a group, a product of full vectors in float32 finds them, and float64 decides
   between those whose difference is below the error of float32.
5. Of two groups, the pairs with one of the two leaders are compared.

The largest groups are known before the layout, and are entered into one cell only: see
`cells.leaders`.
Ours.
"""

from __future__ import annotations

import numba
import numpy as np
import torch

from dask_dedup.cells.candidates import Candidates
from dask_dedup.cells.full_filter import add_tiles
from dask_dedup.cells.layout_files import SAME_SIMILARITY
from dask_dedup.vectors.int8_codes import CodeRows, near_pairs

__all__ = ["find_groups", "join_around"]

_TRIES = 32  # rows tried as leaders: a group of a tenth of the cell is missed once in thirty cells
_VERIFIED_AT_ONCE = 1 << 15  # pairs: as many full rows are in memory
_COSINE_ERROR = 4e-6  # cosines in float32 that lie nearer to each other are decided in float64


def find_groups(
    projections: CodeRows, entries: np.ndarray, limit: int, batch: Candidates
) -> np.ndarray:
    """Find the dense groups among some entries, and link members with leaders.

    Parameters
    ----------
    projections : CodeRows
        Of all entries.
    entries : int64 array
        Those to look at, in order.
    limit : int
        Squared distance of codes that members may have from their leader.
    batch : Candidates
        Takes the edges from leaders to members.

    Returns
    -------
    int64 array, shape (len(entries),)
        Entry of the leader of each entry; -1 outside of all groups. A leader is its own.
    """
    leader = np.full(len(entries), -1)
    tried = np.arange(0, len(entries), max(1, len(entries) // _TRIES))
    blocks = near_pairs(projections.take(entries[tried]), projections.take(entries), limit, False)
    pairs = [*zip(*blocks, strict=True)]
    if not pairs:
        return leader
    least = batch.limits.group_members
    trial, around = (np.concatenate(side) for side in pairs)
    for k in np.flatnonzero(np.bincount(trial) >= least):
        position, near = tried[k], around[trial == k]
        near = near[leader[near] < 0]
        is_left = leader[position] < 0 and (leader < 0).sum() >= batch.limits.group_entries
        if not is_left or len(near) < least:
            continue
        other = near[near != position]
        similarity = _verify(batch, entries[position], entries[other])
        member = similarity >= np.float32(SAME_SIMILARITY)
        if member.sum() < least:
            continue
        members = other[member]
        rank = batch.rank[entries[members]]
        batch.add_edges(np.full(len(rank), batch.rank[entries[position]]), rank, similarity[member])
        leader[members] = leader[position] = entries[position]
    return leader


def join_around(
    projections: CodeRows,
    limit: int,
    entries: np.ndarray,
    leader: np.ndarray,
    in_rows: np.ndarray,
    same: bool,
    batch: Candidates,
) -> None:
    """Join the entries of one tile or two, except the members of a group with each other.

    Parameters
    ----------
    projections : CodeRows
        Of all entries.
    limit : int
        Squared distance of codes that a pair may have.
    entries, leader : int64 arrays
        As `find_groups` took and returned them.
    in_rows : bool array
        Which of the entries are in the first of two tiles.
    same : bool
        There is only one tile.
    """
    outside = leader < 0
    for one, other in [(outside, outside)] if same else [(outside & in_rows, outside & ~in_rows)]:
        a, b = entries[one], entries[other]
        add_tiles(projections, limit, a, None if same else b, batch)
    leaders = np.unique(leader[~outside])
    sides = [np.ones(len(entries), np.bool_)] if same else [in_rows, ~in_rows]
    for group in leaders:
        member = leader == group
        for side, across in zip(sides, reversed(sides), strict=True):
            _join_outside(
                projections, limit, entries[outside & side], entries[member & across], batch
            )
        others = leaders[leaders != group]
        _join_outside(projections, limit, others, entries[member], batch)


def _join_outside(
    projections: CodeRows, limit: int, entries: np.ndarray, members: np.ndarray, batch: Candidates
) -> None:
    """Join some entries with the members of a group; where there are many pairs, keep the best."""
    many = np.zeros(len(entries), np.bool_)
    for i, j in near_pairs(projections.take(entries), projections.take(members), limit, False):
        counts = np.bincount(i, minlength=len(entries))
        many |= counts > batch.limits.many_pairs
        few = ~many[i]
        batch.add(entries[i[few]], members[j[few]])
    if many.any():
        _best_pairs(entries[many], members, batch)


def _best_pairs(entries: np.ndarray, members: np.ndarray, batch: Candidates) -> None:
    """Keep the best pair, at the threshold or above, of each entry and a group's members.

    Cost: one product of full vectors in float32; memory: two blocks of them.
    """
    for some in np.array_split(entries, -(-len(entries) // 2048)):
        outside = _units(batch, some)
        for block in np.array_split(members, -(-len(members) // 8192)):
            product = torch.mm(outside, _units(batch, block).T)
            i, j = _near_best(product.numpy(), np.float32(batch.threshold - _COSINE_ERROR))
            a, b = batch.rank[some[i]], batch.rank[block[j]]
            similarity = batch.similarity(a, b)
            passed = similarity >= batch.threshold
            batch.add_edges(a[passed], b[passed], similarity[passed])


def _verify(batch: Candidates, one: int, others: np.ndarray) -> np.ndarray:
    pieces = []
    for some in np.array_split(others, -(-len(others) // _VERIFIED_AT_ONCE)):
        rank = batch.rank[some]
        pieces.append(batch.similarity(np.full(len(rank), batch.rank[one]), rank))
    return np.concatenate(pieces)


def _units(batch: Candidates, entries: np.ndarray) -> torch.Tensor:
    """Return full rows at unit length: float32, shape (entries, dim)."""
    rows = torch.from_numpy(batch.full_rows(batch.rank[entries])).double()
    return (rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)).float()


@numba.njit(cache=True, nogil=True)
def _near_best(product: np.ndarray, least: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Return where a row's values may equal its best one, if that is at least so much."""
    found_i, found_j = [], []
    for i in range(product.shape[0]):
        best = product[i].max()
        if best < least:
            continue
        for j in range(product.shape[1]):
            if product[i, j] >= best - np.float32(_COSINE_ERROR):
                found_i.append(i)
                found_j.append(j)
    return np.array(found_i, np.int64), np.array(found_j, np.int64)
