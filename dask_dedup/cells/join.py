"""The join inside cells: every pair of rows that visit a cell in common.

1. Read the records of a range of cells, sorted by cell.
2. Collapse equal rows: those of equal content hash that verify at similarity 1.
3. Per cell one product of the images, which lie on a grid, and one scan (`vectors.int8_codes`).
   The filter is lossless; its radius carries the slack of the grid and of float32.
4. Compute the cosines of candidates at full dimension in float64, whenever a million have come
   together; what, as float32, is at or above the threshold is a pair.

Large cells are searched for dense groups first, whose members are not compared: see `dense_groups`.
Where the filter lets many pairs through, full rows are multiplied: see `full_filter`.

The cell need not be home to either row. (Measured on 10^6 synthetic rows at 5 visits: 99.9 % of
the pairs at 0.95 meet, 99.85 % if the cell must be home to one of them; homes alone need 10 visits,
twice the records, for as much.) A pair meets in two to three cells on average. A task takes it in
the first of its own cells; the forest drops what two tasks have found.

Memory of a task: its records, one tile product, one batch of candidates with the full vectors they
touch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np
import pandas as pd
import torch

from dask_dedup.cells.candidates import Candidates, Contract
from dask_dedup.cells.dense_groups import LEAST_RECORDS, find_groups, join_around
from dask_dedup.cells.entries import Records, read_records
from dask_dedup.cells.full_filter import add_tiles
from dask_dedup.cells.join_groups import CellGroup, plan_groups
from dask_dedup.cells.layout_files import SAME_SIMILARITY, CellLayout
from dask_dedup.data.part_files import read_linked
from dask_dedup.data.spans import Span
from dask_dedup.graph.forest_range import with_range
from dask_dedup.schema import EDGES
from dask_dedup.storage.files import open_once
from dask_dedup.vectors.device import choose_device
from dask_dedup.vectors.int8_codes import grid_rows
from dask_dedup.vectors.pca import load_pca

if TYPE_CHECKING:
    import dask.dataframe as dd

__all__ = ["JoinResult", "join_cells", "join_group"]


class JoinResult(NamedTuple):
    """``edges`` EDGES, contracted where asked; ``visits`` records; pairs looked at and verified."""

    edges: pd.DataFrame
    visits: int
    candidates: int
    pairs: int


def join_group(
    layout: CellLayout,
    group: CellGroup,
    threshold: float,
    threads: int = 1,
    contract: Contract | None = None,
    device: str = "cpu",
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
        Drops edges without changing the components at any threshold, such as
        `dask_dedup.graph.forest.spanning_edges`; keeps memory bounded where one group of
        near-copies makes more pairs than rows.
    device : str
        ``cpu``, or, experimental, ``cuda`` or ``auto``: where the filter's products run.
    """
    torch.set_num_threads(threads)
    chosen = torch.device(choose_device(device))
    pca = open_once(load_pca, layout.pca_path)
    records = read_records(layout, group.cell_start, group.cell_stop)
    cell = np.repeat(np.arange(len(records.bounds) - 1), np.diff(records.bounds))
    batch = Candidates(layout, records.row_ids, cell, threshold, contract)
    alive = _collapse(records, batch)
    images = grid_rows(records.steps, alive)
    limit = pca.grid_limit(threshold)
    has_groups = layout.answers_from(threshold).below is not None
    tiles = [(bounds, bounds) for bounds in pairwise(records.bounds.tolist())]
    if group.left is not None and group.right is not None:
        tiles = [(group.left, group.right)]
    for number, (rows, columns) in enumerate(tiles):
        batch.enter(number)
        there = _alive_records(rows, columns, alive)
        if len(there) >= LEAST_RECORDS and has_groups:
            leader = find_groups(images, there, pca.grid_limit(SAME_SIMILARITY), batch)
            if (leader >= 0).any():
                same = columns == rows
                join_around(images, limit, there, leader, there < rows[1], same, batch)
                continue
        one = _alive_records(rows, rows, alive)
        other = None if columns == rows else _alive_records(columns, columns, alive)
        add_tiles(images, limit, one, other, batch, chosen)
    edges = batch.finish()
    # The records of a large cell are counted once, with each tile against itself.
    visits = len(records.row_ids) if group.left is None else 0
    if group.left is not None and group.left == group.right:
        visits = group.left[1] - group.left[0]
    return JoinResult(edges, visits, batch.candidates, batch.pairs)


def _alive_records(
    rows: tuple[int, int], columns: tuple[int, int], alive: np.ndarray
) -> np.ndarray:
    """Return the records of one tile or two that have not been collapsed."""
    both = [np.arange(*rows)] if rows == columns else [np.arange(*rows), np.arange(*columns)]
    records = np.concatenate(both)
    return records[alive[records]]


def join_cells(layout: CellLayout, threshold: float, threads: int = 1) -> dd.DataFrame:
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
        EDGES: lazy; one partition per task, where a pair may stand in two of them, and one per
        span with the edges of rows that are equal inside it.
    """
    import dask.dataframe as dd

    return dd.from_map(
        _join_edges,
        [*plan_groups(layout), *layout.spans],
        layout=layout,
        threshold=threshold,
        threads=threads,
        meta=with_range(EDGES, layout.answers_from(threshold)),
        label="join-cells",
    )


def _join_edges(
    source: CellGroup | Span, layout: CellLayout, threshold: float, threads: int
) -> pd.DataFrame:
    if isinstance(source, Span):
        edges = read_linked(layout, source)
    else:
        edges = join_group(layout, source, threshold, threads).edges
    return with_range(edges, layout.answers_from(threshold))


def _collapse(records: Records, batch: Candidates) -> np.ndarray:
    """Leave one row of each group of equal rows in each cell: bool array over the records.

    The others become edges of similarity 1 from the smallest row.
    """
    first = _first_of_content(records.content, records.bounds)
    alive = np.ones(len(first), np.bool_)
    j = np.flatnonzero(first != np.arange(len(first)))
    if not len(j):
        return alive
    i = first[j]
    # Two rows that share several cells are compared once.
    pairs, back = np.unique(batch.rank[i] * len(batch.ids) + batch.rank[j], return_inverse=True)
    a, b = np.divmod(pairs, len(batch.ids))
    similarity = batch.similarity(a, b)
    equal = similarity == np.float32(1)
    batch.keep(a[equal], b[equal], similarity[equal])
    alive[j[equal[back]]] = False
    return alive


@numba.njit(cache=True, nogil=True)
def _first_of_content(content, bounds):
    """Return the first record of the same content in its cell, for each record: int64."""
    first = np.arange(len(content))
    most = 1
    for cell in range(len(bounds) - 1):
        most = max(most, bounds[cell + 1] - bounds[cell])
    slots = 1
    while slots < 2 * most:
        slots *= 2
    record = np.empty(slots, np.int64)  # in each slot of a hash table
    for cell in range(len(bounds) - 1):
        mask = 1
        while mask < 2 * (bounds[cell + 1] - bounds[cell]):
            mask *= 2
        mask -= 1
        record[: mask + 1] = -1
        for i in range(bounds[cell], bounds[cell + 1]):
            slot = np.int64(content[i]) & mask
            while record[slot] >= 0 and content[record[slot]] != content[i]:
                slot = (slot + 1) & mask
            if record[slot] < 0:
                record[slot] = i
            first[i] = record[slot]
    return first
