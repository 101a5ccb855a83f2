"""The notes of a metadata file: which of them stay true in a result with other columns beside."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa

from dask_dedup.data.metadata_footer import LEAVES, SCHEMA_NOTES
from dask_dedup.data.metadata_types import EXTENSION

__all__ = ["file_notes", "notes_of_field"]

_PANDAS, _FEATURES, _GEO = b"pandas", b"huggingface", b"geo"
_LEVELS = "index_columns"
_FIELD_ID = b"PARQUET:field_id"


def file_notes(
    notes: Mapping[bytes, bytes] | None, names: Mapping[str, str], retyped: Collection[str]
) -> dict[bytes, bytes]:
    """Return the notes of a part's footer for the part of the result.

    Parameters
    ----------
    notes : mapping, optional
        Those of the file's schema.
    names : mapping
        For each column that is carried its name in the file and in the result.
    retyped : collection of str
        Those (in the file) that have another type in the result.
    """
    carried = {}
    for key, value in (notes or {}).items():
        if key in SCHEMA_NOTES or key == b"ARROW:schema":
            continue
        if key in _KNOWN:
            try:
                adapted = _KNOWN[key](json.loads(value), names, retyped)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # not what the name says: nobody could read it
            if adapted is not None:
                carried[key] = json.dumps(adapted).encode()
        else:
            carried[key] = value
    return carried


def notes_of_field(own: pa.Field | None, unified: pa.Field) -> dict[bytes, bytes]:
    """Return the notes of a column in one part: its own, where it is there with them."""
    if own is None:
        hidden: tuple[bytes, ...] = (LEAVES, _FIELD_ID)
        notes = unified.metadata or {}
    else:
        hidden = (LEAVES,)
        notes = own.metadata or {}
        if own.type != unified.type:  # what a note says of a type is no longer true
            hidden += tuple(key for key in notes if key.startswith(b"_PL_") or key in EXTENSION)
            extension = {key: (unified.metadata or {}).get(key) for key in EXTENSION}
            return {
                **{key: value for key, value in notes.items() if key not in hidden},
                **{key: value for key, value in extension.items() if value is not None},
            }
    return {key: value for key, value in notes.items() if key not in hidden}


def _pandas_notes(
    notes: dict[str, Any], names: Mapping[str, str], retyped: Collection[str]
) -> dict[str, Any]:
    """Keep pandas' types and index; one that counts rows is passed over where they are others."""
    columns = []
    for column in notes["columns"]:
        name = column.get("field_name") or column["name"]
        if name in names and name not in retyped:
            is_named = column["name"] is not None
            renamed = {"name": names[name]} if is_named and column["name"] == name else {}
            columns.append({**column, **renamed, "field_name": names[name]})
    levels = [names.get(level) if isinstance(level, str) else level for level in notes[_LEVELS]]
    return {
        **notes,
        "columns": columns,
        _LEVELS: [level for level in levels if level is not None],
        # Of names that are no text: ours could not be read as such.
        "column_indexes": [],
    }


def _features(
    notes: dict[str, Any], names: Mapping[str, str], retyped: Collection[str]
) -> dict[str, Any]:
    """Rename the features of Hugging Face."""
    info = notes.get("info") or {}
    if not isinstance(info.get("features"), dict):
        return notes
    features = {
        names[name]: feature
        for name, feature in info["features"].items()
        if name in names and name not in retyped
    }
    return {**notes, "info": {**info, "features": features}}


def _geo_notes(
    notes: dict[str, Any], names: Mapping[str, str], retyped: Collection[str]
) -> dict[str, Any] | None:
    """Rename the columns of GeoParquet; without its primary column it is none."""
    primary = notes["primary_column"]
    if primary not in names or primary in retyped:
        return None
    columns = {
        names[name]: note
        for name, note in notes["columns"].items()
        if name in names and name not in retyped
    }
    return {**notes, "primary_column": names[primary], "columns": columns}


_KNOWN = {_PANDAS: _pandas_notes, _FEATURES: _features, _GEO: _geo_notes}
