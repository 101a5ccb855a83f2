"""The join inside cells: every pair of rows that have a cell in common.

1. Read the entries of a range of cells, sorted by cell.
2. Collapse equal rows: those of equal content hash that verify at similarity 1.
3. Per cell compute one product of the int8 codes of the projections, and scan it once
   (`vectors.int8_codes`). The filter is lossless; its radius is larger by the errors of the codes
   and of float32.
4. Compute the cosines of candidates at full dimension in float64, whenever a million have come
   together; what, as float32, is at or above the threshold is a pair.

Large cells are searched for dense groups first, whose members are not compared: see `dense_groups`.
Where the filter lets many pairs through, full rows are multiplied: see `full_filter`.

The cell need not be the nearest of either row. (Measured on 10^6 synthetic rows at 5 cells per row:
99.9 % of the pairs at 0.95 meet, 99.85 % if the cell must be the nearest of one of them; nearest
cells alone need 10 cells per row, twice the entries, for as much.) A pair meets in two to three
cells on average. A task takes it in the first of its own cells; the forest drops what two tasks
have found.

Memory of a task: its entries, one tile product, one batch of candidates with the full vectors they
touch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch

from dask_dedup.cells.candidates import DEFAULT_LIMITS, Candidates, JoinLimits
from dask_dedup.cells.dense_groups import find_groups, join_around
from dask_dedup.cells.entries import Entries, read_entries
from dask_dedup.cells.full_filter import add_tiles
from dask_dedup.cells.join_groups import CellGroup, plan_groups
from dask_dedup.cells.layout_files import SAME_SIMILARITY, CellLayout
from dask_dedup.data.finder_files import read_linked
from dask_dedup.data.spans import Span
from dask_dedup.graph.edge_buffer import Contract
from dask_dedup.graph.forest import forest_of_edges, spanning_edges
from dask_dedup.graph.forest_range import with_range
from dask_dedup.graph.origin import with_origin
from dask_dedup.schema import EDGES
from dask_dedup.storage.files import open_once
from dask_dedup.vectors.device import choose_device, says_when_full
from dask_dedup.vectors.equal_rows import first_in_groups
from dask_dedup.vectors.int8_codes import code_rows
from dask_dedup.vectors.pca import load_pca

if TYPE_CHECKING:
    import dask.dataframe as dd

__all__ = ["JoinResult", "join_cells", "join_group"]


class JoinResult(NamedTuple):
    """``edges`` EDGES, contracted where asked; entries read; pairs looked at and verified."""

    edges: pd.DataFrame
    entry_count: int
    candidates: int
    pairs: int


@says_when_full
def join_group(
    layout: CellLayout,
    group: CellGroup,
    threshold: float,
    threads: int = 1,
    contract: Contract | None = None,
    device: str = "cpu",
    limits: JoinLimits = DEFAULT_LIMITS,
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
    limits : JoinLimits
    """
    torch.set_num_threads(threads)
    chosen = torch.device(choose_device(device))
    pca = open_once(load_pca, layout.pca_path)
    entries = read_entries(layout, group.cell_start, group.cell_stop)
    cell = np.repeat(np.arange(len(entries.bounds) - 1), np.diff(entries.bounds))
    batch = Candidates(layout, entries.row_ids, cell, threshold, contract, limits)
    alive = _collapse(entries, batch)
    projections = code_rows(entries.codes, alive)
    limit = pca.largest_code_distance(threshold)
    has_groups = layout.answers_from(threshold).below is not None
    tiles = [(bounds, bounds) for bounds in pairwise(entries.bounds.tolist())]
    if group.left is not None and group.right is not None:
        tiles = [(group.left, group.right)]
    for number, (rows, columns) in enumerate(tiles):
        batch.begin_cell(number)
        present = _alive_entries(rows, columns, alive)
        if len(present) >= limits.group_entries and has_groups:
            leader = find_groups(
                projections, present, pca.largest_code_distance(SAME_SIMILARITY), batch
            )
            if (leader >= 0).any():
                same = columns == rows
                join_around(projections, limit, present, leader, present < rows[1], same, batch)
                continue
        one = _alive_entries(rows, rows, alive)
        other = None if columns == rows else _alive_entries(columns, columns, alive)
        add_tiles(projections, limit, one, other, batch, chosen)
    edges = batch.finish()
    # The entries of a large cell are counted once, with each tile against itself.
    entry_count = len(entries.row_ids) if group.left is None else 0
    if group.left is not None and group.left == group.right:
        entry_count = group.left[1] - group.left[0]
    return JoinResult(edges, entry_count, batch.candidates, batch.pairs)


def _alive_entries(
    rows: tuple[int, int], columns: tuple[int, int], alive: np.ndarray
) -> np.ndarray:
    """Return the entries of one tile or two that have not been collapsed."""
    both = [np.arange(*rows)] if rows == columns else [np.arange(*rows), np.arange(*columns)]
    entries = np.concatenate(both)
    return entries[alive[entries]]


def join_cells(
    layout: CellLayout,
    threshold: float,
    *,
    contract: bool = True,
    threads: int = 1,
    device: str = "cpu",
) -> dd.DataFrame:
    """Find the edges: pairs of rows whose cosine is at or above a threshold.

    Parameters
    ----------
    layout : CellLayout
        From `dask_dedup.build_cells`.
    threshold : float
        Cosine from which on a pair is an edge, above 0 and at most 1; compared as float32. The
        forest of these edges answers it and higher ones.
    contract : bool
        Contract what each task finds to its maximum spanning forest: the same components at every
        threshold, and at most one edge per row of a partition. Without it every pair that was
        found comes back, and a partition grows with their number: 10^4 near-copies have 5 * 10^7.
    threads : int
        Of the matrix products of a task. Dask computes as many tasks at once as it has threads:
        give a task more than one only where these are fewer than the cores.
    device : str
        ``cpu``, ``cuda``, or ``auto``: where the filter's products run. Experimental but for
        ``cpu``; the edges are the same.

    Returns
    -------
    dask DataFrame
        EDGES (with ``contract`` each partition is a FOREST): lazy. One partition per task, where a
        pair may stand in two of them, and one per span of parts with the edges of rows that are
        equal inside it, or members of a dense group. They carry the thresholds that they answer,
        and which data set they are of.

    Raises
    ------
    SettingsError
        The threshold is out of range, or it asks for pairs inside the layout's dense groups, at
        0.999 or above; and, when it is computed, torch sees no such device.

    Notes
    -----
    A task holds its entries (at most 2^18, or those of one larger cell), 256 MB of full vectors, a
    million candidates and, contracted, some 2 * 10^6 edges, whatever the number of rows and pairs:
    `dask-dedup plan` reckons with 1.0 GB, the process included, at 2 * 10^9 rows.
    """
    import dask.dataframe as dd

    layout.check_threshold(threshold)
    return dd.from_map(
        _join_edges,
        [*plan_groups(layout), *layout.spans],
        layout=layout,
        threshold=threshold,
        contract=contract,
        threads=threads,
        device=device,
        meta=with_origin(with_range(EDGES, layout.answers_from(threshold)), layout.origin),
        label="join-cells",
    )


def _join_edges(
    source: CellGroup | Span,
    layout: CellLayout,
    threshold: float,
    contract: bool,
    threads: int,
    device: str,
) -> pd.DataFrame:
    if isinstance(source, Span):
        edges = read_linked(layout, source)
        edges = forest_of_edges(edges) if contract else edges
    else:
        rule = spanning_edges if contract else None
        edges = join_group(layout, source, threshold, threads, rule, device).edges
    return with_range(edges, layout.answers_from(threshold))


def _collapse(entries: Entries, batch: Candidates) -> np.ndarray:
    """Leave one row of each group of equal rows in each cell: bool array over the entries.

    The others become edges of similarity 1 from the smallest row.
    """
    first = first_in_groups(entries.content, entries.bounds)
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
    batch.add_edges(a[equal], b[equal], similarity[equal])
    alive[j[equal[back]]] = False
    return alive
