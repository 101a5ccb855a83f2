"""Merging forests that do not fit into memory together: band by band, through a dense array.

1. The headers of the files say between which similarities and rows each row group lies.
2. A histogram of all similarities cuts the forest's order (falling similarity, then ``src``, then
   ``dst``) into bands of a bounded number of edges. Too many edges of one similarity are cut by
   ``src``, too many of one ``src`` by ``dst``.
3. Each band is gathered from the row groups that reach into it, one open file at a time, sorted,
   and joined through one array with the parent of each row; what joins two trees is written.

That is Kruskal's algorithm in the order of `dask_dedup.graph.forest`: the same forest, bit by bit,
with the parent array and one band in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.errors import InputError
from dask_dedup.graph.choice import BAND_EDGES, row_bytes
from dask_dedup.graph.edge_order import edge_order, falling_key, similarity_of
from dask_dedup.graph.forest import _join_trees
from dask_dedup.paths import AnyPath
from dask_dedup.storage.checksums import damage
from dask_dedup.storage.files import write_aside
from dask_dedup.storage.objects import open_parquet_source

__all__ = [
    "count_edges",
    "dense_parent",
    "edges_between",
    "join_edges",
    "read_edges",
    "read_in_order",
    "read_weighted_edges",
    "stream_merge",
]

_BINS = 1 << 20
_BATCH_EDGES = 1 << 17  # read at once
_GROUP_EDGES = 1 << 20  # written at once
_READ_EDGES = 1 << 22  # read in order at once: 250 MB

_SCHEMA = pa.schema([("src", pa.int64()), ("dst", pa.int64()), ("similarity", pa.float32())])
_ORDER = ("similarity", "src", "dst")  # the forest's order: three coordinates of each edge


def stream_merge(
    paths: Sequence[AnyPath],
    rows: int,
    out_path: AnyPath,
    notes: Mapping[str, str] | None = None,
    *,
    band_edges: int = BAND_EDGES,
    bins: int = _BINS,
) -> dict[str, int]:
    """Merge forest files to the maximum spanning forest of them all.

    Parameters
    ----------
    paths : sequence of AnyPath
        FOREST in parquet files, as `dask_dedup.storage.files.write_frame` writes them. Their
        edges may be in any order; in the forest's order, few row groups reach into a band.
    rows : int
        Rows of the data set: every id is below.
    out_path : AnyPath
        FOREST, what `dask_dedup.graph.forest.merge_forests` would return: complete or absent.
    notes : mapping, optional
        Metadata of the file's schema.
    band_edges : int
        Edges that are held at once. Only copies of one and the same edge can be more.
    bins : int
        Of the histogram that cuts them.

    Returns
    -------
    dict
        "edges" written, "edges_read" and "bands".

    Raises
    ------
    InputError
        Where a file is no FOREST of these rows.
    """
    groups = _survey(paths, rows)
    parent = dense_parent(rows)
    schema = _SCHEMA.with_metadata(dict(notes) if notes else None)
    counts = {"edges": 0, "edges_read": int(groups.edges.sum()), "bands": 0}
    with (
        write_aside(out_path, durable=True) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for band in _bands(groups, groups.whole(), band_edges, bins):
            key, src, dst = _read_band(groups, band, parent.dtype)
            order = edge_order(key, src, dst)
            kept = order[join_edges(parent, src, dst, order)]
            for some in np.split(kept, range(_GROUP_EDGES, len(kept), _GROUP_EDGES)):
                columns = src[some], dst[some], similarity_of(key[some])
                arrays = [pa.array(*pair) for pair in zip(columns, _SCHEMA.types, strict=True)]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            counts["edges"] += len(kept)
            counts["bands"] += 1
    return counts


def count_edges(path: AnyPath) -> tuple[int, int]:
    """Return how many edges a forest file has, and the rows that it reaches into, by its headers.

    The latter is the highest row with an edge, and one; 0 without edges.
    """
    groups = _survey([path], np.iinfo(np.int64).max)
    return int(groups.edges.sum()), int(groups.high[:, 2].max(initial=-1)) + 1


def read_edges(
    path: AnyPath, rows: int, threshold: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ``src`` and ``dst`` of a forest file's edges at or above a threshold, piece by piece.

    Parameters
    ----------
    path : AnyPath
        FOREST in a parquet file.
    rows : int
        Rows of the data set: every id is below.
    threshold : float
        Cosine; compared as float32, "at least".
    """
    for src, dst, _ in read_weighted_edges(path, rows, threshold):
        yield src, dst


def read_weighted_edges(
    path: AnyPath, rows: int, threshold: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield ``src``, ``dst`` and ``similarity`` (float32) as `read_edges` yields the first two."""
    lowest = np.float32(threshold)
    last = falling_key(np.array([lowest if lowest else np.float32(-0.0)]))[0]  # -0 is at least 0
    for key, src, dst in _survey([path], rows).read((), 0, int(last), columns=3):
        yield src, dst, similarity_of(key)


def edges_between(
    path: AnyPath, rows: int, low: float, high: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield ``src``, ``dst`` and ``similarity`` of a forest file's edges between two similarities.

    Both are included, as float32. Of the file, the row groups that can hold any are read.
    """
    last, first = falling_key(np.array([low, high], np.float32)).tolist()
    for key, src, dst in _survey([path], rows).read((), first, last, columns=3):
        yield src, dst, similarity_of(key)


def read_in_order(
    path: AnyPath, band_edges: int = _READ_EDGES
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield a forest file's edges in the forest's order, whatever theirs in the file.

    Parameters
    ----------
    path : AnyPath
        FOREST in a parquet file.
    band_edges : int
        Edges that are held at once.

    Yields
    ------
    tuple of arrays
        ``similarity`` float32, ``src`` and ``dst`` int64, of neighbouring edges: never empty.
    """
    groups = _survey([path], np.iinfo(np.int64).max)
    if not len(groups.edges):
        return
    for band in _bands(groups, groups.whole(), band_edges, _BINS):
        key, src, dst = _read_band(groups, band, np.dtype(np.int64))
        order = edge_order(key, src, dst)
        yield similarity_of(key[order]), src[order], dst[order]


def dense_parent(rows: int) -> np.ndarray:
    """Return a forest of single rows, each its own parent: uint32, int64 past 2**32 rows."""
    return np.arange(rows, dtype=np.uint32 if row_bytes(rows) == 4 else np.int64)


def join_edges(
    parent: np.ndarray, src: np.ndarray, dst: np.ndarray, order: np.ndarray | None = None
) -> np.ndarray:
    """Return which of the edges, in this order, join two trees; ``parent`` is changed.

    A root is the smallest row of its tree, and no parent is larger than its child.
    """
    return _join_trees(parent, src, dst, np.arange(len(src)) if order is None else order)


class _Band(NamedTuple):
    """Edges whose first coordinates are ``fixed``, and the next is from ``first`` to ``last``."""

    fixed: tuple[int, ...]
    first: int
    last: int
    edges: int


@dataclass(frozen=True)
class _Groups:
    """The row groups of all files, in their order: int64 arrays, shapes (groups,), (groups, 3)."""

    paths: Sequence[AnyPath]
    rows: int
    file: np.ndarray  # which of the paths
    number: np.ndarray  # which row group of it
    edges: np.ndarray  # its length
    low: np.ndarray  # limits of the coordinates: falling key of the similarity, src, dst
    high: np.ndarray

    def limits(self, fixed: tuple[int, ...]) -> tuple[int, int]:
        """Return between what the next coordinate of such edges can lie."""
        some = self._reaching(fixed, fixed)
        low, high = self.low[some, len(fixed)], self.high[some, len(fixed)]
        return int(low.min(initial=np.iinfo(np.int64).max)), int(high.max(initial=0))

    def whole(self) -> _Band:
        """Return the band of all edges."""
        return _Band((), *self.limits(()), int(self.edges.sum()))

    def read(
        self, fixed: tuple[int, ...], first: int, last: int, columns: int
    ) -> Iterator[list[np.ndarray]]:
        """Yield the first coordinates of the edges of a band, piece by piece."""
        some = self._reaching((*fixed, first), (*fixed, last))
        of_a_file = np.split(some, np.flatnonzero(np.diff(self.file[some])) + 1)
        for chosen in of_a_file if len(some) else []:
            path = self.paths[self.file[chosen[0]]]
            with damage(path), _open(path) as file:
                for batch in file.iter_batches(
                    _BATCH_EDGES,
                    self.number[chosen].tolist(),
                    list(_ORDER[:columns]),
                    use_threads=False,
                ):
                    coordinates = _coordinates(path, batch, self.rows)
                    tested = coordinates[len(fixed)]
                    inside = (tested >= first) & (tested <= last)
                    for values, value in zip(coordinates, fixed, strict=False):
                        inside &= values == value
                    yield [values[inside] for values in coordinates]

    def _reaching(self, low: tuple[int, ...], high: tuple[int, ...]) -> np.ndarray:
        """Return which row groups can have edges with coordinates between these."""
        reaching = (self.low[:, : len(low)] <= high) & (self.high[:, : len(low)] >= low)
        return np.flatnonzero(reaching.all(axis=1))


def _survey(paths: Sequence[AnyPath], rows: int) -> _Groups:
    """Read the headers of all files."""
    found = []
    for i, path in enumerate(paths):
        with damage(path), _open(path) as file:
            types = {field.name: field.type for field in file.schema_arrow}
            if any(types.get(field.name) != field.type for field in _SCHEMA):
                expected, got = (str(one).split("\n") for one in (_SCHEMA, file.schema_arrow))
                raise InputError(f"{path}: expected a forest with columns {expected}, got {got}.")
            for number in range(file.num_row_groups):
                edges = file.metadata.row_group(number).num_rows
                if edges:
                    low, high = zip(*_group_limits(path, file, number, rows), strict=True)
                    found.append((i, number, edges, *low, *high))
    table = np.array(found, dtype=np.int64).reshape(-1, 9)
    file_of, number_of, edges_of = table[:, :3].T
    return _Groups(paths, rows, file_of, number_of, edges_of, table[:, 3:6], table[:, 6:])


def _open(path: AnyPath) -> pq.ParquetFile:
    """Open a forest file; a buffer before it would hold all of it."""
    return pq.ParquetFile(
        open_parquet_source(path), pre_buffer=False, page_checksum_verification=True
    )


def _group_limits(path: AnyPath, file: Any, number: int, rows: int) -> list[tuple[int, int]]:
    """Return the lowest and the highest of each coordinate of a row group."""
    header = file.metadata.row_group(number)
    columns = {header.column(i).path_in_schema: i for i in range(header.num_columns)}
    statistics = [header.column(columns[name]).statistics for name in _ORDER]
    if all(one is not None and one.has_min_max for one in statistics):
        similarity, src, dst = statistics
        ends = np.array([similarity.max, similarity.min], np.float32)
        return [tuple(falling_key(ends).tolist()), (src.min, src.max), (dst.min, dst.max)]
    values = _coordinates(path, file.read_row_group(number, list(_ORDER)), rows)
    return [(int(some.min()), int(some.max())) for some in values]


def _coordinates(path: AnyPath, batch: Any, rows: int) -> list[np.ndarray]:
    """Return what the forest's order goes by, of the columns that were read, in this order."""
    columns = [batch.column(name) for name in _ORDER if name in batch.schema.names]
    if any(column.null_count for column in columns):
        raise InputError(f"{path}: expected every edge to be whole, found missing values.")
    similarity, *ends = (column.to_numpy() for column in columns)
    if np.isnan(similarity).any():
        raise InputError(f"{path}: expected a similarity for every edge, found NaN.")
    if len(ends) == 2 and len(similarity):
        src, dst = ends
        if src.min() < 0 or dst.max() >= rows or not (src < dst).all():
            raise InputError(
                f"{path}: expected edges with 0 <= src < dst < {rows:,}, found src from "
                f"{src.min():,} and dst up to {dst.max():,}. The forest is of other rows."
            )
    return [falling_key(similarity), *ends]


def _bands(groups: _Groups, whole: _Band, band_edges: int, bins: int) -> Iterator[_Band]:
    """Cut a band, by a histogram of the coordinate, into bands of at most so many edges."""
    fixed, first, last, edges = whole
    if edges <= band_edges or (len(fixed) == 2 and first == last):  # the latter: copies of one edge
        yield whole
        return
    if first == last:
        fixed = (*fixed, first)
        first, last = groups.limits(fixed)
    width = -(-(last - first + 1) // bins)
    counts = np.zeros(-(-(last - first + 1) // width), np.int64)
    for coordinates in groups.read(fixed, first, last, columns=len(fixed) + 1):
        _count(counts, coordinates[-1], first, width)
    assert counts.sum() == edges, f"{edges} edges became {counts.sum()} when they were counted"
    for start, stop, some in _cut(counts, band_edges):
        low, high = first + start * width, min(last, first + stop * width - 1)
        yield from _bands(groups, _Band(fixed, low, high, some), band_edges, bins)


def _cut(counts: np.ndarray, most: int) -> Iterator[tuple[int, int, int]]:
    """Yield runs of bins that hold at most so many, or one bin, and what they hold: not nothing."""
    total = np.concatenate([[0], np.cumsum(counts)])
    start = 0
    while start < len(counts):
        stop = max(int(np.searchsorted(total, total[start] + most, "right")) - 1, start + 1)
        if total[stop] > total[start]:
            yield start, stop, int(total[stop] - total[start])
        start = stop


def _read_band(
    groups: _Groups, band: _Band, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gather a band: falling keys, ``src`` and ``dst``."""
    arrays = np.empty(band.edges, np.uint32), *np.empty((2, band.edges), dtype)
    filled = 0
    for piece in groups.read(band.fixed, band.first, band.last, columns=3):
        stop = filled + len(piece[0])
        for array, values in zip(arrays, piece, strict=True):
            array[filled:stop] = values
        filled = stop
    assert filled == band.edges, f"{band} became {filled} edges when it was read"
    return arrays


@numba.njit(cache=True, nogil=True)
def _count(counts: np.ndarray, values: np.ndarray, first: int, width: int) -> None:
    """Count values in bins of so many numbers; ``counts`` is changed."""
    for i in range(len(values)):
        counts[(np.int64(values[i]) - first) // width] += 1
