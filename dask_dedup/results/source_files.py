"""Files of somebody's copy of the data, read for their keys and written again with fewer rows."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from dask_dedup.data.metadata import take_rows
from dask_dedup.data.parts import one_line
from dask_dedup.errors import UnreadableError
from dask_dedup.paths import as_path
from dask_dedup.results.row_keys import key_texts
from dask_dedup.storage.objects import local_copy, open_parquet_source, size_of

__all__ = ["CSV_ENDINGS", "CsvFile", "ParquetFile", "SourceFile", "open_source", "refuse_packed"]

CSV_ENDINGS = (".csv", ".tsv")
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")
_CSV_BLOCK = 16 << 20
_WRITE_ROWS = 1 << 16  # read and written at a time
_CSV_ROW_BYTES = 64  # guessed, where rows are not counted yet


class SourceFile(Protocol):
    """A file whose rows have keys."""

    @property
    def path(self) -> str:
        """Where it lies."""

    def about_rows(self) -> int:
        """Return how many rows it has, or about as many."""

    def keys(self, rows: int) -> Iterator[pa.Array]:
        """Yield the keys in batches of at most so many rows; null where a row has none."""

    def write(self, is_kept: np.ndarray, target: Path) -> None:
        """Write the file again with the rows that are kept."""


@dataclass(frozen=True)
class ParquetFile:
    """A parquet file.

    Attributes
    ----------
    path : str
    key : tuple of str
        Columns.
    """

    path: str
    key: tuple[str, ...]

    def about_rows(self) -> int:
        """Return how many rows it has."""
        with _open(self.path) as file:
            return int(file.metadata.num_rows)

    def columns(self) -> list[str]:
        """Return the names of its columns."""
        with _open(self.path) as file:
            return list(file.schema_arrow.names)

    def key_types(self) -> list[pa.DataType | None]:
        """Return the types of the columns of the key."""
        with _open(self.path) as file:
            return [file.schema_arrow.field(name).type for name in self.key]

    def keys(self, rows: int) -> Iterator[pa.Array]:
        """Yield the keys in batches."""
        with _open(self.path) as file, _reading(self.path):
            wanted = None if any("." in name for name in self.key) else list(self.key)
            for batch in file.iter_batches(rows, columns=wanted):
                yield key_texts([batch.column(name) for name in self.key])

    def write(self, is_kept: np.ndarray, target: Path) -> None:
        """Write the file again with its schema and notes."""
        done = 0
        with _open(self.path) as file, _reading(self.path):
            with pq.ParquetWriter(target, file.schema_arrow, compression="zstd") as out:
                for batch in file.iter_batches(_WRITE_ROWS):
                    own = np.flatnonzero(is_kept[done : done + batch.num_rows])
                    if len(own):
                        table = pa.Table.from_batches([batch])
                        whole = len(own) == batch.num_rows
                        out.write_table(table if whole else take_rows(table, pa.array(own)))
                    done += batch.num_rows
            _check_rows(self.path, done, len(is_kept))


@dataclass(frozen=True)
class CsvFile:
    """A CSV file with a header, in UTF-8; ``.tsv`` with tabs.

    Values are text, and stay as they are.

    Attributes
    ----------
    path : str
    key : tuple of str
        Columns.
    """

    path: str
    key: tuple[str, ...]

    def about_rows(self) -> int:
        """Return about how many rows it has."""
        return size_of(self.path) // _CSV_ROW_BYTES

    def columns(self) -> list[str]:
        """Return the names of its columns."""
        with _reading(self.path), pcsv.open_csv(local_copy(self.path), **self._options()) as file:
            return list(file.schema.names)

    def key_types(self) -> list[pa.DataType | None]:
        """Return None for each column of the key: its values are text, whatever they mean."""
        return [None] * len(self.key)

    def keys(self, rows: int) -> Iterator[pa.Array]:
        """Yield the keys in batches, once it is known that the quotes are right."""
        self._check_quotes()
        for batch in self._batches():
            for start in range(0, batch.num_rows, rows):
                own = batch.slice(start, rows)
                yield key_texts([own.column(name) for name in self.key])

    def write(self, is_kept: np.ndarray, target: Path) -> None:
        """Write the file again."""
        done = 0
        options = pcsv.WriteOptions(delimiter=self._delimiter, quoting_style="needed")
        schema = pa.schema([(name, pa.string()) for name in self.columns()])
        with pcsv.CSVWriter(str(target), schema, write_options=options) as out:
            for batch in self._batches():
                own = is_kept[done : done + batch.num_rows]
                out.write_table(pa.Table.from_batches([batch.filter(pa.array(own))]))
                done += batch.num_rows
        _check_rows(self.path, done, len(is_kept))

    def _check_quotes(self) -> None:
        """Raise where a quoted value goes on behind its quote, or never ends.

        Arrow reads on to the next quote, and makes many rows one; Python's reader can be strict.
        """
        limit = csv.field_size_limit(4 * _CSV_BLOCK)
        try:
            with open(
                local_copy(self.path), encoding="utf-8-sig", errors="replace", newline=""
            ) as file:
                lines = csv.reader(file, delimiter=self._delimiter, strict=True)
                try:
                    deque(lines, maxlen=0)
                except csv.Error as error:
                    raise UnreadableError(
                        f"{self.path}: line {lines.line_num:,}: {error}: its quotes are not those "
                        f"of CSV (a value that begins with a quote ends with one, and quotes in it "
                        f"are doubled), so rows would run together. Write it with such quotes, or "
                        f"as parquet.",
                        self.path,
                    ) from error
        finally:
            csv.field_size_limit(limit)

    @property
    def _delimiter(self) -> str:
        return "\t" if self.path.lower().endswith(".tsv") else ","

    def _options(self, types: dict[str, pa.DataType] | None = None) -> dict[str, Any]:
        return {
            "read_options": pcsv.ReadOptions(block_size=_CSV_BLOCK),
            "parse_options": pcsv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
            # An empty value without quotes is null, one with quotes is none: so both come back.
            "convert_options": pcsv.ConvertOptions(
                column_types=types,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        }

    def _batches(self) -> Iterator[pa.RecordBatch]:
        types = {name: pa.string() for name in self.columns()}
        with (
            _reading(self.path),
            pcsv.open_csv(local_copy(self.path), **self._options(types)) as file,
        ):
            yield from file


def open_source(path: str, key: tuple[str, ...] = ()) -> ParquetFile | CsvFile:
    """Return a file by its ending, in capitals or not; any other than those of CSV is parquet."""
    kind = CsvFile if path.lower().endswith(CSV_ENDINGS) else ParquetFile
    return kind(path, key)


def refuse_packed(path: str) -> None:
    """Raise UnreadableError for a file that was compressed as a whole, by its name."""
    if path.lower().endswith(_PACKED):
        raise UnreadableError(
            f"{path}: is compressed as a whole. Taken are parquet files, and .csv and .tsv as they "
            f"are: unpack it.",
            path,
        )


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn what Arrow says of a file that it cannot read into UnreadableError."""
    try:
        yield
    except pa.ArrowException as error:
        raise UnreadableError(f"{path}: cannot be read ({one_line(error)}).", path) from error


@contextmanager
def _open(path: str) -> Iterator[pq.ParquetFile]:
    try:
        file = pq.ParquetFile(open_parquet_source(as_path(path)))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UnreadableError(f"{path}: cannot be read ({one_line(error)}).", path) from error
    with file:
        yield file


def _check_rows(path: str, found: int, expected: int) -> None:
    if found != expected:
        raise UnreadableError(
            f"{path}: {found:,} rows, but it had {expected:,} when its keys were read.", path
        )
