"""The tables that the stages hand to each other: names, dtypes, empty frames, checks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

__all__ = [
    "CLUSTERS",
    "EDGES",
    "FOREST",
    "LABELS",
    "RESERVED_COLUMNS",
    "ROWS",
    "STRING",
    "check_frame",
    "own_columns",
]

STRING = pd.StringDtype("pyarrow", na_value=pd.NA)  # what Dask, too, turns text into


def _empty(dtypes: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series([], dtype=dtype) for name, dtype in dtypes.items()})


#: One row per image-text pair, indexed by ``row_id``; the user's other columns follow.
ROWS = _empty({"url": STRING, "caption": STRING}).set_index(
    pd.Index(np.empty(0, np.int64), name="row_id")
)

#: Unordered pairs of similar rows, ``src < dst``, distinct; ``similarity`` is the cosine.
EDGES = _empty({"src": np.int64, "dst": np.int64, "similarity": np.float32})

#: As EDGES, without a cycle, ordered by falling similarity, then ``src``, then ``dst``.
FOREST = EDGES

#: Only rows in clusters of two or more, indexed by ``row_id``; ``cluster_id`` is the smallest
#: ``row_id`` of the cluster. ``cluster_size`` travels along because the labelling task knows it
#: and counting it later would need a shuffle.
LABELS = _empty({"cluster_id": np.int64, "cluster_size": np.int64}).set_index(
    pd.Index(np.empty(0, np.int64), name="row_id")
)

#: Every row once, before the user's columns. A row that is not ``is_kept`` is dropped for its
#: witness, which is kept; where it is kept, ``witness_row_id`` and ``witness_similarity`` are null.
CLUSTERS = _empty(
    {
        "row_id": np.int64,
        "cluster_id": np.int64,
        "cluster_size": np.int64,
        "is_representative": np.bool_,
        "is_valid": np.bool_,
        "similarity_to_representative": np.float32,
        "is_kept": np.bool_,
        "witness_row_id": pd.Int64Dtype(),
        "witness_similarity": np.float32,
        "url": STRING,
        "caption": STRING,
    }
)
_OWN = frozenset(CLUSTERS.columns[: CLUSTERS.columns.get_loc("url")])

#: Names that the tables use; a user's column of such a name gets the prefix ``source_``.
RESERVED_COLUMNS = frozenset({*CLUSTERS.columns, "invalid_reason"})


def own_columns(names: Sequence[str]) -> list[str]:
    """Return the columns of ours, among those of a table of results: they stand before the user's.

    Those of the user never have such names; without metadata there are none.
    """
    return [name for name in names if name in _OWN]


def check_frame(frame: pd.DataFrame, expected: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return ``frame`` if it has the columns and dtypes of ``expected``.

    Parameters
    ----------
    frame : DataFrame
        The table to check; columns beyond the expected ones are allowed.
    expected : DataFrame
        One of the empty frames of this module.
    what : str
        What the table is, for the message: "edges of task 3".

    Raises
    ------
    TypeError
        Naming the first column that is missing or of another dtype.
    """
    if expected.index.name is not None and frame.index.name != expected.index.name:
        raise TypeError(
            f"{what}: expected the index {expected.index.name!r}, got {frame.index.name!r}."
        )
    for name, dtype in expected.dtypes.items():
        if name not in frame.columns:
            raise TypeError(f"{what}: expected a column {name!r}, got {list(frame.columns)}.")
        if frame[name].dtype != dtype:
            raise TypeError(
                f"{what}: column {name!r} is expected to be {dtype}, got {frame[name].dtype}."
            )
    return frame
