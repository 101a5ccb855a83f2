"""Files of the rows that are dropped for a witness other than their representative."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from dask_dedup.paths import AnyPath
from dask_dedup.results.sorted_files import GROUP_ROWS, read_sorted, write_sorted

__all__ = ["Witnesses", "dropped_rows", "read_dropped", "write_dropped"]


class Witnesses(NamedTuple):
    """What became of rows: ``witness`` int64, the row itself where it stays; its ``similarity``."""

    witness: np.ndarray
    similarity: np.ndarray


def dropped_rows(row_ids: np.ndarray, found: Witnesses) -> pd.DataFrame:
    """Return the rows that have a witness other than themselves, in the order of ``row_id``.

    Columns ``row_id``, ``witness_row_id`` int64 and ``witness_similarity`` float32.
    """
    dropped = np.flatnonzero(found.witness != row_ids)
    dropped = dropped[np.argsort(row_ids[dropped])]
    return pd.DataFrame(
        {
            "row_id": row_ids[dropped],
            "witness_row_id": found.witness[dropped],
            "witness_similarity": found.similarity[dropped],
        }
    )


def write_dropped(dropped: pd.DataFrame, path: AnyPath, group_rows: int = GROUP_ROWS) -> None:
    """Write what `dropped_rows` returns."""
    write_sorted(pa.Table.from_pandas(dropped, preserve_index=False), path, group_rows)


def read_dropped(paths: Iterable[AnyPath], start: int, stop: int) -> pd.DataFrame:
    """Return those of rows ``start`` to ``stop`` from all files, in the order of ``row_id``."""
    found = read_sorted(paths, start, stop)
    if found is None:
        none = np.empty(0, np.int64)
        return dropped_rows(none, Witnesses(none, np.empty(0, np.float32)))
    return found.to_pandas().sort_values("row_id", ignore_index=True)
