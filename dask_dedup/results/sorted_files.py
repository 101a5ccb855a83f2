"""Files sorted by the row ids in their first column: whoever wants some rows reads few row groups.

The footers say which row groups may hold them. Pages carry checksums.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.paths import AnyPath
from dask_dedup.storage.checksums import damage
from dask_dedup.storage.files import write_aside
from dask_dedup.storage.objects import open_parquet_source

__all__ = ["GROUP_ROWS", "read_sorted", "write_sorted"]

GROUP_ROWS = 1 << 14  # of a row group


def write_sorted(table: pa.Table, path: AnyPath, group_rows: int = GROUP_ROWS) -> None:
    """Write a table whose first column, int64, rises; fewer rows a group where values are long."""
    with write_aside(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata(None),
            temporary,
            group_rows,
            compression="zstd",
            write_page_checksum=True,
        )


def read_sorted(paths: Iterable[AnyPath], start: int, stop: int) -> pa.Table | None:
    """Return the rows whose first column is from ``start`` to before ``stop``, of all files.

    In the order of the files; None where there is no file.

    Raises
    ------
    DamagedError
    """
    tables = []
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
            table = file.read_row_groups(groups)
        first, last = np.searchsorted(table.column(0).to_numpy(), [start, stop])
        tables.append(table.slice(first, last - first))
    return pa.concat_tables(tables) if tables else None


def _reaches(group: pq.RowGroupMetaData, start: int, stop: int) -> bool:
    if not group.num_rows:
        return False
    statistics = group.column(0).statistics
    return bool(statistics.min < stop and statistics.max >= start)
