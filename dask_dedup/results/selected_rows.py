"""The rows of an export: which files they go into, and reading them from the clusters.

A task writes some files one after the other; each holds the selected rows of some pieces of parts,
in the order of the data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from dask_dedup.data.metadata import take_rows
from dask_dedup.data.metadata_notes import file_notes
from dask_dedup.data.parts import Part
from dask_dedup.errors import DamagedError
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.results.finished_run import open_table
from dask_dedup.results.kept_rows import kept_columns, needed_columns, select_rows
from dask_dedup.results.sorted_files import read_sorted, write_sorted
from dask_dedup.storage.checksums import damage

__all__ = [
    "COUNT",
    "Choice",
    "OutFile",
    "Piece",
    "PieceReader",
    "Selected",
    "count_selected",
    "count_witnesses",
    "cut_files",
    "read_selected",
    "renamed",
]

COUNT = "duplicate_count"
_ROW, _CLUSTER, _KEPT = "row_id", "cluster_id", "is_kept"
_WITNESS, _SIMILARITY = "witness_row_id", "witness_similarity"


@dataclass(frozen=True)
class Choice:
    """What is exported of each part.

    Attributes
    ----------
    what : str
        ``kept``, ``dropped`` or ``all`` rows.
    columns : tuple of str
        The user's columns, as the clusters call them.
    names : mapping
        For each of them what it is called in the export.
    counts : tuple of str, optional
        Files from `count_witnesses`; None: without ``duplicate_count``.
    """

    what: str
    columns: tuple[str, ...]
    names: Mapping[str, str]
    counts: tuple[str, ...] | None = None


class Piece(NamedTuple):
    """Some of the selected rows of one part: the ``first`` to before ``stop``; None: to the end."""

    clusters: str
    part: Part | None
    first: int = 0
    stop: int | None = None


class OutFile(NamedTuple):
    """One file of an export; ``names`` by folder."""

    names: Mapping[str, str]
    pieces: tuple[Piece, ...]


class Selected(NamedTuple):
    """Selected rows of a part: their positions in it, and their columns, ours first."""

    positions: np.ndarray
    table: pa.Table

    def cut(self, piece: Piece) -> Selected:
        """Return those of a piece."""
        rows = slice(piece.first, piece.stop)
        stop = len(self.positions) if piece.stop is None else piece.stop
        return Selected(self.positions[rows], self.table.slice(piece.first, stop - piece.first))


def count_selected(path: str, what: str) -> dict[str, int]:
    """Return how many rows of a part are selected, and how many it has: JSON."""
    with open_table(path) as file, damage(path):
        table = file.read(needed_columns(file.schema_arrow.names))
    return {
        "rows": table.num_rows,
        "selected": len(select_rows(kept_columns(table).is_kept, what)),
    }


def count_witnesses(paths: Sequence[str], path: AnyPath) -> dict[str, Any]:
    """Count for how many rows of some parts each row stays that is the witness of any.

    Holds 16 bytes for each such row. Writes ``row_id`` and ``rows``, sorted.
    """
    ids, counts, rows = np.empty(0, np.int64), np.empty(0, np.int64), 0
    for one in paths:
        with open_table(one) as file, damage(one):
            table = file.read(needed_columns(file.schema_arrow.names))
        kept = kept_columns(table)
        rows += table.num_rows
        found, own = np.unique(kept.witness_row_id.drop_null(), return_counts=True)
        merged, place = np.unique(np.concatenate([ids, found]), return_inverse=True)
        summed = np.bincount(place, np.concatenate([counts, own]), len(merged))
        ids, counts = merged.astype(np.int64), summed.astype(np.int64)
    write_sorted(pa.table({_ROW: ids, "rows": counts}), path)
    return {"rows": rows, "file": path.name}


def _count_own(row_ids: np.ndarray, paths: Sequence[str]) -> np.ndarray:
    """Return for how many rows each of neighbouring rows stays, itself included."""
    counts = np.ones(len(row_ids), np.int64)
    if len(row_ids):
        start = int(row_ids[0])
        table = read_sorted(map(as_path, paths), start, start + len(row_ids))
        if table is not None:
            np.add.at(counts, table[_ROW].to_numpy() - start, table["rows"].to_numpy())
    return counts


def read_selected(path: str, choice: Choice) -> Selected:
    """Read the selected rows of a part: holds the chosen columns of the whole part meanwhile.

    Raises
    ------
    DamagedError
    """
    with open_table(path) as file, damage(path):
        names = file.schema_arrow.names
        own = [_ROW, _CLUSTER, *needed_columns(names)]
        # A name with a dot would be taken for a path into a struct.
        wanted = list(dict.fromkeys([*own, *choice.columns]))
        table = file.read(None if any("." in name for name in wanted) else wanted).select(wanted)
    kept = kept_columns(table)
    positions = select_rows(kept.is_kept, choice.what)
    columns: dict[str, pa.Array] = {_ROW: table[_ROW], _CLUSTER: table[_CLUSTER]}
    if choice.what == "all":
        columns[_KEPT] = pa.array(kept.is_kept)
    if choice.what != "dropped" and choice.counts is not None:
        counts = _count_own(table[_ROW].to_numpy(), choice.counts)
        columns[COUNT] = pa.array(counts, mask=~kept.is_kept)
    if choice.what != "kept":
        columns[_WITNESS], columns[_SIMILARITY] = kept.witness_row_id, kept.witness_similarity
    theirs = renamed(table.select(list(choice.columns)), choice.names, [*columns])
    fields = [pa.field(name, array.type) for name, array in columns.items()]
    joined = pa.Table.from_arrays(
        [*columns.values(), *theirs.columns],
        schema=pa.schema([*fields, *theirs.schema], theirs.schema.metadata),
    )
    whole = len(positions) == table.num_rows
    taken = joined if whole else take_rows(joined, pa.array(positions))
    if taken.num_rows != len(positions):
        raise DamagedError(f"{path}: {taken.num_rows} rows, {len(positions)} expected.", path)
    return Selected(positions, taken)


class PieceReader:
    """Reads pieces in their order; keeps the part that was read last."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._path = ""
        self._selected: Selected | None = None

    def read(self, piece: Piece) -> Selected:
        """Return the selected rows of a piece."""
        if self._selected is None or self._path != piece.clusters:
            self._selected = None  # one at a time
            self._selected = read_selected(piece.clusters, self._choice)
            self._path = piece.clusters
        return self._selected.cut(piece)


def renamed(table: pa.Table, names: Mapping[str, str], taken: Sequence[str]) -> pa.Table:
    """Return a table with other names of columns, and notes that say the same of them.

    A name that is ``taken`` gets the prefix ``source_``.
    """
    used, new = set(taken), {}
    for name in table.column_names:
        wanted = names.get(name, name)
        while wanted in used:
            wanted = f"source_{wanted}"
        used.add(wanted)
        new[name] = wanted
    notes = file_notes(table.schema.metadata, new, ())
    fields = [field.with_name(new[field.name]) for field in table.schema]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields, notes or None))


def cut_files(
    parts: Sequence[tuple[str, Part | None]],
    names: Sequence[Mapping[str, str]],
    counts: Sequence[int] | None = None,
    shard_rows: int | None = None,
    shard_names: Mapping[str, str] | None = None,
) -> list[list[OutFile]]:
    """Cut the selected rows into files, and the files into tasks.

    Parameters
    ----------
    parts : sequence of (str, Part or None)
        The clusters of each part that has rows.
    names : sequence of mapping
        Of each part's file, by folder, where files are parts.
    counts : sequence of int, optional
        Selected rows of each part; needed with ``shard_rows``. If they are known, no file is
        without rows, unless all would be: readers take the types of a CSV file from its first rows.
    shard_rows : int, optional
        Rows of a file; the last one has what is left.
    shard_names : mapping, optional
        Format of the names, by folder: ``{"metadata": "metadata_{:05d}.parquet"}``.

    Returns
    -------
    list of list of OutFile
        Neighbouring small files make one task, so that each part is read by about one task.
    """
    if shard_rows is None and counts is not None:
        filled = [i for i, count in enumerate(counts) if count] or [0]
        parts, names = [parts[i] for i in filled], [names[i] for i in filled]
    if shard_rows is None:
        return [[OutFile(own, (Piece(*part),))] for part, own in zip(parts, names, strict=True)]
    assert counts is not None
    assert shard_names is not None
    files: list[list[Piece]] = []
    room = 0
    for (clusters, part), count in zip(parts, counts, strict=True):
        first = 0
        while first < count:
            if not room:
                files.append([])
                room = shard_rows
            stop = min(count, first + room)
            files[-1].append(Piece(clusters, part, first, stop))
            room -= stop - first
            first = stop
    tasks: list[list[OutFile]] = []
    held, most = 0, max([shard_rows, *counts])
    empty = [Piece(*parts[0], 0, 0)]
    for i, pieces in enumerate(files or [empty]):
        own = {folder: text.format(i) for folder, text in shard_names.items()}
        rows = sum((piece.stop or 0) - piece.first for piece in pieces)
        if not tasks or held + rows > most:
            tasks.append([])
            held = 0
        tasks[-1].append(OutFile(own, tuple(pieces)))
        held += rows
    return tasks
