"""The cell layout: what the join reads, written once per part, sorted by cell.

For each part, one file of records and one of offsets. A record is a row in a cell that it visits:
its position in the part, a hash of its stored bytes, and its image in the compressed space, one
byte a coordinate. The records of neighbouring cells are one contiguous range of each part's file,
so that no global shuffle is needed.

Full vectors are not copied: a row's is read by position from its source when the row has a
candidate.

Cost per row: its embedding read once; visits * (kept + 9) bytes, filled up to a multiple of 4,
written once and read once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import pandas as pd
import torch

from dask_dedup.compress.device import choose_device
from dask_dedup.compress.pca import PcaModel, load_pca
from dask_dedup.compress.vectors import UNREADABLE, VectorBlock, prepare_block
from dask_dedup.index.assign import MOST_VISITS, assign_cells, sort_by_value
from dask_dedup.index.assign_device import DeviceCells
from dask_dedup.index.assign_exact import assign_exactly
from dask_dedup.index.cell_files import CellLayout
from dask_dedup.index.cells import CellModel, load_cells
from dask_dedup.index.equals import as_words, hash_words
from dask_dedup.index.leaders import link_members, load_leaders
from dask_dedup.io.objects import local_copy, read_values
from dask_dedup.io.parts import EmbeddingFile, Part, gather_rows, read_rows
from dask_dedup.io.store import open_once, write_aside, write_frame
from dask_dedup.schema import EDGES

__all__ = [
    "Block",
    "PartLayout",
    "Records",
    "layout_part",
    "read_records",
]

_HEAD_WORDS = 2  # words of 32 bits before the image of a record: position and hash
# Rows read, projected and assigned at a time: 16 MB at 1,024 dimensions. Four times as many take 5
# to 10 % longer where all cores are busy, as these share a cache and the memory.
_BLOCK_ROWS = 4096


class PartLayout(NamedTuple):
    """What `layout_part` did: row counts that must add up.

    ``rows = invalid + identical + distinct``; ``visits`` is the number of records, ``linked`` that
    of the edges to equal rows and to leaders.
    """

    rows: int
    invalid: int
    identical: int
    distinct: int
    visits: int
    linked: int


class Block(NamedTuple):
    """A block of rows on its way through `layout_part`, for whoever watches.

    ``row_start`` int; ``stored`` array (n, dim); ``vectors`` VectorBlock; ``steps`` int8 tensor
    (n, width): the images on the grid.
    """

    row_start: int
    stored: np.ndarray
    vectors: VectorBlock
    steps: torch.Tensor


class Records(NamedTuple):
    """Records of a range of cells: by cell, then in ``row_id`` order.

    Attributes
    ----------
    row_ids : int64 array, shape (n,)
    content : uint32 array, shape (n,)
        Hash of the stored bytes.
    steps : int8 array, shape (n, kept + 1, filled up with zeros to a multiple of 4)
        Images on the grid of the PCA: see `PcaModel.to_grid`.
    bounds : int64 array, shape (cells of the range + 1,)
        The records of cell i of the range are ``bounds[i]`` to ``bounds[i + 1]``.
    """

    row_ids: np.ndarray
    content: np.ndarray
    steps: np.ndarray
    bounds: np.ndarray


def layout_part(
    layout: CellLayout,
    part: Part,
    threads: int = 1,
    watch: Callable[[Block], None] | None = None,
    device: str = "cpu",
) -> PartLayout:
    """Write the layout of one part: read, project, assign, collapse, sort, in one pass.

    Files written: ``records`` and ``offsets`` (see `read_records`), ``linked`` (EDGES: of
    similarity 1 from the smallest row of each group of equal bytes to the others, which are left
    out of the records; and from members of dense groups to their leaders) and ``invalid``
    (``row_id``, ``reason`` code).

    Parameters
    ----------
    layout : CellLayout
    part : Part
    threads : int
        Threads of the matrix products.
    watch : callable, optional
        Called with each `Block` while it is in memory.
    device : str
        ``auto``, ``cpu`` or ``cuda``: where rows are projected and compared with the cells.
    """
    torch.set_num_threads(threads)
    pca = open_once(load_pca, layout.pca_path)
    cells = open_once(load_cells, layout.cells_path)
    chosen = torch.device(choose_device(device))
    moved = DeviceCells(cells, chosen) if chosen.type != "cpu" else None
    leaders = open_once(load_leaders, layout.leaders_path)
    rows, kept = part.rows, layout.kept
    heads = np.empty((rows, _HEAD_WORDS), np.uint32)
    images = np.empty((rows, _image_words(kept)), np.uint32)
    steps = torch.from_numpy(images.view(np.int8))
    visited = np.empty((rows, MOST_VISITS), np.int32)
    content = np.empty(rows, np.uint64)
    reason = np.empty(rows, np.uint8)
    block_rows = min(_BLOCK_ROWS, rows)
    buffer = torch.empty(block_rows, part.embeddings.dim)
    image = torch.empty(block_rows, kept + 1)
    links = []  # members of dense groups: row_id, that of the leader, similarity
    for start in range(0, rows, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, rows)
        stored = read_rows(part.embeddings, start, stop)
        vectors = prepare_block(stored, buffer)
        block_image = pca.transform(vectors, image[: stop - start], chosen)
        visited[start:stop] = _assign(block_image, vectors, pca, cells, moved)
        steps[start:stop] = pca.to_grid(block_image)
        ids = part.row_start + np.arange(start, stop)
        usable_here = vectors.reason == 0
        members, *link = link_members(leaders, ids, stored, usable_here, block_image)
        visited[start + members, 1:] = -1
        links.append((ids[members], *link))
        content[start:stop] = hash_words(as_words(stored))
        reason[start:stop] = vectors.reason
        if watch is not None:
            watch(Block(part.row_start + start, stored, vectors, steps[start:stop]))

    if part.embeddings.problem is not None:
        reason[:] = UNREADABLE
    usable = np.flatnonzero(reason == 0)
    first = _first_of_equals(part.embeddings, usable, content)
    distinct = usable[first == usable]
    copies = usable[first != usable]
    assert (visited[distinct, 0] >= 0).all(), "a row without a home would be compared with none"
    order, offsets = sort_by_value(visited[distinct], layout.cells)
    heads[:, 0] = np.arange(rows)
    heads[:, 1] = content >> np.uint64(32)
    records = np.empty((len(order), _HEAD_WORDS + images.shape[1]), np.uint32)
    _fill_records(records, distinct[order], heads, images)

    with write_aside(layout.path("records", part)) as temporary:
        records.tofile(temporary)
    links.append((part.row_start + copies, part.row_start + first[first != usable], 1.0))
    _write_links(layout.path("linked", part), links)
    invalid = np.flatnonzero(reason)
    write_frame(
        layout.path("invalid", part),
        pd.DataFrame({"row_id": part.row_start + invalid, "reason": reason[invalid]}),
    )
    with write_aside(layout.path("offsets", part)) as temporary, open(temporary, "wb") as file:
        np.save(file, offsets)
    assert len(invalid) + len(copies) + len(distinct) == rows
    linked = sum(len(link[0]) for link in links)
    return PartLayout(rows, len(invalid), len(copies), len(distinct), len(records), linked)


def read_records(layout: CellLayout, cell_start: int, cell_stop: int) -> Records:
    """Read the records of a range of cells from all parts."""
    own_offsets = np.stack(
        [
            np.load(local_copy(layout.path("offsets", part)), mmap_mode="r")[
                cell_start : cell_stop + 1
            ]
            for part in layout.parts
        ]
    )
    counts = np.diff(own_offsets, axis=1)
    bounds = np.concatenate([[0], np.cumsum(counts.sum(axis=0))])
    place = bounds[:-1] + np.cumsum(counts, axis=0) - counts  # of each part's records in each cell
    words = _HEAD_WORDS + _image_words(layout.kept)
    row_ids, content = np.empty(bounds[-1], np.int64), np.empty(bounds[-1], np.uint32)
    images = np.empty((bounds[-1], words - _HEAD_WORDS), np.uint32)
    for part, own, first in zip(layout.parts, own_offsets, place, strict=True):
        start, count = int(own[0]) * words, int(own[-1] - own[0]) * words
        piece = read_values(layout.path("records", part), np.uint32, start, count)
        _copy_cells(
            piece.reshape(-1, words), own - own[0], part.row_start, first, row_ids, content, images
        )
    return Records(row_ids, content, images.view(np.int8), bounds)


def _assign(
    image: torch.Tensor,
    vectors: VectorBlock,
    pca: PcaModel,
    cells: CellModel,
    moved: DeviceCells | None,
) -> np.ndarray:
    """Assign a block, undecided rows again in float64: int32, shape (n, MOST_VISITS)."""
    coordinates = image[:, : pca.kept]
    found, unsure = moved.assign(coordinates) if moved else assign_cells(coordinates, cells)
    again = np.flatnonzero(unsure)
    if len(again):
        exact = pca.transform_exactly(vectors.rows[torch.from_numpy(again)].numpy())
        found[again] = assign_exactly(exact, cells)
    return found


def _first_of_equals(file: EmbeddingFile, positions: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Return for each position the first one whose stored bytes are equal: int64.

    Equal hashes are only a hint: the bytes are read again and compared.
    """
    order = positions[np.argsort(content[positions], kind="stable")]
    hashes = content[order]
    starts = np.r_[True, hashes[1:] != hashes[:-1]] if len(order) else np.empty(0, np.bool_)
    leader = order[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
    first = np.arange(len(content))
    copies = np.flatnonzero(leader != order)
    step = max(1, (64 << 20) // (file.dim * np.dtype(file.dtype).itemsize))
    for begin in range(0, len(copies), step):
        chunk = copies[begin : begin + step]
        leaders, back = np.unique(leader[chunk], return_inverse=True)
        members, member_back = np.unique(order[chunk], return_inverse=True)
        ours = as_words(gather_rows(file, members))[member_back]
        equal = (ours == as_words(gather_rows(file, leaders))[back]).all(axis=1)
        first[order[chunk[equal]]] = leader[chunk[equal]]
    return first[positions]


def _write_links(
    path: Path, links: list[tuple[np.ndarray, np.ndarray, np.ndarray | float]]
) -> None:
    """Write edges between rows and those that stand for them as EDGES."""
    one = np.concatenate([link[0] for link in links])
    other = np.concatenate([link[1] for link in links])
    similarity = np.concatenate([np.broadcast_to(link[2], len(link[0])) for link in links])
    frame = pd.DataFrame(
        {"src": np.minimum(one, other), "dst": np.maximum(one, other), "similarity": similarity}
    )
    write_frame(path, frame.astype(EDGES.dtypes))


def _image_words(kept: int) -> int:
    """Return the words of 32 bits that an image of one byte a coordinate takes."""
    return -(-(kept + 1) // 4)


@numba.njit(cache=True, nogil=True)
def _fill_records(records, source, heads, images):
    """Put heads and images of the source rows side by side."""
    width = heads.shape[1]
    for i in range(len(source)):
        row = source[i]
        for k in range(width):
            records[i, k] = heads[row, k]
        for k in range(images.shape[1]):
            records[i, width + k] = images[row, k]


@numba.njit(cache=True, nogil=True)
def _copy_cells(piece, offsets, row_start, place, row_ids, content, images):
    """Copy the records of each cell of one part's piece to where they belong."""
    for cell in range(len(place)):
        target = place[cell]
        for source in range(offsets[cell], offsets[cell + 1]):
            row_ids[target] = row_start + np.int64(piece[source, 0])
            content[target] = piece[source, 1]
            for k in range(images.shape[1]):
                images[target, k] = piece[source, 2 + k]
            target += 1
