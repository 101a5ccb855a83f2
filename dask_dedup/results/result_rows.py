"""Single rows of a result, by ``row_id``."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dask_dedup.errors import DamagedError
from dask_dedup.paths import AnyPath
from dask_dedup.results.finished_run import in_part_order
from dask_dedup.storage.checksums import damage
from dask_dedup.storage.listing import names_in
from dask_dedup.storage.objects import open_parquet_source

__all__ = ["read_result_rows"]

_THREADS = 16  # footers asked for at once


def read_result_rows(out: AnyPath, row_ids: np.ndarray, columns: Sequence[str]) -> pa.Table:
    """Return some columns of some rows of ``OUT/clusters``.

    Parameters
    ----------
    out : AnyPath
        OUT of a finished run.
    row_ids : int64 array
        In any order; repeated ones come back repeated.
    columns : sequence of str

    Returns
    -------
    Table
        The columns, a row for each id, in their order. Of each file the row groups that hold wanted
        rows are read.

    Raises
    ------
    DamagedError
        A file is missing, or not what was written.
    """
    folder = out / "clusters"
    paths = [folder / name for name in in_part_order(names_in(folder) or ())]
    with ThreadPoolExecutor(_THREADS) as pool:
        starts = np.cumsum([0, *pool.map(_count_rows, paths)])
    wanted, back = np.unique(row_ids, return_inverse=True)
    if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < starts[-1]:
        raise DamagedError(
            f"{folder}: has {starts[-1]:,} rows, and row {wanted[-1]:,} is asked for.", str(folder)
        )
    cuts = np.searchsorted(wanted, starts)
    pieces = [
        _read_rows(path, wanted[first:last] - start, int(start), columns)
        for path, start, first, last in zip(paths, starts, cuts, cuts[1:], strict=False)
        if last > first
    ]
    if not pieces:
        with damage(folder), pq.ParquetFile(open_parquet_source(paths[0])) as file:
            return file.schema_arrow.empty_table().select(columns)
    return pa.concat_tables(pieces, promote_options="permissive").take(pa.array(back))


def _count_rows(path: AnyPath) -> int:
    with damage(path), pq.ParquetFile(open_parquet_source(path)) as file:
        return int(file.metadata.num_rows)


def _read_rows(
    path: AnyPath, positions: np.ndarray, row_start: int, columns: Sequence[str]
) -> pa.Table:
    """Return rows of one file, at rising positions."""
    names = list(dict.fromkeys(["row_id", *columns]))
    pieces = []
    with (
        damage(path),
        pq.ParquetFile(open_parquet_source(path), page_checksum_verification=True) as file,
    ):
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        starts = np.cumsum([0, *groups])
        cuts = np.searchsorted(positions, starts)
        for group, (first, last) in enumerate(pairwise(cuts)):
            if last > first:
                own = pa.array(positions[first:last] - starts[group])
                pieces.append(file.read_row_group(group, names).take(own))
    table = pa.concat_tables(pieces)
    if (table["row_id"].to_numpy() != positions + row_start).any():
        raise DamagedError(f"{path}: its rows are not in the order of the input.", str(path))
    return table.select(columns)
