"""Metadata columns: which of the user's become ``url`` and ``caption``, and how parts agree."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.errors import InputError
from dask_dedup.io.objects import open_parquet_source
from dask_dedup.io.parts import Part, one_line, read_again
from dask_dedup.places import is_remote
from dask_dedup.schema import RESERVED_COLUMNS, STRING

__all__ = ["MetadataColumns", "read_metadata", "to_pandas", "unify_columns"]

logger = logging.getLogger(__name__)

_EXACT_DOUBLES = 2**53  # integers up to here are exact as doubles
_URL_NAMES = ("url", "URL")
_CAPTION_NAMES = ("caption", "TEXT")
_PLAIN_TYPES = {  # the same values in a layout that Arrow's functions and pandas cannot take from
    pa.string_view(): pa.string(),
    pa.binary_view(): pa.binary(),
}


@dataclass(frozen=True)
class MetadataColumns:
    """The columns of a data set's metadata, the same for every part.

    Attributes
    ----------
    schema : pyarrow.Schema
        Our names and types, ``url`` and ``caption`` first.
    sources : tuple of (str or None)
        For each field the name in the files; None where the files have no such column.
    """

    schema: pa.Schema
    sources: tuple[str | None, ...]

    def select(self, names: Sequence[str]) -> MetadataColumns:
        """Return only the columns ``names``, in that order."""
        indices = [self.schema.get_field_index(name) for name in names]
        return MetadataColumns(
            pa.schema([self.schema.field(i) for i in indices]),
            tuple(self.sources[i] for i in indices),
        )


def unify_columns(
    parts: Sequence[Part],
    schemas: Sequence[pa.Schema],
    url_column: str | None,
    caption_column: str | None,
) -> MetadataColumns:
    """Find one schema that all parts can be read as.

    Parameters
    ----------
    parts, schemas
        As many schemas as parts.
    url_column, caption_column : str or None
        Names in the files. None: the first of ``url``, ``URL`` and of ``caption``, ``TEXT``.

    Raises
    ------
    InputError
        A named column is in no part, the column of URLs or captions is no text, a name stands
        twice in one file, or a column has types in two parts that have no common type.
    """
    for part, schema in zip(parts, schemas, strict=True):
        twice = {name for name in schema.names if schema.names.count(name) > 1}
        if twice:
            raise InputError(
                f"{part.metadata_path}: column {min(twice)!r} stands there more than once."
            )
    names = list(dict.fromkeys(name for schema in schemas for name in schema.names))
    url = _find_column(names, "url_column", url_column, _URL_NAMES, parts)
    caption = _find_column(names, "caption_column", caption_column, _CAPTION_NAMES, parts)
    texts = {url: "url_column", caption: "caption_column"}

    unified = pa.schema([])
    filled_first = sorted(zip(parts, schemas, strict=True), key=_is_empty)
    for part, schema in filled_first:
        own = _other_fields(part, schema, texts, unified.names)
        try:
            unified = pa.unify_schemas([unified, own], promote_options="permissive")
        except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
            raise InputError(
                f"{part.metadata_path}: its columns do not fit those of "
                f"{filled_first[0][0].metadata_path} ({one_line(error)}). "
                f"Write them with one type in all parts."
            ) from error

    _check_integers(parts, schemas, unified)
    fields = [pa.field("url", pa.string()), pa.field("caption", pa.string())]
    sources: list[str | None] = [url, caption]
    taken = set(RESERVED_COLUMNS) | set(names)
    for field in unified:
        name = field.name
        if name in RESERVED_COLUMNS:
            name = f"source_{name}"
            while name in taken:
                name = f"source_{name}"
            taken.add(name)
        fields.append(pa.field(name, field.type))
        sources.append(field.name)
    return MetadataColumns(pa.schema(fields), tuple(sources))


def read_metadata(part: Part, columns: MetadataColumns) -> pa.Table:
    """Read the metadata of one part in the data set's common schema.

    Returns
    -------
    pyarrow.Table
        ``part.rows`` rows with the schema ``columns.schema``; a column that this part lacks is
        null, and all of a part whose metadata are set aside.

    Raises
    ------
    UnreadableError
        The file cannot be read, has another row count than before, or holds a value that does
        not fit.
    """
    if part.metadata_problem is not None:
        nulls = [pa.nulls(part.rows, field.type) for field in columns.schema]
        return pa.Table.from_arrays(nulls, schema=columns.schema)
    return read_again(part.metadata_path, _read_metadata, part, columns)


def _read_metadata(part: Part, columns: MetadataColumns) -> pa.Table:
    wanted = [source for source in columns.sources if source is not None]
    nested = any("." in source for source in wanted)  # parquet would take it for a path
    try:
        source = open_parquet_source(part.metadata_path)
        with pq.ParquetFile(source, pre_buffer=is_remote(part.metadata_path)) as file:
            present = set(file.schema_arrow.names)
            table = file.read(columns=None if nested else [n for n in wanted if n in present])
            rows = file.metadata.num_rows
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{part.metadata_path}: cannot be read ({one_line(error)}).") from error
    if rows != part.rows:
        raise InputError(
            f"{part.metadata_path}: {rows} rows, but it had {part.rows} when the run began."
        )
    arrays = []
    for field, source in zip(columns.schema, columns.sources, strict=True):
        if source is None or source not in present or not rows:
            arrays.append(pa.nulls(rows, field.type))
            continue
        try:
            arrays.append(table.column(source).cast(field.type))
        except pa.ArrowException as error:
            raise InputError(
                f"{part.metadata_path}: column {source!r} cannot be read as {field.type} "
                f"({one_line(error)})."
            ) from error
    return pa.Table.from_arrays(arrays, schema=columns.schema)


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """Turn an Arrow table into pandas without changing a value: Arrow types stay Arrow types."""
    return table.to_pandas(types_mapper=_pandas_dtype)


def _pandas_dtype(arrow_type: pa.DataType) -> pd.api.extensions.ExtensionDtype:
    return STRING if pa.types.is_string(arrow_type) else pd.ArrowDtype(arrow_type)


def _is_empty(part_and_schema: tuple[Part, pa.Schema]) -> bool:
    return part_and_schema[0].rows == 0 or part_and_schema[0].metadata_problem is not None


def _other_fields(
    part: Part, schema: pa.Schema, texts: Mapping[str | None, str], known: Sequence[str]
) -> pa.Schema:
    """Return the fields that are carried, without what differs between parts for no reason.

    That is: encodings, nullability, pandas' notes, and the types of a part without rows. The
    columns ``texts`` are left out: they are read as text from any type that allows it.
    """
    fields = []
    for field in schema:
        if field.name in texts:
            if part.rows and pa.types.is_nested(field.type):
                raise InputError(
                    f"{part.metadata_path}: column {field.name!r} is expected to be text, got "
                    f"{field.type} ({texts[field.name]} tells another column)."
                )
        elif part.rows or field.name not in known:
            fields.append(pa.field(field.name, _plain_type(field.type)))
    return pa.schema(fields)


def _check_integers(
    parts: Sequence[Part], schemas: Sequence[pa.Schema], unified: pa.Schema
) -> None:
    """Refuse integers that would not survive as doubles, as far as the parts' footers tell."""
    for part, schema in zip(parts, schemas, strict=True):
        names = {
            field.name
            for field in schema
            if pa.types.is_integer(field.type)
            and field.name in unified.names
            and pa.types.is_floating(unified.field(field.name).type)
        }
        if not names:
            continue
        with pq.ParquetFile(open_parquet_source(part.metadata_path)) as file:
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        for column in (group.column(i) for group in groups for i in range(group.num_columns)):
            statistics = column.statistics if column.path_in_schema in names else None
            if statistics is None or not statistics.has_min_max:
                continue
            if max(abs(statistics.min), abs(statistics.max)) > _EXACT_DOUBLES:
                raise InputError(
                    f"{part.metadata_path}: column {column.path_in_schema!r} holds integers up to "
                    f"{statistics.max}, and is {unified.field(column.path_in_schema).type} in "
                    f"another part: they would not survive. Write it with one type in all parts."
                )


def _plain_type(arrow_type: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(arrow_type):
        return _plain_type(arrow_type.value_type)
    return _PLAIN_TYPES.get(arrow_type, arrow_type)


def _find_column(
    names: Sequence[str],
    setting: str,
    wanted: str | None,
    usual: Sequence[str],
    parts: Sequence[Part],
) -> str | None:
    if wanted is not None:
        if wanted not in names:
            raise InputError(
                f"{parts[0].metadata_path}: no column {wanted!r} ({setting}); "
                f"the columns are {', '.join(names)}."
            )
        return wanted
    for name in usual:
        if name in names:
            return name
    logger.warning(
        "no column %s in the metadata (%s tells another name); results are keyed by row_id",
        " or ".join(usual),
        setting,
    )
    return None
