"""Files of the rows that are dropped for a witness other than their representative."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.paths import AnyPath
from dask_dedup.results.witness import Witnesses
from dask_dedup.storage.checksums import damage
from dask_dedup.storage.files import write_aside
from dask_dedup.storage.objects import open_parquet_source

__all__ = ["dropped_rows", "read_dropped", "write_dropped"]

_GROUP_ROWS = 1 << 14  # a span reads those of its rows out of every file


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


def write_dropped(dropped: pd.DataFrame, path: AnyPath) -> None:
    """Write what `dropped_rows` returns."""
    table = pa.Table.from_pandas(dropped, preserve_index=False).replace_schema_metadata(None)
    with write_aside(path) as temporary:
        pq.write_table(table, temporary, _GROUP_ROWS, compression="zstd", write_page_checksum=True)


def read_dropped(paths: Iterable[AnyPath], start: int, stop: int) -> pd.DataFrame:
    """Return those of rows ``start`` to ``stop`` from all files, in the order of ``row_id``."""
    none = np.empty(0, np.int64)
    found = [dropped_rows(none, Witnesses(none, np.empty(0, np.float32)))]
    for path in paths:
        with (
            damage(path),
            pq.ParquetFile(open_parquet_source(path), page_checksum_verification=True) as file,
        ):
            groups = [
                number
                for number in range(file.num_row_groups)
                if _reaches(file.metadata.row_group(number), start, stop)
            ]
            if groups:
                found.append(file.read_row_groups(groups).to_pandas())
    dropped = pd.concat(found[1:] or found, ignore_index=True).sort_values("row_id")
    first, last = dropped["row_id"].searchsorted([start, stop])
    return dropped.iloc[first:last]


def _reaches(group: pq.RowGroupMetaData, start: int, stop: int) -> bool:
    if not group.num_rows:
        return False
    statistics = group.column(0).statistics
    return bool(statistics.min < stop and statistics.max >= start)
