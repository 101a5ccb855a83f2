"""Metadata of one part: read in the data set's common schema, with the part's own notes."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from dask_dedup.data.metadata_columns import MetadataColumns, unify_columns
from dask_dedup.data.metadata_footer import open_metadata, plain_field
from dask_dedup.data.metadata_notes import file_notes, notes_of_field
from dask_dedup.data.metadata_types import PLAIN_TYPES, map_field, without_view
from dask_dedup.data.parts import Part, one_line, read_again
from dask_dedup.errors import InputError
from dask_dedup.paths import is_remote
from dask_dedup.schema import STRING

__all__ = [
    "MetadataColumns",
    "as_plain",
    "empty_table",
    "read_metadata",
    "take_rows",
    "to_pandas",
    "unify_columns",
]


def read_metadata(part: Part, columns: MetadataColumns) -> pa.Table:
    """Read the metadata of one part in the data set's common schema.

    Returns
    -------
    pyarrow.Table
        ``part.rows`` rows with the types of ``columns.schema``; a column that this part lacks is
        null, and all of a part whose metadata are quarantined. The notes are those of the part.

    Raises
    ------
    UnreadableError
        The file cannot be read, or has another row count than before.
    InputError
        It has other types than before.
    """
    if not part.metadata_path or part.metadata_problem is not None:
        return _null_table(columns.schema, part.rows)
    table = read_again(part.metadata_path, _read_table, part, columns)
    arrays, fields, names, retyped = [], [], {}, set()
    for field, spellings in zip(columns.schema, columns.sources, strict=True):
        source = next((name for name in spellings if name in table.column_names), None)
        own = None
        if source is not None:
            names[source] = field.name
            own = plain_field(table.schema.field(source))
            if own.type != field.type:
                retyped.add(source)
        if own is None or not part.rows:
            arrays.append(pa.nulls(part.rows, field.type))
        else:
            arrays.append(_convert(table.column(source), own, field, part))
        fields.append(field.with_metadata(notes_of_field(own, field) or None))
    notes = file_notes(table.schema.metadata, names, retyped)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, notes or None))


def _read_table(part: Part, columns: MetadataColumns) -> pa.Table:
    wanted = {name for spellings in columns.sources for name in spellings}
    path = part.metadata_path
    try:
        with open_metadata(path, columns.int96_unit, pre_buffer=is_remote(path)) as file:
            present = [name for name in file.schema_arrow.names if name in wanted]
            nested = any("." in name for name in present)  # parquet would take it for a path
            table = file.read(columns=None if nested else present)
            rows = file.metadata.num_rows
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}).") from error
    if rows != part.rows:
        raise InputError(f"{path}: {rows} rows, but it had {part.rows} when the run began.")
    return table


def _convert(column: pa.ChunkedArray, own: pa.Field, field: pa.Field, part: Part) -> pa.Array:
    if column.type == field.type:
        return column
    if column.null_count == len(column):
        return pa.nulls(len(column), field.type)
    try:
        return _cast(_cast(column, own.type), field.type)
    except pa.ArrowException as error:
        raise InputError(
            f"{part.metadata_path}: column {own.name!r} is {own.type} and cannot be read as "
            f"{field.type} ({one_line(error)}): the file is not what it was when the run began."
        ) from error


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type == kind:
        return column
    converted = column.cast(kind)
    try:
        converted.validate()
    except pa.ArrowInvalid:  # of nulls of type null inside lists, pyarrow forgets some
        return pa.chunked_array([pa.array(column.to_pylist(), kind)])
    return converted


def _cast_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    pairs = zip(table.columns, schema, strict=True)
    return pa.Table.from_arrays([_cast(c, field.type) for c, field in pairs], schema=schema)


def take_rows(table: pa.Table, positions: pa.Array) -> pa.Table:
    """Return some rows of a table, whatever its types."""
    plain = pa.schema([map_field(field, without_view) for field in table.schema])
    return _cast_table(_cast_table(table, plain).take(positions), table.schema)


def empty_table(columns: MetadataColumns) -> pa.Table:
    """Return the schema without rows, also where Arrow's own way cannot."""
    return _null_table(columns.schema, 0)


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """Turn an Arrow table into pandas without changing a value: Arrow types stay Arrow types.

    Without notes and dictionaries, which differ from part to part: a data frame has one type.
    """
    return as_plain(table).to_pandas(types_mapper=_pandas_dtype, ignore_metadata=True)


def as_plain(table: pa.Table) -> pa.Table:
    """Return a table without dictionaries, extension types, views and their notes."""
    plain = pa.schema([map_field(field, _for_frames) for field in table.schema])
    return _cast_table(table, plain)


def _null_table(schema: pa.Schema, rows: int) -> pa.Table:
    return pa.Table.from_arrays([pa.nulls(rows, field.type) for field in schema], schema=schema)


def _for_frames(field: pa.Field) -> pa.Field:
    kind = field.type
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    kind = PLAIN_TYPES.get(kind, kind)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        kind = pa.large_list(kind.value_field)
    return pa.field(field.name, kind, field.nullable)


def _pandas_dtype(arrow_type: pa.DataType) -> pd.api.extensions.ExtensionDtype:
    is_text = pa.types.is_string(arrow_type) or pa.types.is_large_string(arrow_type)
    return STRING if is_text else pd.ArrowDtype(arrow_type)
