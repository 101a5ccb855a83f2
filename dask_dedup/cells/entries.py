"""Entries of the cell layout: rows in cells, read by ranges of cells, merged where files are many.

An entry is a row in one of its cells: its position in the file's rows, a hash of its stored bytes,
and the int8 codes of its projection, one byte a coordinate. A file of entries is sorted by cell; a
file of offsets beside it says where each cell begins.

A join task reads its cells' range of every file. With a file for each span, their number and the
tasks both grow with the rows, and the reads with their product: at 2 * 10^9 rows of 16 cells
each, 2,000 spans and 120,000 tasks make 2.4 * 10^8 reads of some 130 entries (10 kB). So where
there are more than `MOST_FILES`, neighbouring ones are merged first, at most `MOST_FILES` of them
into one: then there are 7.7 * 10^6 reads of 4,000 entries (300 kB). That costs one more sequential
read and write of the entries, 2.4 TB each way at that size, shared by 64 tasks; and once more past
4,096 spans. Up to `MOST_FILES` spans (some 10^7 rows in small parts, 64 * 10^6 in parts of a
million), nothing is merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numba
import numpy as np

from dask_dedup.cells.layout_files import CellLayout, EntryFile
from dask_dedup.errors import CapacityError, DamagedError
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.storage.sealed_file import read_sealed, write_sealed, writing_sealed

__all__ = [
    "HEAD_WORDS",
    "MERGE_BYTES",
    "MOST_FILES",
    "Entries",
    "Merges",
    "code_words",
    "merge_entries",
    "plan_merges",
    "read_cell_counts",
    "read_entries",
]

HEAD_WORDS = 2  # words of 32 bits before the codes of an entry: position and hash
MOST_FILES = 64  # of entries: what a join task reads, and a merge at a time
MERGE_BYTES = 64 << 20  # of entries in memory at a time, twice
_WORD, _OFFSET = np.dtype(np.uint32), np.dtype(np.int64)
_MOST_ROWS = 1 << 32  # of a file: positions have 32 bits


class Merges(NamedTuple):
    """One level of merges.

    ``tasks``: the files of each merge, and the one that it makes; ``files``: what is left then.
    """

    tasks: list[tuple[list[EntryFile], EntryFile]]
    files: list[EntryFile]


class Entries(NamedTuple):
    """Entries of a range of cells: by cell, then in ``row_id`` order.

    Attributes
    ----------
    row_ids : int64 array, shape (n,)
    content : uint32 array, shape (n,)
        Hash of the stored bytes.
    codes : int8 array, shape (n, kept + 1, filled up with zeros to a multiple of 4)
        Of the projections: see `PcaModel.to_codes`.
    bounds : int64 array, shape (cells of the range + 1,)
        The entries of cell i of the range are ``bounds[i]`` to ``bounds[i + 1]``.
    """

    row_ids: np.ndarray
    content: np.ndarray
    codes: np.ndarray
    bounds: np.ndarray


def code_words(kept: int) -> int:
    """Return how many words of 32 bits the int8 codes of one row take."""
    return -(-(kept + 1) // 4)


def read_entries(layout: CellLayout, cell_start: int, cell_stop: int) -> Entries:
    """Read the entries of a range of cells from all files, one after another.

    Raises
    ------
    DamagedError
    """
    files = layout.entry_files
    own_offsets = [_read_offsets(layout, file, cell_start, cell_stop) for file in files]
    bounds, positions = _positions(own_offsets)
    words = HEAD_WORDS + code_words(layout.kept)
    row_ids, content = np.empty(bounds[-1], np.int64), np.empty(bounds[-1], np.uint32)
    projections = np.empty((bounds[-1], words - HEAD_WORDS), np.uint32)
    for file, own, first in zip(files, own_offsets, positions, strict=True):
        piece = _read_piece(file, own, words)
        _copy_cells(piece, own - own[0], file.row_start, first, row_ids, content, projections)
    return Entries(row_ids, content, projections.view(np.int8), bounds)


def read_cell_counts(layout: CellLayout) -> np.ndarray:
    """Return how many entries each cell has: int64, shape (cells,).

    Raises
    ------
    DamagedError
    """
    counts = np.zeros(layout.cells, np.int64)
    for file in layout.entry_files:
        counts += np.diff(_read_offsets(layout, file, 0, layout.cells))
    return counts


def plan_merges(files: Sequence[EntryFile], folder: AnyPath, most: int = MOST_FILES) -> Merges:
    """Put neighbouring files together, as few as it takes: at most ``most`` in a group.

    So many groups as are wanted in the end, of nearly equal numbers of files: all workers have some
    to merge. Where that makes more than ``most``, they are merged again.

    Parameters
    ----------
    files : sequence of EntryFile
    folder : AnyPath
        Of the merged files.
    """
    count = max(min(most, len(files)), -(-len(files) // most))
    cuts = np.linspace(0, len(files), count + 1).round().astype(int)
    merges = Merges([], [])
    for number, (start, stop) in enumerate(pairwise(cuts.tolist())):
        group = list(files[start:stop])
        if len(group) > 1:
            paths = [str(folder / f"{kind}-{number:05d}.bin") for kind in ("entries", "offsets")]
            entries = sum(file.entries for file in group)
            one = EntryFile(paths[0], paths[1], group[0].row_start, group[-1].row_stop, entries)
            if one.row_stop - one.row_start > _MOST_ROWS:
                raise CapacityError(
                    f"{one.row_stop - one.row_start} rows in one file of entries; positions reach "
                    f"to {_MOST_ROWS}. A data set of so many rows is not supported."
                )
            merges.tasks.append((group, one))
            group = [one]
        merges.files.extend(group)
    return merges


def merge_entries(
    layout: CellLayout,
    files: Sequence[EntryFile],
    merged: EntryFile,
    merge_bytes: int = MERGE_BYTES,
) -> None:
    """Merge the entries of neighbouring files, range of cells by range of cells.

    Each range holds some ``merge_bytes`` of entries, or one cell. One file is open for reading at a
    time. Memory: the entries of a range twice, and the offsets of one file.

    Raises
    ------
    DamagedError
    """
    words = HEAD_WORDS + code_words(layout.kept)
    counts = np.zeros(layout.cells, np.int64)
    for file in files:
        counts += np.diff(_read_offsets(layout, file, 0, layout.cells))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    with writing_sealed(as_path(merged.path), _WORD, words) as out:
        for start, stop in _ranges(offsets, max(1, merge_bytes // (4 * words))):
            own_offsets = [_read_offsets(layout, file, start, stop) for file in files]
            bounds, positions = _positions(own_offsets)
            together = np.empty((bounds[-1], words), np.uint32)
            for file, own, first in zip(files, own_offsets, positions, strict=True):
                piece = _read_piece(file, own, words)
                shift = file.row_start - merged.row_start
                _copy_entries(piece, own - own[0], shift, first, together)
            out.add(together)
    write_sealed(as_path(merged.offsets_path), offsets)


def _ranges(offsets: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Cut the cells into ranges of at most so many entries, or of one cell."""
    cuts = [0]
    while cuts[-1] < len(offsets) - 1:
        stop = int(np.searchsorted(offsets, offsets[cuts[-1]] + most, "right")) - 1
        cuts.append(max(stop, cuts[-1] + 1))
    return list(pairwise(cuts))


def _positions(own_offsets: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return where each cell begins, and where in it the entries of each file do."""
    position = np.zeros(len(own_offsets[0]) - 1, np.int64)
    positions = []
    for own in own_offsets:
        positions.append(position.copy())
        position += np.diff(own)
    bounds = np.concatenate([[0], np.cumsum(position)])
    for first in positions:
        first += bounds[:-1]
    return bounds, positions


def _read_offsets(layout: CellLayout, file: EntryFile, start: int, stop: int) -> np.ndarray:
    """Read where the cells from ``start`` to ``stop`` begin in a file, the last one's end too."""
    path = as_path(file.offsets_path)
    offsets = read_sealed(path, _OFFSET, 1, start, stop - start + 1, layout.cells + 1)[:, 0]
    ends = (start > 0 or offsets[0] == 0) and (stop < layout.cells or offsets[-1] == file.entries)
    if not ends or offsets[0] < 0 or offsets[-1] > file.entries or (np.diff(offsets) < 0).any():
        raise DamagedError(f"{path}: does not fit the {file.entries} entries beside it.", str(path))
    return offsets


def _read_piece(file: EntryFile, own: np.ndarray, words: int) -> np.ndarray:
    """Read the entries of some cells, as they lie in a file."""
    start, count = int(own[0]), int(own[-1] - own[0])
    return read_sealed(as_path(file.path), _WORD, words, start, count, file.entries)


@numba.njit(cache=True, nogil=True)
def _copy_cells(
    piece: np.ndarray,
    offsets: np.ndarray,
    row_start: int,
    position: np.ndarray,
    row_ids: np.ndarray,
    content: np.ndarray,
    projections: np.ndarray,
) -> None:
    """Copy the entries of each cell of one file's piece to where they belong."""
    for cell in range(len(position)):
        target = position[cell]
        for source in range(offsets[cell], offsets[cell + 1]):
            row_ids[target] = row_start + np.int64(piece[source, 0])
            content[target] = piece[source, 1]
            for k in range(projections.shape[1]):
                projections[target, k] = piece[source, 2 + k]
            target += 1


@numba.njit(cache=True, nogil=True)
def _copy_entries(
    piece: np.ndarray, offsets: np.ndarray, shift: int, position: np.ndarray, merged: np.ndarray
) -> None:
    """Copy whole entries of each cell, their positions counted from another row."""
    for cell in range(len(position)):
        target = position[cell]
        for source in range(offsets[cell], offsets[cell + 1]):
            merged[target, 0] = np.uint32(np.int64(piece[source, 0]) + shift)
            for k in range(1, merged.shape[1]):
                merged[target, k] = piece[source, k]
            target += 1
