"""The cell layout: what the join reads, written once per span, sorted by cell.

For each span of parts, one file of entries and one of offsets: see `dask_dedup.cells.entries`. The
entries of neighbouring cells are one contiguous range of each file, so that no global shuffle is
needed.

Full vectors are not copied: a row's is read by position from its source when the row has a
candidate.

Cost per row: its embedding read once; cells per row * (kept + 9) bytes, filled up to a multiple
of 4, written once and read once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np
import pandas as pd
import torch

from dask_dedup.cells.assign import assign_cells, sort_by_value
from dask_dedup.cells.assign_device import DeviceCells
from dask_dedup.cells.assign_exact import assign_exactly
from dask_dedup.cells.entries import HEAD_WORDS, code_words
from dask_dedup.cells.kmeans import CellModel, load_cells
from dask_dedup.cells.layout_files import CellLayout
from dask_dedup.cells.leaders import link_members, load_leaders
from dask_dedup.cells.sizes import BLOCK_ROWS, MOST_CELLS_PER_ROW
from dask_dedup.data.spans import Span, read_span
from dask_dedup.paths import AnyPath
from dask_dedup.schema import EDGES
from dask_dedup.storage.files import open_once, write_frame
from dask_dedup.storage.sealed_file import write_sealed
from dask_dedup.vectors.device import choose_device, says_when_full
from dask_dedup.vectors.equal_rows import EqualRows
from dask_dedup.vectors.pca import PcaModel, load_pca
from dask_dedup.vectors.unit import UNREADABLE, Block, VectorBlock, prepare_block

__all__ = ["SpanLayout", "layout_span"]


class SpanLayout(NamedTuple):
    """What `layout_span` did: row counts that must add up.

    ``rows = invalid + identical + distinct``; ``entries`` is the number of entries, ``linked`` that
    of the edges to equal rows and to leaders.
    """

    rows: int
    invalid: int
    identical: int
    distinct: int
    entries: int
    linked: int


@says_when_full
def layout_span(
    layout: CellLayout,
    span: Span,
    threads: int = 1,
    watch: Callable[[Block, torch.Tensor], None] | None = None,
    device: str = "cpu",
    block_rows: int = BLOCK_ROWS,
) -> SpanLayout:
    """Write the layout of one span: read, project, assign, collapse, sort, in one pass.

    Files written: ``entries`` and ``offsets`` (see `cells.entries`), ``linked`` (EDGES: of
    similarity 1 from the smallest row of each group of equal bytes to the others, which are left
    out of the entries; and from members of dense groups to their leaders) and ``invalid``
    (``row_id``, ``reason`` code).

    Parameters
    ----------
    layout : CellLayout
    span : Span
    threads : int
        Threads of the matrix products.
    watch : callable, optional
        Called with each `Block` while it is in memory, and its int8 codes: int8 tensor,
        shape (n, width).
    device : str
        ``cpu``, or, experimental, ``cuda`` or ``auto``: where rows are projected and compared with
        the cells.
    block_rows : int
        Rows read, projected and assigned at a time.
    """
    torch.set_num_threads(threads)
    pca = open_once(load_pca, layout.pca_path)
    cells = open_once(load_cells, layout.cells_path)
    chosen = torch.device(choose_device(device))
    moved = DeviceCells(cells, chosen) if chosen.type != "cpu" else None
    leaders = open_once(load_leaders, layout.leaders_path)
    rows, kept = span.rows, layout.kept
    heads = np.empty((rows, HEAD_WORDS), np.uint32)
    projections = np.empty((rows, code_words(kept)), np.uint32)
    codes = torch.from_numpy(projections.view(np.int8))
    row_cells = np.empty((rows, MOST_CELLS_PER_ROW), np.int32)
    equals, first = EqualRows(span), np.empty(rows, np.int64)
    reason = np.empty(rows, np.uint8)
    buffer = torch.empty(min(block_rows, rows), span.embeddings.dim)
    projection = torch.empty(min(block_rows, rows), kept + 1)
    links = []  # members of dense groups: row_id, that of the leader, similarity
    for start in range(0, rows, block_rows):
        stop = min(start + block_rows, rows)
        stored = read_span(span, start, stop)
        vectors = prepare_block(stored, buffer)
        block_projection = pca.transform(vectors, projection[: stop - start], chosen)
        row_cells[start:stop] = _assign(block_projection, vectors, pca, cells, moved)
        codes[start:stop] = pca.to_codes(block_projection)
        ids = span.row_start + np.arange(start, stop)
        usable_here = vectors.reason == 0
        members, *link = link_members(leaders, ids, stored, usable_here, block_projection)
        row_cells[start + members, 1:] = -1
        links.append((ids[members], *link))
        first[start:stop] = equals.look(start, stored, usable_here)
        reason[start:stop] = vectors.reason
        if watch is not None:
            watch(Block(span.row_start + start, stored, vectors), codes[start:stop])

    for part in span.parts:
        if part.embeddings.problem is not None:
            reason[part.row_start - span.row_start : part.row_stop - span.row_start] = UNREADABLE
    content = equals.hashes
    del equals  # else its table would be in memory together with what is sorted next
    usable = np.flatnonzero(reason == 0)
    is_copy = first[usable] != usable
    distinct, copies = usable[~is_copy], usable[is_copy]
    assert (row_cells[distinct, 0] >= 0).all(), "a row without a cell would be compared with none"
    order, offsets = sort_by_value(row_cells[distinct], layout.cells)
    heads[:, 0] = np.arange(rows)
    heads[:, 1] = content >> np.uint64(32)
    entries = np.empty((len(order), HEAD_WORDS + projections.shape[1]), np.uint32)
    _fill_entries(entries, distinct[order], heads, projections)

    write_sealed(layout.path("entries", span), entries)
    links.append((span.row_start + copies, span.row_start + first[copies], 1.0))
    _write_links(layout.path("linked", span), links)
    invalid = np.flatnonzero(reason)
    write_frame(
        layout.path("invalid", span),
        pd.DataFrame({"row_id": span.row_start + invalid, "reason": reason[invalid]}),
    )
    write_sealed(layout.path("offsets", span), offsets.astype(np.int64, copy=False))
    assert len(invalid) + len(copies) + len(distinct) == rows
    linked = sum(len(link[0]) for link in links)
    return SpanLayout(rows, len(invalid), len(copies), len(distinct), len(entries), linked)


def _assign(
    projection: torch.Tensor,
    vectors: VectorBlock,
    pca: PcaModel,
    cells: CellModel,
    moved: DeviceCells | None,
) -> np.ndarray:
    """Assign a block, undecided rows again in float64: int32, shape (n, MOST_CELLS_PER_ROW)."""
    coordinates = projection[:, : pca.kept]
    found, unsure = moved.assign(coordinates) if moved else assign_cells(coordinates, cells)
    again = np.flatnonzero(unsure)
    if len(again):
        exact = pca.transform_exactly(vectors.rows[torch.from_numpy(again)].numpy())
        found[again] = assign_exactly(exact, cells)
    return found


def _write_links(
    path: AnyPath, links: list[tuple[np.ndarray, np.ndarray, np.ndarray | float]]
) -> None:
    """Write edges between rows and those that stand for them as EDGES."""
    one = np.concatenate([link[0] for link in links])
    other = np.concatenate([link[1] for link in links])
    similarity = np.concatenate([np.broadcast_to(link[2], len(link[0])) for link in links])
    frame = pd.DataFrame(
        {"src": np.minimum(one, other), "dst": np.maximum(one, other), "similarity": similarity}
    )
    write_frame(path, frame.astype(EDGES.dtypes))


@numba.njit(cache=True, nogil=True)
def _fill_entries(
    entries: np.ndarray, source: np.ndarray, heads: np.ndarray, projections: np.ndarray
) -> None:
    """Put heads and codes of the source rows side by side."""
    width = heads.shape[1]
    for i in range(len(source)):
        row = source[i]
        for k in range(width):
            entries[i, k] = heads[row, k]
        for k in range(projections.shape[1]):
            entries[i, width + k] = projections[row, k]
