"""Candidate pairs of one join task: verified in batches at full dimension, kept as edges."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import pandas as pd

from dask_dedup.cells.assign import sort_by_value
from dask_dedup.cells.layout_files import CellLayout
from dask_dedup.cells.sizes import BATCH_PAIRS, READ_BYTES
from dask_dedup.graph.edge_buffer import Contract, EdgeBuffer
from dask_dedup.vectors.cosines import cosine_pairs, exact_rows, may_reach, short_rows

__all__ = ["DEFAULT_LIMITS", "Candidates", "JoinLimits"]

_MANY_PAIRS = 1 << 14  # of one product: most rows are in many of them
_SCREENED = 3  # candidates a pair, from where on most are ruled out by short rows first


@dataclass(frozen=True)
class JoinLimits:
    """How much a join task takes at a time, and from which numbers on it uses another method.

    Attributes
    ----------
    batch_pairs : int
        Candidates verified at a time.
    group_entries : int
        Of a cell, and outside of the groups found there, before dense groups are looked for.
    group_members : int
        Rows that a dense group has at least.
    many_pairs : int
        Of a row and one block of a group's members: above it only the best ones are kept.
    full_share : float
        Of the pairs that pass the filter by the PCA: above it full rows are multiplied.
    full_rows : int
        Rows in memory while their int8 codes are computed.
    full_spread : float
        Standard deviations of the widest coordinate up to the largest of these codes.
    """

    batch_pairs: int = BATCH_PAIRS
    group_entries: int = 4096
    group_members: int = 1024
    many_pairs: int = 256
    full_share: float = 0.02  # a product of full rows takes less time from here on
    full_rows: int = 4096
    full_spread: float = 3.0


DEFAULT_LIMITS = JoinLimits()


class Candidates:
    """Candidates that wait for verification, and the edges that they became.

    Parameters
    ----------
    layout : CellLayout
    row_ids, cells : int64 arrays, shape (entries,)
        Row and cell of each entry of the task, by cell.
    threshold : float
        Cosine from which on a pair is an edge.
    contract : callable, optional
        Drops edges without changing the components at any threshold.
    limits : JoinLimits

    Rows are numbered by their rank among the task's rows, so that a row that is met in several
    cells has one number, and the edges of a task have small ones.
    """

    def __init__(
        self,
        layout: CellLayout,
        row_ids: np.ndarray,
        cells: np.ndarray,
        threshold: float,
        contract: Contract | None,
        limits: JoinLimits = DEFAULT_LIMITS,
    ) -> None:
        self.layout = layout
        self.ids, self.rank = np.unique(row_ids, return_inverse=True)
        by_rank, self._row_cells_start = sort_by_value(self.rank[:, None], len(self.ids))
        self.cell = 0
        self._bounds = np.searchsorted(cells, np.arange(cells[-1] + 2)) if len(cells) else cells
        self._met = np.zeros(len(self.ids), np.uint64)  # see `_meet_first`
        self._row_cells = cells[by_rank]  # by rank, then by cell
        self.threshold = np.float32(threshold)
        self.limits = limits
        self.candidates = 0
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._waiting_pairs = 0
        self._edges = EdgeBuffer(contract, 2 * limits.batch_pairs)
        # Full rows that have been read: the position of each rank's, and how many there are.
        self._position = np.full(len(self.ids), -1)
        self._filled = 0
        self._stored = layout.part_list.rows
        self._wide = np.result_type(np.float32, self._stored.dtype)
        self._dim = self._stored.dim
        self._most = READ_BYTES // (self._wide.itemsize * self._dim)
        self._rows = np.empty((0, self._dim), self._wide)

    def begin_cell(self, cell: int) -> None:
        """Go on to the next cell or a later one: what `add` takes is of this one."""
        for left in range(self.cell, cell):
            ranks = self.rank[self._bounds[left] : self._bounds[left + 1]]
            self._met[ranks] |= np.uint64(1 << left % 64)
        self.cell = cell

    def add(self, i: np.ndarray, j: np.ndarray) -> None:
        """Take candidate pairs of the current cell, as indices of entries."""
        if len(i) >= _MANY_PAIRS:
            i, j = _by_columns(i, j)
        a, b = _meet_first(
            i, j, self.rank, self._met, self.cell, self._row_cells, self._row_cells_start
        )
        self._waiting.append((a, b))
        self._waiting_pairs += len(a)
        if self._waiting_pairs >= self.limits.batch_pairs:
            self._verify_waiting()

    @property
    def pairs(self) -> int:
        """Verified pairs."""
        return self._edges.pairs

    def finish(self) -> pd.DataFrame:
        """Return the edges of all candidates."""
        self._verify_waiting()
        src, dst, similarity = self._edges.edges()
        return pd.DataFrame({"src": self.ids[src], "dst": self.ids[dst], "similarity": similarity})

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Verify pairs of ranks at full dimension: float32."""
        self._read_all(a, b)
        return cosine_pairs(self._rows, self._rows, self._position[a], self._position[b])

    def _read_all(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Read the full rows of pairs of ranks; return these, each once, in order."""
        needed = np.zeros(len(self.ids), np.bool_)
        needed[a] = True
        needed[b] = True
        ranks = np.flatnonzero(needed)
        self._read(ranks)
        return ranks

    def full_rows(self, ranks: np.ndarray) -> np.ndarray:
        """Return full rows as `exact_rows` does: float32 or float64, shape (ranks, dim)."""
        self._read(np.unique(ranks))
        return self._rows[self._position[ranks]]

    def short_rows(self, ranks: np.ndarray) -> np.ndarray:
        """Return full rows as `dask_dedup.vectors.cosines.short_rows` makes them."""
        return short_rows(self.full_rows(ranks))

    def _read(self, ranks: np.ndarray) -> None:
        """Read the full rows of some ranks; those read before stay while there is room."""
        missing = ranks[self._position[ranks] < 0]
        wanted = self._filled + len(missing)
        if wanted > max(self._most, len(self._rows)):
            self._position[:] = -1
            self._filled, missing = 0, ranks
            wanted = len(ranks)
        if wanted > len(self._rows):
            # At first no more than needed, as a large block is made of fresh pages; then twice as
            # much, as each block is copied into the next.
            room = max(wanted, min(2 * len(self._rows), self._most, len(self.ids)))
            longer = np.empty((room, self._dim), self._wide)
            longer[: self._filled] = self._rows[: self._filled]
            self._rows = longer
        if not len(missing):
            return
        stored = self._stored.gather(self.ids[missing])
        exact_rows(stored, self._rows[self._filled : wanted])
        self._position[missing] = np.arange(self._filled, wanted)
        self._filled = wanted

    def add_edges(self, a: np.ndarray, b: np.ndarray, similarity: np.ndarray) -> None:
        """Keep verified pairs of ranks as edges."""
        self._edges.add(a, b, similarity)

    def _verify_waiting(self) -> None:
        if not self._waiting:
            return
        all_a, all_b = (np.concatenate(side) for side in zip(*self._waiting, strict=True))
        self._waiting, self._waiting_pairs = [], 0
        at_once = self.limits.batch_pairs
        for start in range(0, len(all_a), at_once):
            a, b = all_a[start : start + at_once], all_b[start : start + at_once]
            most_fail = self.candidates > _SCREENED * (self.pairs + 1)
            self.candidates += len(a)
            if most_fail:
                a, b = self._screened(a, b)
            similarity = self.similarity(a, b)
            passed = similarity >= self.threshold
            self.add_edges(a[passed], b[passed], similarity[passed])

    def _screened(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs of ranks that a product in int16 does not rule out."""
        needed = self._read_all(a, b)
        position = np.empty(len(self.ids), np.int64)
        position[needed] = np.arange(len(needed))
        passed = may_reach(self.short_rows(needed), position[a], position[b], float(self.threshold))
        return a[passed], b[passed]


@numba.njit(cache=True, nogil=True)
def _meet_first(
    i: np.ndarray,
    j: np.ndarray,
    rank: np.ndarray,
    met: np.ndarray,
    cell: int,
    row_cells: np.ndarray,
    row_cells_start: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ranks of pairs of entries whose rows have no cell in common before ``cell``.

    ``met`` has a bit for each earlier cell of a row, at its number's remainder of 64: where two
    rows share none, their cells need not be looked at.
    """
    a, b = np.empty(len(i), np.int64), np.empty(len(i), np.int64)
    kept = 0
    for pair in range(len(i)):
        a[kept], b[kept] = rank[i[pair]], rank[j[pair]]
        if met[a[kept]] & met[b[kept]] == 0:
            kept += 1
            continue
        x, x_stop = row_cells_start[a[kept]], row_cells_start[a[kept] + 1]
        y, y_stop = row_cells_start[b[kept]], row_cells_start[b[kept] + 1]
        new = True
        while x < x_stop and y < y_stop and row_cells[x] < cell and row_cells[y] < cell:
            if row_cells[x] == row_cells[y]:
                new = False
                break
            if row_cells[x] < row_cells[y]:
                x += 1
            else:
                y += 1
        kept += new
    return a[:kept], b[:kept]


@numba.njit(cache=True, nogil=True)
def _by_columns(i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs ordered by blocks of 64 columns j, so that full rows stay in the cache."""
    first = j.min() >> 6
    stops = np.zeros((j.max() >> 6) - first + 2, np.int64)
    for column in j:
        stops[(column >> 6) - first + 1] += 1
    stops = np.cumsum(stops)
    a, b = np.empty_like(i), np.empty_like(j)
    for pair in range(len(j)):
        block = (j[pair] >> 6) - first
        a[stops[block]], b[stops[block]] = i[pair], j[pair]
        stops[block] += 1
    return a, b
