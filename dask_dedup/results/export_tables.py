"""Exported rows as tables: parquet, CSV, ids alone, and the list that img2dataset downloads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from dask_dedup.data.metadata import take_rows
from dask_dedup.data.metadata_types import is_bytes
from dask_dedup.data.readable_text import readable
from dask_dedup.paths import AnyPath
from dask_dedup.results.selected_rows import Choice, OutFile, PieceReader
from dask_dedup.storage.files import write_aside

__all__ = ["ENDINGS", "ParquetOut", "write_tables"]

#: Formats of this module, and the endings of their files.
ENDINGS = {"parquet": ".parquet", "csv": ".csv", "ids": ".npy", "img2dataset": ".parquet"}
_URL, _ROW = "url", "row_id"
_GROUP_ROWS = 1 << 17  # of a row group


def write_tables(
    files: Sequence[OutFile], folder: AnyPath, kind: str, choice: Choice
) -> dict[str, int]:
    """Write some files of an export, one after the other.

    Parameters
    ----------
    files : sequence of OutFile
    folder : AnyPath
        Of the files.
    kind : str
        One of `ENDINGS`.
    choice : Choice

    Returns
    -------
    dict
        ``rows`` written; ``without_url``: for img2dataset, rows that cannot be downloaded, and are
        left out. JSON.
    """
    reader = PieceReader(choice)
    rows = without_url = 0
    for file in files:
        with ExitStack() as stack:
            temporary = stack.enter_context(write_aside(folder / file.names[kind], durable=True))
            out = stack.enter_context(_OUTS[kind](temporary))
            for piece in file.pieces:
                table = reader.read(piece).table
                if kind == "img2dataset":
                    there = np.flatnonzero(np.asarray(pc.is_valid(table[_URL])))
                    without_url += table.num_rows - len(there)
                    if len(there) < table.num_rows:
                        table = take_rows(table, pa.array(there))
                out.write(table)
                rows += table.num_rows
    return {"rows": rows, "without_url": without_url}


class ParquetOut:
    """A parquet file that takes tables, with the notes of the first one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        """Append a table; the first one sets the schema, and later ones have the same types."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._path, table.schema, compression="zstd", write_page_checksum=True
            )
        if table.schema != self._writer.schema:  # other notes
            table = pa.Table.from_arrays(table.columns, schema=self._writer.schema)
        if table.num_rows:
            self._writer.write_table(table, row_group_size=_GROUP_ROWS)

    def __enter__(self) -> ParquetOut:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()


class _CsvOut:
    """A CSV file: nested values and bytes as JSON, bytes in hexadecimal digits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pcsv.CSVWriter | None = None

    def write(self, table: pa.Table) -> None:
        """Append a table."""
        plain = pa.table({name: _plain(table[name]) for name in table.column_names})
        if self._writer is None:
            self._writer = pcsv.CSVWriter(str(self._path), plain.schema)
        self._writer.write_table(plain)

    def __enter__(self) -> _CsvOut:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()


class _IdsOut:
    """A ``.npy`` file of the row ids: int64."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids: list[np.ndarray] = []

    def write(self, table: pa.Table) -> None:
        """Append the ids of a table."""
        self._ids.append(table[_ROW].to_numpy())

    def __enter__(self) -> _IdsOut:
        return self

    def __exit__(self, *_: object) -> None:
        with open(self._path, "wb") as file:
            np.save(file, np.concatenate([np.empty(0, np.int64), *self._ids]))


_OUTS: dict[str, Any] = {
    "parquet": ParquetOut,
    "csv": _CsvOut,
    "ids": _IdsOut,
    "img2dataset": ParquetOut,
}


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as CSV can hold it."""
    column = readable(column)
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        column = pa.chunked_array([c.storage for c in column.chunks], kind.storage_type)
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if not (pa.types.is_nested(kind) or is_bytes(kind)):
        try:
            column.slice(0, 0).cast(pa.string())
        except pa.ArrowNotImplementedError:
            pass
        else:
            return column.cast(pa.string()) if pa.types.is_string_view(kind) else column
    return pa.chunked_array([pa.array([_json(v) for v in column.to_pylist()], pa.string())])


def _json(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.hex()
    return json.dumps(value, default=_text, ensure_ascii=False)


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
