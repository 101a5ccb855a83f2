"""The footer of a metadata file: how many rows, which columns, and what Arrow's types leave out.

Extension types come as their storage and the notes that name them, whether this process knows them
or not; only those of Arrow itself (``arrow.uuid``, ...) stay types.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.data.embedding_file import one_line
from dask_dedup.data.metadata_types import EXTENSION, leaf_count, map_field
from dask_dedup.errors import ColumnError, InputError, StoreError
from dask_dedup.storage.objects import open_parquet_source, words_of

__all__ = ["FROM_SPARK", "LEAVES", "SCHEMA_NOTES", "open_metadata", "plain_field", "read_footer"]

#: Note of a field: its leaves, counted from 0, of which Arrow's type does not say what they are
#: (JSON: pairs of a leaf and a word: ``INT96``, or a logical type that Arrow does not have).
LEAVES = b"dask_dedup:leaves"
#: Note of a schema: Spark wrote the file.
FROM_SPARK = b"dask_dedup:spark"
#: Footers' notes that describe the schema of a whole file in another system's words.
SCHEMA_NOTES = (
    b"org.apache.spark.sql.parquet.row.metadata",
    b"parquet.avro.schema",
    b"avro.schema",
    b"iceberg.schema",
    b"parquet.proto.descriptor",
    b"thrift.descriptor",
)
_ARROW = b"ARROW:schema"
_MOST_KNOWN = 32
_CARRIED = {  # logical types that Arrow has, or writes again
    *("None", "Null", "String", "Int", "Decimal", "Date", "Time", "Timestamp"),
    *("JSON", "UUID", "Float16"),
}


def open_metadata(path: str, int96_unit: str = "us", **options: bool) -> pq.ParquetFile:
    """Open a metadata file; times in INT96 come in the given unit."""
    source = open_parquet_source(path)
    return pq.ParquetFile(source, coerce_int96_timestamp_unit=int96_unit, **options)


def read_footer(path: str, int96_unit: str = "us") -> tuple[int, pa.Schema]:
    """Return the row count and schema of one parquet file.

    Equal schemas are one object: there may be thousands of files. Of the footer's notes the schema
    has only what is needed to merge it: `LEAVES`, `FROM_SPARK` and the names in `SCHEMA_NOTES`.

    Raises
    ------
    InputError
        The file cannot be read as parquet.
    ColumnError
        It is parquet, with a type that pyarrow does not know.
    """
    try:
        with open_metadata(path, int96_unit) as file:
            return file.metadata.num_rows, _schema_of(file)
    except OSError as error:
        if error.errno is None and not isinstance(error, StoreError):  # of what pyarrow has read
            raise _damaged(path, error) from error
        raise InputError(f"{path}: cannot be read ({words_of(error)}).") from error
    except pa.ArrowNotImplementedError as error:
        raise ColumnError(
            f"{path}: has a column that pyarrow {pa.__version__} cannot read ({one_line(error)}). "
            f"Write the file without it, or with another type for it."
        ) from error
    except (pa.ArrowException, ValueError) as error:  # ValueError: names that are no UTF-8
        raise _damaged(path, error) from error


def _damaged(path: str, error: Exception) -> InputError:
    return InputError(
        f"{path}: expected a parquet file, but it cannot be read ({one_line(error)}). "
        f"The file is damaged or of another format."
    )


def plain_field(field: pa.Field) -> pa.Field:
    """Return a field with storage and notes for the extension types that are not Arrow's own."""
    return map_field(field, _without_extension)


def _without_extension(field: pa.Field) -> pa.Field:
    kind = field.type
    if not isinstance(kind, pa.BaseExtensionType) or kind.extension_name.startswith("arrow."):
        return field
    name, parameters = kind.extension_name.encode(), kind.__arrow_ext_serialize__()
    notes = {**(field.metadata or {}), EXTENSION[0]: name, EXTENSION[1]: parameters}
    return field.with_type(kind.storage_type).with_metadata(notes)


class _Known(NamedTuple):
    """A schema that was reduced before."""

    parquet: pq.ParquetSchema
    arrow: pa.Schema
    footer: set[bytes]
    reduced: pa.Schema


_KNOWN: list[_Known] = []  # the last ones of this process: most files of a data set have the same


def _schema_of(file: pq.ParquetFile) -> pa.Schema:
    notes = file.metadata.metadata or {}
    footer = {name for name in SCHEMA_NOTES if name in notes}
    footer |= {_ARROW} & notes.keys()
    if any(name.startswith(b"org.apache.spark.") for name in notes):
        footer.add(FROM_SPARK)
    arrow = file.schema_arrow.remove_metadata()
    parquet = pq.ParquetSchema(file.metadata)  # its property makes a cycle: megabytes of garbage
    for known in _KNOWN[::-1]:
        if (
            known.footer == footer
            and known.parquet.equals(parquet)
            and known.arrow.equals(arrow, check_metadata=True)
        ):
            return known.reduced
    reduced = _reduce(parquet, arrow, footer)
    _KNOWN.append(_Known(parquet, arrow, footer, reduced))
    del _KNOWN[:-_MOST_KNOWN]
    return reduced


def _reduce(parquet: pq.ParquetSchema, arrow: pa.Schema, footer: set[bytes]) -> pa.Schema:
    special = _special_leaves(parquet, _ARROW in footer)
    fields, leaf = [], 0
    for field in map(plain_field, arrow):
        count = leaf_count(field.type)
        own = [[i - leaf, what] for i, what in special.items() if leaf <= i < leaf + count]
        notes = {**(field.metadata or {}), LEAVES: json.dumps(own).encode()}
        fields.append(field.with_metadata(notes) if own else field)
        leaf += count
    return pa.schema(fields, dict.fromkeys(sorted(footer - {_ARROW}), b"") or None)


def _special_leaves(parquet: pq.ParquetSchema, from_arrow: bool) -> dict[int, str]:
    """Return what the leaves are that Arrow's types do not express, by position in the file."""
    special = {}
    for i in range(len(parquet)):
        column = parquet.column(i)
        if column.physical_type == "INT96":
            special[i] = "INT96"
            continue
        logical = json.loads(column.logical_type.to_json())
        if logical["Type"] not in _CARRIED:
            special[i] = logical["Type"].upper()
        elif logical["Type"] == "Time" and logical.get("isAdjustedToUTC") and not from_arrow:
            special[i] = "TIME with a time zone"  # Arrow's writers set it of any time, as may be
    text = str(parquet)
    if "(Variant" in text:  # said of a group, of which the interface has nothing else
        leaf = -1
        for line in text.splitlines()[2:]:
            is_group = " group " in f" {line.strip()}"
            if "(Variant" in line:
                special[leaf + 1] = "VARIANT"
            leaf += not is_group and line.strip() not in ("", "}")
    return special
