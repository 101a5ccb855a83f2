"""The first pass over the clusters for the page: which clusters and rows are to be shown.

Of each part, our own columns are read, a row group at a time; what is kept of it are the first few
of some orders, which are merged part by part. So memory does not grow with the data set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa

from dask_dedup.results.finished_run import open_table
from dask_dedup.results.kept_rows import kept_columns, needed_columns
from dask_dedup.storage.checksums import damage
from dask_dedup.vectors.sample import hash_rows

__all__ = ["CLUSTER_KEYS", "ClusterScan", "row_groups", "scan_files"]

CLUSTER_KEYS = ("cluster_id", "cluster_size")
_ROW_KEYS = ("similarity", "row_id", "witness_row_id", *CLUSTER_KEYS)
_PURPOSE = 22  # of the random clusters: see `dask_dedup.vectors.sample`
_MOST = 64  # of each order that are kept
# Of the largest: placeholders are looked for among them. Counting what they hold takes half as long
# as the rest of the second pass (2·10⁶ rows, a fifth of them in these clusters; 64: a fifth), and
# up to 6 MB a task.
_MOST_LARGEST = 256
_SLICE_ROWS = 1 << 18  # looked at together


def _empty(names: Sequence[str]) -> pd.DataFrame:
    kinds = {"similarity": np.float32, "key": np.uint64}
    return pd.DataFrame({name: np.empty(0, kinds.get(name, np.int64)) for name in names})


@dataclass
class ClusterScan:
    """What is known of the clusters so far.

    Attributes
    ----------
    largest : DataFrame
        `CLUSTER_KEYS` of the largest clusters of two or more, falling; equal ones by rising id.
    random : DataFrame
        The same, and ``key``: of the smallest hashes of (seed, ``cluster_id``), rising.
    unlike_witness : DataFrame
        ``similarity``, ``row_id``, ``witness_row_id`` and `CLUSTER_KEYS` of the dropped row of a
        cluster that is least like the row that stays for it, the least similar first.
    unlike_representative : DataFrame
        The same of the row that is least like the representative of its cluster, which stands in
        for the witness.
    reasons : Counter
        Invalid rows by ``invalid_reason``.
    """

    largest: pd.DataFrame = field(default_factory=lambda: _empty(CLUSTER_KEYS))
    random: pd.DataFrame = field(default_factory=lambda: _empty(("key", *CLUSTER_KEYS)))
    unlike_witness: pd.DataFrame = field(default_factory=lambda: _empty(_ROW_KEYS))
    unlike_representative: pd.DataFrame = field(default_factory=lambda: _empty(_ROW_KEYS))
    reasons: Counter[str] = field(default_factory=Counter)

    def merge(self, other: ClusterScan) -> None:
        """Add what another scan, of other rows, has found."""
        self.largest = _largest([self.largest, other.largest])
        self.random = _first([self.random, other.random], ["key", "cluster_id"])
        self.unlike_witness = _least([self.unlike_witness, other.unlike_witness])
        self.unlike_representative = _least(
            [self.unlike_representative, other.unlike_representative]
        )
        self.reasons.update(other.reasons)


def scan_files(
    paths: Sequence[str], starts: Sequence[int], invalid: Sequence[str], seed: int
) -> ClusterScan:
    """Scan some files of clusters, and the files of the invalid rows beside them.

    Parameters
    ----------
    paths, starts
        The files, and the first ``row_id`` of each.
    invalid : sequence of str
        Files of invalid rows.
    seed : int
    """
    scan = ClusterScan()
    for path, start in zip(paths, starts, strict=True):
        for table in row_groups(path, start, _wanted):
            scan.merge(_scan_table(table, seed))
    for path in invalid:
        with open_table(path) as file, damage(path):
            if file.metadata.num_rows:
                reasons = file.read(["invalid_reason"])["invalid_reason"].to_pylist()
                scan.reasons.update(str(reason) for reason in reasons)
    return scan


def _wanted(names: Sequence[str]) -> list[str]:
    own = [*CLUSTER_KEYS, "is_valid", "similarity_to_representative", *needed_columns(names)]
    return list(dict.fromkeys(own))


def row_groups(
    path: str, start: int, columns: Callable[[Sequence[str]], Sequence[str]]
) -> Iterator[pa.Table]:
    """Yield the rows of a file of clusters piece by piece, ``row_id`` as the first column.

    A row group is read at a time, and is yielded in pieces of some 10^5 rows.

    Parameters
    ----------
    path : str
    start : int
        ``row_id`` of its first row.
    columns : callable
        From the names of the file's columns to those that are read.
    """
    with open_table(path) as file, damage(path):
        there = file.schema_arrow.names
        wanted = columns(there)
        names = [name for name in wanted if name in there]
        missing = [name for name in wanted if name not in there]  # of data without metadata
        nested = any("." in name for name in names)  # parquet would take it for a path
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, None if nested else names, use_threads=False)
            table = table.select([name for name in names if name != "row_id"])
            for first in range(0, table.num_rows, _SLICE_ROWS):
                some = table.slice(first, _SLICE_ROWS)
                row_ids = pa.array(np.arange(start, start + some.num_rows))
                some = some.add_column(0, "row_id", row_ids)
                for name in missing:
                    some = some.append_column(name, pa.nulls(some.num_rows, pa.string()))
                yield some
                start += some.num_rows


def _scan_table(table: pa.Table, seed: int) -> ClusterScan:
    kept = kept_columns(table)
    columns = {name: table[name].to_numpy() for name in ("row_id", *CLUSTER_KEYS)}
    frame = pd.DataFrame(columns)
    is_first = columns["row_id"] == columns["cluster_id"]
    groups = frame.loc[is_first & (columns["cluster_size"] >= 2), [*CLUSTER_KEYS]]
    hashed = groups.assign(key=hash_rows(groups["cluster_id"].to_numpy(), seed, _PURPOSE))
    own = table["similarity_to_representative"].to_numpy(zero_copy_only=False).astype(np.float32)
    to_witness = kept.witness_similarity.to_numpy(zero_copy_only=False).astype(np.float32)
    witness = kept.witness_row_id.fill_null(-1).to_numpy(zero_copy_only=False)
    is_other = np.asarray(table["is_valid"]) & ~is_first
    none = ClusterScan()
    return ClusterScan(
        _largest([none.largest, groups]),
        _first([none.random, hashed[[*none.random]]], ["key", "cluster_id"]),
        _least(
            [none.unlike_witness, _rows(frame, to_witness, witness, ~kept.is_kept & (witness >= 0))]
        ),
        _least([none.unlike_representative, _rows(frame, own, columns["cluster_id"], is_other)]),
    )


def _rows(
    frame: pd.DataFrame, similarity: np.ndarray, witness: np.ndarray, chosen: np.ndarray
) -> pd.DataFrame:
    found = frame[chosen].assign(similarity=similarity[chosen], witness_row_id=witness[chosen])
    return found[[*_ROW_KEYS]]


def _largest(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return _first(frames, ["-cluster_size", "cluster_id"], _MOST_LARGEST)


def _first(frames: Sequence[pd.DataFrame], by: Sequence[str], most: int = _MOST) -> pd.DataFrame:
    """Return the first rows of some frames by some columns; falling with a minus."""
    frame = pd.concat(frames, ignore_index=True)
    keys = [
        -frame[name[1:]].to_numpy() if name.startswith("-") else frame[name].to_numpy()
        for name in by
    ]
    return frame.iloc[np.lexsort(keys[::-1])[:most]].reset_index(drop=True)


def _least(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the least similar row of each cluster, of the clusters where that is the least."""
    frame = pd.concat(frames, ignore_index=True)
    order = np.lexsort([frame["row_id"], frame["similarity"]])
    return frame.iloc[order].drop_duplicates("cluster_id").head(_MOST).reset_index(drop=True)
