"""The join inside cells: every pair that meets in a cell that is home to either.

1. Read the records of a range of cells, sorted by cell, homes before visitors.
2. Collapse equal rows: those of equal content hash that verify at similarity 1.
3. Per cell one product of augmented images, homes by everyone, and one scan of its signs
   (`sign_filter`). The filter is lossless; its radius carries the slack of float16 and float32.
4. Verify candidates at full dimension in float64, whenever a million have come together.

A cell with more rows than `TILE_ROWS` is cut into tiles, one task per pair of tiles. Memory of a
task: its records, one tile product, one batch of candidates with the full vectors they touch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from dask_dedup.compress.pca import filter_radius
from dask_dedup.index.layout import CellLayout, read_cell_counts, read_records
from dask_dedup.io.parts import gather_by_row
from dask_dedup.schema import EDGES
from dask_dedup.search.sign_filter import left_factor, near_pairs, right_factor
from dask_dedup.search.verify import cosine_pairs, exact_rows

__all__ = ["CellGroup", "JoinResult", "join_cells", "join_group", "plan_groups"]

TILE_ROWS = 32_768  # rows of a tile of a large cell
_PRODUCT = (512, 2048)  # rows and columns of one matrix product: 4 MB
_BATCH_PAIRS = 1 << 20  # candidates verified at a time


class CellGroup(NamedTuple):
    """The cells of one join task, or one pair of tiles of a cell that is too large for one.

    ``cell_start`` to ``cell_stop``; ``left`` and ``right`` are row ranges of the cell's records
    (homes first, then visitors), None for whole cells. ``cost`` is the number of products.
    """

    index: int
    cell_start: int
    cell_stop: int
    left: tuple[int, int] | None
    right: tuple[int, int] | None
    cost: float


class JoinResult(NamedTuple):
    """``edges`` EDGES (contracted where asked); ``rows`` homes; pairs looked at and verified."""

    edges: pd.DataFrame
    rows: int
    candidates: int
    pairs: int


Contract = Callable[[pd.DataFrame], pd.DataFrame]


def plan_groups(layout: CellLayout) -> list[CellGroup]:
    """Cut the cells into tasks of similar size, the costliest first.

    The cut depends on the data alone, never on the number of workers.
    """
    homes, visitors = read_cell_counts(layout)
    everyone = homes + visitors
    rows_per_group = int(np.clip(homes.sum() // 128, 4096, 262_144))
    ranges: list[tuple[int, int, tuple[int, int] | None, tuple[int, int] | None]] = []
    start, gathered = 0, 0
    for cell in range(layout.cells):
        large = everyone[cell] > 4 * TILE_ROWS
        if start < cell and (large or gathered + homes[cell] > rows_per_group):
            ranges.append((start, cell, None, None))
            start, gathered = cell, 0
        if large:
            ranges += [
                (cell, cell + 1, left, right)
                for left in _tiles(0, homes[cell])
                for right in _tiles(left[0], homes[cell]) + _tiles(homes[cell], everyone[cell])
            ]
            start, gathered = cell + 1, 0
        else:
            gathered += homes[cell]
    if start < layout.cells:
        ranges.append((start, layout.cells, None, None))

    products = np.concatenate([[0.0], np.cumsum(homes.astype(float) * everyone)])
    groups = []
    for index, (first, last, left, right) in enumerate(ranges):
        cost = float(products[last] - products[first])
        if left is not None and right is not None:
            cost = float(left[1] - left[0]) * (right[1] - right[0])
        if cost:
            groups.append(CellGroup(index, first, last, left, right, cost))
    return sorted(groups, key=_falling_cost)


def join_group(
    layout: CellLayout,
    group: CellGroup,
    threshold: float,
    threads: int = 1,
    contract: Contract | None = None,
) -> JoinResult:
    """Find the edges of one task.

    Parameters
    ----------
    layout : CellLayout
    group : CellGroup
    threshold : float
        Cosine from which on a pair is an edge, compared as float32.
    threads : int
        Threads of the matrix products.
    contract : callable, optional
        EDGES -> EDGES with the same components at every threshold; keeps memory bounded where
        one group of near-copies makes more pairs than rows.
    """
    torch.set_num_threads(threads)
    records, bounds = read_records(layout, group.cell_start, group.cell_stop)
    batch = _Batch(layout, records["row_id"], threshold, contract)
    alive = _collapse(records, bounds, batch)
    image = torch.from_numpy(np.ascontiguousarray(records["image"])).float()
    left, right = left_factor(image), right_factor(image, filter_radius(threshold))
    if group.left is not None and group.right is not None:
        a = np.arange(*group.left)[alive[slice(*group.left)]]
        b = np.arange(*group.right)[alive[slice(*group.right)]]
        _join_tiles(left, right, a, b, batch)
    else:
        for cell in range(group.cell_stop - group.cell_start):
            first, middle, last = bounds[2 * cell : 2 * cell + 3]
            a = np.arange(first, middle)[alive[first:middle]]
            _join_tiles(left, right, a, np.concatenate([a, np.arange(middle, last)]), batch)
    edges = batch.finish()
    homes = int((bounds[1::2] - bounds[:-1:2]).sum())
    if group.left is not None and group.right != group.left:
        homes = 0  # counted once, with the tile against itself
    elif group.left is not None:
        homes = group.left[1] - group.left[0]
    return JoinResult(edges, homes, batch.candidates, batch.pairs)


def join_cells(layout: CellLayout, threshold: float, threads: int = 1):
    """Find all edges.

    Parameters
    ----------
    layout : CellLayout
        From `dask_dedup.build_cells`.
    threshold : float
        Cosine from which on a pair is an edge.

    Returns
    -------
    dask DataFrame
        EDGES: lazy, one partition per task, repeated where a pair meets in two cells.
    """
    import dask.dataframe as dd

    groups = plan_groups(layout) or [CellGroup(0, 0, 0, None, None, 0.0)]
    return dd.from_map(
        _join_edges,
        groups,
        layout=layout,
        threshold=threshold,
        threads=threads,
        meta=EDGES,
        label="join-cells",
    )


def _join_edges(
    group: CellGroup, layout: CellLayout, threshold: float, threads: int
) -> pd.DataFrame:
    return join_group(layout, group, threshold, threads).edges


def _falling_cost(group: CellGroup) -> tuple[float, int]:
    return -group.cost, group.index


def _tiles(start: int, stop: int) -> list[tuple[int, int]]:
    return [(i, min(i + TILE_ROWS, stop)) for i in range(start, stop, TILE_ROWS)]


class _Batch:
    """Candidates on their way to verification, and the edges that came of them."""

    def __init__(
        self,
        layout: CellLayout,
        row_ids: np.ndarray,
        threshold: float,
        contract: Contract | None,
    ) -> None:
        self.layout = layout
        self.row_ids = np.ascontiguousarray(row_ids)
        self.threshold = np.float32(threshold)
        self.contract = contract
        self.candidates = 0
        self.pairs = 0
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._waiting_pairs = 0
        self._edges: list[pd.DataFrame] = []
        self._edge_rows = 0

    def add(self, i: np.ndarray, j: np.ndarray) -> None:
        """Take candidate pairs, as indices of records."""
        self._waiting.append((i, j))
        self._waiting_pairs += len(i)
        if self._waiting_pairs >= _BATCH_PAIRS:
            self._verify_waiting()

    def finish(self) -> pd.DataFrame:
        """Return the edges of all candidates."""
        self._verify_waiting()
        if not self._edges:
            return EDGES
        edges = pd.concat(self._edges, ignore_index=True)
        return edges if self.contract is None else self.contract(edges)

    def similarity(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Verify pairs at full dimension: float32."""
        needed = np.zeros(len(self.row_ids), np.bool_)
        needed[i] = True
        needed[j] = True
        touched = np.flatnonzero(needed)
        ids, place = np.unique(self.row_ids[touched], return_inverse=True)
        rows = exact_rows(gather_by_row(self.layout.parts, ids))
        where = np.empty(len(self.row_ids), np.int64)
        where[touched] = place
        return cosine_pairs(rows, rows, where[i], where[j])

    def keep(self, i: np.ndarray, j: np.ndarray, similarity: np.ndarray) -> None:
        """Keep verified pairs as edges."""
        a, b = self.row_ids[i], self.row_ids[j]
        self._edges.append(
            pd.DataFrame(
                {"src": np.minimum(a, b), "dst": np.maximum(a, b), "similarity": similarity}
            )
        )
        self.pairs += len(i)
        self._edge_rows += len(i)
        if self.contract is not None and self._edge_rows >= 4 * _BATCH_PAIRS:
            self._edges = [self.contract(pd.concat(self._edges, ignore_index=True))]
            self._edge_rows = len(self._edges[0])

    def _verify_waiting(self) -> None:
        if not self._waiting:
            return
        all_i, all_j = (np.concatenate(side) for side in zip(*self._waiting, strict=True))
        self._waiting, self._waiting_pairs = [], 0
        for start in range(0, len(all_i), _BATCH_PAIRS):
            i, j = all_i[start : start + _BATCH_PAIRS], all_j[start : start + _BATCH_PAIRS]
            self.candidates += len(i)
            similarity = self.similarity(i, j)
            passed = similarity >= self.threshold
            self.keep(i[passed], j[passed], similarity[passed])


def _collapse(records: np.ndarray, bounds: np.ndarray, batch: _Batch) -> np.ndarray:
    """Leave one row of each group of equal rows in each cell: bool array over the records.

    The others become edges of similarity 1 from the smallest row. Visitors are left alone: their
    own home collapses them.
    """
    alive = np.ones(len(records), np.bool_)
    is_home = np.zeros(len(records), np.bool_)
    for first, last in zip(bounds[:-1:2], bounds[1::2], strict=True):
        is_home[first:last] = True
    homes = np.flatnonzero(is_home)
    content = records["content"][homes]
    # Equal rows share their home, so that equal content in the group is equal content in a cell.
    order = np.argsort(content, kind="stable")
    same = np.flatnonzero(content[order][1:] == content[order][:-1])
    if len(same) == 0:
        return alive
    starts = np.r_[True, content[order][1:] != content[order][:-1]]
    leader = order[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
    i, j = homes[leader[same + 1]], homes[order[same + 1]]
    similarity = batch.similarity(i, j)
    equal = similarity == np.float32(1)
    batch.keep(i[equal], j[equal], similarity[equal])
    alive[j[equal]] = False
    return alive


def _join_tiles(
    left: torch.Tensor, right: torch.Tensor, a: np.ndarray, b: np.ndarray, batch: _Batch
) -> None:
    """Send every pair (a[i], b[j]) with b[j] > a[i] whose images are near to ``batch``."""
    if len(a) == 0 or len(b) == 0:
        return
    step_a, step_b = _PRODUCT
    rows, columns = _take(left, a), _take(right, b)
    room = torch.empty(min(step_a, len(a)) * min(step_b, len(b)))
    after = np.searchsorted(b, a, side="right")  # columns that stand after the row itself
    for i in range(0, len(a), step_a):
        for j in range(0, len(b), step_b):
            width = min(step_b, len(b) - j)
            first_column = np.clip(after[i : i + step_a] - j, 0, width)
            if first_column[0] == width:
                continue  # below the diagonal
            height = min(step_a, len(a) - i)
            product = room[: height * width].view(height, width)
            torch.mm(rows[i : i + step_a], columns[j : j + width].T, out=product)
            found_i, found_j = near_pairs(product.numpy(), first_column)
            if len(found_i):
                batch.add(a[i + found_i], b[j + found_j])


def _take(rows: torch.Tensor, chosen: np.ndarray) -> torch.Tensor:
    """Select rows; without a copy where they are neighbours."""
    first, last = int(chosen[0]), int(chosen[-1])
    if last - first + 1 == len(chosen):
        return rows[first : last + 1]
    return rows[torch.from_numpy(chosen)]
