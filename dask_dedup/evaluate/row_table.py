"""Tables that say which rows are evaluated, and of what class they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.data.parts import one_line, read_npy_header, read_rows
from dask_dedup.errors import InputError, SettingsError
from dask_dedup.paths import AnyPath
from dask_dedup.storage.objects import open_parquet_source

__all__ = ["LabelledRows", "read_classes", "read_row_ids", "read_row_labels"]


@dataclass(frozen=True)
class LabelledRows:
    """Rows of known class.

    Attributes
    ----------
    row_ids : int64 array, shape (n,), sorted
    labels : int64 array, shape (n,)
        Position of each row's class.
    groups : dict
        Name to (mask of rows, sorted positions of classes): kinds of rows that are also evaluated
        alone, against the classes that occur among them in the whole table.
    """

    row_ids: np.ndarray
    labels: np.ndarray
    groups: dict[str, tuple[np.ndarray, np.ndarray]]


def read_classes(path: AnyPath) -> np.ndarray:
    """Read the classes' text embeddings: (classes, dim), as stored."""
    file = read_npy_header(str(path))
    return read_rows(file, 0, file.rows)


def read_row_ids(
    path: AnyPath, *, row_column: str, filters: Sequence[str], rows: int
) -> np.ndarray:
    """Return the rows that a table names and the filters let pass: int64, sorted.

    Parameters
    ----------
    path : AnyPath
        Parquet, one line for each row.
    row_column : str
        Column with ``row_id``.
    filters : sequence of str
        ``column=value``, all of which must hold; the value as text (``true`` for booleans).
    rows : int
        Of the data set.

    Raises
    ------
    InputError
        No parquet, a missing column, rows outside the data set or twice, or no row left.
    SettingsError
        A filter that is none.
    """
    frame = _read_table(path, [row_column, *(name for name, _ in _split(filters))])
    passed = frame[_passes(frame, filters)]
    return np.sort(_row_ids(passed, path, row_column, rows, filters))


def read_row_labels(
    path: AnyPath,
    *,
    row_column: str,
    label_column: str,
    filters: Sequence[str],
    by: str | None,
    rows: int,
    classes: int,
) -> LabelledRows:
    """Return labelled rows; see `read_row_ids`. Rows whose label is null or negative are left out.

    Parameters
    ----------
    label_column : str
        Column with positions in the classes, integers.
    by : str, optional
        Column whose values are evaluated one by one, too.
    classes : int
        Number of classes.
    """
    columns = [row_column, label_column, *(name for name, _ in _split(filters))]
    frame = _read_table(path, columns + ([by] if by else []))
    labels = frame[label_column]
    if labels.dtype.kind not in "iuf" or (labels.dropna() % 1 != 0).any():
        raise InputError(
            f"{path}: column {label_column!r} is expected to hold integers, positions in the "
            f"classes; got {labels.dtype}."
        )
    frame = frame[(labels >= 0).to_numpy()]
    highest = frame[label_column].max() if len(frame) else -1
    if highest >= classes:
        raise InputError(
            f"{path}: label {int(highest)} in column {label_column!r}, but there are {classes} "
            f"classes, numbered from 0."
        )
    passed = frame[_passes(frame, filters)]
    row_ids = _row_ids(passed, path, row_column, rows, filters)
    order = np.argsort(row_ids)
    passed = passed.iloc[order]
    groups = {}
    if by:
        for value in sorted(passed[by].dropna().unique(), key=str):
            present = np.unique(frame[label_column][frame[by] == value]).astype(np.int64)
            groups[str(value)] = ((passed[by] == value).to_numpy(), present)
    return LabelledRows(row_ids[order], passed[label_column].to_numpy(np.int64), groups)


def _read_table(path: AnyPath, columns: Sequence[str]) -> pd.DataFrame:
    try:
        schema = pq.read_schema(open_parquet_source(path))
        missing = [name for name in columns if name not in schema.names]
        if missing:
            raise InputError(
                f"{path}: no column {missing[0]!r}; the columns are {', '.join(schema.names)}."
            )
        wanted = list(dict.fromkeys(columns))
        return pq.read_table(open_parquet_source(path), columns=wanted).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as parquet ({one_line(error)}).") from error


def _split(filters: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in filters]
    for text, (name, equals, value) in zip(filters, pairs, strict=True):
        if not (name and equals and value):
            raise SettingsError(f"filter: expected COLUMN=VALUE, got {text!r}.")
    return [(name, value) for name, _, value in pairs]


def _passes(frame: pd.DataFrame, filters: Sequence[str]) -> np.ndarray:
    passed = np.ones(len(frame), bool)
    for name, value in _split(filters):
        text = frame[name].astype(str)
        if frame[name].dtype == np.bool_:
            text, value = text.str.lower(), value.lower()
        passed &= (text == value).to_numpy()
    return passed


def _row_ids(
    frame: pd.DataFrame, path: AnyPath, row_column: str, rows: int, filters: Sequence[str]
) -> np.ndarray:
    if not len(frame):
        condition = f" that pass {', '.join(filters)}" if filters else ""
        raise InputError(f"{path}: has no rows{condition}.")
    ids = frame[row_column]
    if ids.dtype.kind not in "iu":
        raise InputError(
            f"{path}: column {row_column!r} is expected to hold row ids, got {ids.dtype}."
        )
    if ids.min() < 0 or ids.max() >= rows:
        raise InputError(
            f"{path}: row ids from {ids.min()} to {ids.max()} in column {row_column!r}, but the "
            f"data set has {rows} rows, numbered from 0."
        )
    if ids.duplicated().any():
        raise InputError(f"{path}: row {ids[ids.duplicated()].iloc[0]} occurs more than once.")
    return ids.to_numpy(np.int64)
