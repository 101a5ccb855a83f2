"""The files of ``OUT/clusters``, or of ``OUT/invalid``: which rows are in which, read by row.

Row ids run on from file to file, so the footers' row counts alone tell where a row is.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from dask_dedup.data.metadata import take_rows, to_pandas
from dask_dedup.data.metadata_types import PLAIN_TYPES
from dask_dedup.errors import DamagedError, InputError
from dask_dedup.paths import AnyPath
from dask_dedup.storage.checksums import damage
from dask_dedup.storage.listing import names_in
from dask_dedup.storage.objects import open_parquet_source

__all__ = ["ClusterFiles", "list_files", "read_partition", "text_equals", "to_frame"]

_THREADS = 16  # files that are looked at together, mostly waiting for a store
#: Columns of ours that have a type of numpy's in a data frame; the others keep Arrow's.
_NUMPY_COLUMNS = frozenset(
    {
        "row_id",
        "cluster_id",
        "cluster_size",
        "is_representative",
        "is_valid",
        "similarity_to_representative",
        "is_kept",
        "witness_similarity",
    }
)


@dataclass(frozen=True)
class ClusterFiles:
    """The files of one folder, in the order of their rows.

    Attributes
    ----------
    paths : tuple of str
        One file a part of the data set.
    starts : tuple of int
        First ``row_id`` of each file, and the number of rows of all behind them.
    schema : Schema
        Of the first file; all have the same columns.
    """

    paths: tuple[str, ...]
    starts: tuple[int, ...]
    schema: pa.Schema

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return self.starts[-1]

    @property
    def filled(self) -> list[int]:
        """Positions of the files that have rows."""
        return [i for i in range(len(self.paths)) if self.starts[i] < self.starts[i + 1]]

    @cached_property
    def own_columns(self) -> list[str]:
        """Names of our columns: they stand before the user's, of which ``url`` is the first."""
        names = self.schema.names
        return names[: names.index("url")]

    def file_of(self, row_id: int) -> int:
        """Return the position of the file that a row is in."""
        return bisect_right(self.starts, row_id) - 1

    def empty_table(self) -> pa.Table:
        """Return the columns without rows, also where Arrow's own way cannot."""
        arrays = [pa.nulls(0, field.type) for field in self.schema]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def find(
        self,
        wanted: ds.Expression,
        columns: Sequence[str],
        first: int = 0,
        stop: int | None = None,
        most: int | None = None,
    ) -> pa.Table:
        """Return the rows that a condition holds for, of the files from ``first`` to ``stop``.

        Row groups that cannot hold any, by the limits in their footers, are not read.

        Parameters
        ----------
        wanted : Expression
        columns : sequence of str
            What is read, and returned.
        first, stop : int
        most : int, optional
            How many rows there are; the search ends with the last of them.
        """
        schema = self.searched_schema
        found = [pa.schema([schema.field(name) for name in columns]).empty_table()]
        for table in self._each(wanted, columns, first, stop):
            found.append(table)
            if most is not None and sum(map(len, found)) >= most:
                break
        return pa.concat_tables(found)

    @cached_property
    def searched_schema(self) -> pa.Schema:
        """The columns as they are searched: filters know neither views nor dictionaries of text."""
        fields = []
        for field in self.schema:
            kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            fields.append(field.with_type(PLAIN_TYPES.get(kind, kind)))
        return pa.schema(fields)

    def _each(
        self, wanted: ds.Expression, columns: Sequence[str], first: int, stop: int | None
    ) -> Iterator[pa.Table]:
        schema = self.searched_schema
        last = len(self.paths) if stop is None else stop

        def search(path: str) -> pa.Table:
            with damage(path):
                return pq.read_table(
                    open_parquet_source(path),
                    columns=list(columns),
                    schema=schema,
                    filters=wanted,
                    use_threads=False,
                    pre_buffer=False,
                    page_checksum_verification=True,
                ).replace_schema_metadata(None)

        paths = [self.paths[i] for i in self.filled if i in range(first, last)]
        at_once = min(_THREADS, 4 * (os.cpu_count() or 1))
        with ThreadPoolExecutor(at_once) as pool:
            for start in range(0, len(paths), at_once):
                yield from pool.map(search, paths[start : start + at_once])

    def take(self, row_ids: np.ndarray) -> pa.Table:
        """Return all columns of some rows, in the order of their ids.

        Parameters
        ----------
        row_ids : int64 array
            Sorted, distinct.

        Notes
        -----
        Reads the row groups that hold one of them, one after the other.
        """
        found: list[pa.Table] = []
        for i, (start, stop) in enumerate(zip(self.starts, self.starts[1:], strict=False)):
            low, high = np.searchsorted(row_ids, [start, stop])
            if low < high:
                found += self._take_from(self.paths[i], row_ids[low:high] - start)
        return pa.concat_tables(found) if found else self.empty_table()

    def _take_from(self, path: str, positions: np.ndarray) -> Iterator[pa.Table]:
        with (
            damage(path),
            pq.ParquetFile(
                open_parquet_source(path), pre_buffer=False, page_checksum_verification=True
            ) as file,
        ):
            start = 0
            for number in range(file.num_row_groups):
                stop = start + file.metadata.row_group(number).num_rows
                low, high = np.searchsorted(positions, [start, stop])
                if low < high:
                    table = file.read_row_group(number, use_threads=False)
                    yield take_rows(table, pa.array(positions[low:high] - start))
                start = stop


def list_files(folder: AnyPath, rows: int | None = None) -> ClusterFiles:
    """List the files of a result folder, by their footers.

    Parameters
    ----------
    folder : AnyPath
        ``clusters`` or ``invalid`` of a finished run.
    rows : int, optional
        How many there have to be.

    Raises
    ------
    DamagedError
        There is no file, one cannot be read, or the rows are others.
    """
    names = [name for name in names_in(folder) or () if name.endswith(".parquet")]
    names.sort(key=lambda name: (len(name), name))  # past 99,999 they have a digit more
    if not names:
        raise DamagedError(f"{folder}: has no parquet files.", str(folder))
    paths = tuple(str(folder / name) for name in names)

    def look(path: str) -> tuple[int, pa.Schema]:
        with damage(path), pq.ParquetFile(open_parquet_source(path), pre_buffer=False) as file:
            return file.metadata.num_rows, file.schema_arrow

    with ThreadPoolExecutor(_THREADS) as pool:
        counts, schemas = zip(*pool.map(look, paths), strict=True)
    starts = (0, *np.cumsum(counts).tolist())
    if rows is not None and starts[-1] != rows:
        raise DamagedError(
            f"{folder}: its files have {starts[-1]:,} rows, and the run had {rows:,}.", str(folder)
        )
    return ClusterFiles(paths, starts, schemas[0])


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Turn rows of results into pandas: our columns with numpy's types, the user's with Arrow's.

    Of ours, ``witness_row_id`` keeps Arrow's, too: int64 with nulls.
    """
    names = table.column_names
    plain = [i for i, name in enumerate(names) if name in _NUMPY_COLUMNS]
    other = [i for i, name in enumerate(names) if name not in _NUMPY_COLUMNS]
    frames = [
        table.select(plain).to_pandas(ignore_metadata=True),
        to_pandas(table.select(other)),
    ]
    return pd.concat(frames, axis=1).iloc[:, np.argsort([*plain, *other])]


def read_partition(path: str, columns: Sequence[str]) -> pd.DataFrame:
    """Return some columns of one file, indexed by ``row_id``.

    Dask passes the ``columns`` that are wanted: also where none are.
    """
    with (
        damage(path),
        pq.ParquetFile(open_parquet_source(path), page_checksum_verification=True) as file,
    ):
        names = file.schema_arrow.names
        wanted = ["row_id", *columns]
        is_nested = any("." in name for name in wanted)  # parquet would take it for a path
        table = file.read(None if is_nested else [name for name in names if name in wanted])
    return to_frame(table.select(wanted)).set_index("row_id")


def text_equals(files: ClusterFiles, name: str, text: str) -> ds.Expression:
    """Return the condition, for `ClusterFiles.find`, that a column holds a text.

    Raises
    ------
    InputError
        The column cannot hold one.
    """
    kind = files.searched_schema.field(name).type
    if pa.types.is_null(kind):
        return pc.scalar(False)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(f"column {name!r} is {kind}, in which no text can be sought.")
    return pc.field(name) == pa.scalar(text, kind)
