"""What the workers do to find candidates: see `dask_dedup.verbatim.candidates`.

A *group* is a row that stays and the rows that are dropped for it at the threshold or above: one
picture, where a cluster may be a theme.

1. count: the rows of each group in one part, into buckets by the row that stays.
2. top: the largest groups of a bucket.
3. collect: of the chosen groups, the captions and the members in one part, by group.
4. combine: the captions and the members of the groups of a bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dask_dedup.paths import AnyPath
from dask_dedup.results.bucket_files import BucketOut, bucket_of, read_bucket
from dask_dedup.results.finished_run import open_table
from dask_dedup.results.kept_rows import kept_columns, needed_columns
from dask_dedup.storage.checksums import damage
from dask_dedup.storage.files import read_frame, write_aside, write_frame
from dask_dedup.vectors.sample import hash_rows

__all__ = ["collect_part", "combine_groups", "count_part", "top_groups"]

_COUNTS = pa.schema([("row_id", pa.int64()), ("copies", pa.int64()), ("least", pa.float32())])
_CAPTIONS = pa.schema(
    [
        ("group", pa.int64()),
        ("row_id", pa.int64()),  # of a member; null of a caption
        ("similarity", pa.float32()),
        ("key", pa.uint64()),
        ("caption", pa.string()),
        ("count", pa.int64()),
    ]
)
_MOST_CAPTIONS = 100  # of a group
_PURPOSE = 22  # of the choice of members: see vectors.sample


def count_part(path: str, buckets: int, threshold: float, target: AnyPath) -> dict[str, int]:
    """Write the groups of one part, and how many of its rows are dropped for each."""
    table = _read(path, [])
    witness, similarity = _near(table, threshold)
    groups, place = np.unique(witness, return_inverse=True)
    least = np.full(len(groups), np.inf, np.float32)
    np.minimum.at(least, place, similarity)
    counts = pa.table([groups, np.bincount(place, minlength=len(groups)), least], schema=_COUNTS)
    with write_aside(target) as temporary, BucketOut(Path(temporary), _COUNTS) as out:
        out.write(counts, bucket_of(counts["row_id"], buckets))
    return {"rows": table.num_rows, "groups": len(groups)}


def top_groups(
    paths: Sequence[str], bucket: int, most: int, smallest: int, alike: float, target: AnyPath
) -> dict[str, int]:
    """Write the largest groups of a bucket: of ``smallest`` rows and least similarity ``alike``."""
    found = read_bucket(paths, bucket).to_pandas()
    groups = found.groupby("row_id").agg(copies=("copies", "sum"), least=("least", "min"))
    groups["k"] = groups.pop("copies") + 1  # the row that stays is a copy, too
    wanted = groups[(groups["k"] >= smallest) & (groups["least"] >= np.float32(alike))]
    top = wanted.reset_index().sort_values(["k", "row_id"], ascending=[False, True])
    write_frame(target, top.head(most))
    return {"rows": len(found), "groups": len(wanted)}


def collect_part(
    path: str, groups_path: AnyPath, buckets: int, members: int, threshold: float, target: AnyPath
) -> dict[str, int]:
    """Write the captions and some members that chosen groups have in one part."""
    chosen = np.sort(read_frame(groups_path)["row_id"].to_numpy())
    table = _read(path, ["caption"])
    row_ids = table["row_id"].to_numpy()
    near = kept_columns(table)
    own = np.where(near.is_kept, row_ids, near.witness_row_id.fill_null(-1).to_numpy())
    alike = near.witness_similarity.fill_null(1).to_numpy()
    is_wanted = np.isin(own, chosen) & (near.is_kept | (alike >= np.float32(threshold)))
    rows = pd.DataFrame(
        {
            "group": own[is_wanted],
            "row_id": row_ids[is_wanted],
            "similarity": alike[is_wanted],
            "caption": table["caption"].filter(pa.array(is_wanted)).cast(pa.string()).to_numpy(),
        }
    )
    captions = rows.groupby(["group", "caption"], dropna=True).size().rename("count").reset_index()
    # Equal rows tell nothing of what varies: they come last.
    rows["key"] = (hash_rows(rows["row_id"].to_numpy(), 0, _PURPOSE) >> np.uint64(1)) + (
        (rows["similarity"] == 1).to_numpy(np.uint64) << np.uint64(63)
    )
    others = rows[rows["group"] != rows["row_id"]].drop(columns="caption")
    found = pd.concat([captions, _first(others, members)], ignore_index=True)
    result = pa.Table.from_pandas(
        found.reindex(columns=_CAPTIONS.names).astype({"row_id": "Int64", "count": "Int64"}),
        _CAPTIONS,
        preserve_index=False,
    )
    bucket = np.searchsorted(chosen, found["group"].to_numpy(np.int64)) % buckets
    with write_aside(target) as temporary, BucketOut(Path(temporary), _CAPTIONS) as out:
        out.write(result, bucket)
    return {"rows": table.num_rows}


def combine_groups(
    paths: Sequence[str], bucket: int, members: int, captions_path: AnyPath, members_path: AnyPath
) -> dict[str, Any]:
    """Write the captions of the groups of a bucket by falling count, and their members."""
    found = read_bucket(paths, bucket).to_pandas()
    is_caption = found["row_id"].isna()
    captions = found[is_caption].groupby(["group", "caption"])["count"].sum().reset_index()
    captions = captions.sort_values(["group", "count", "caption"], ascending=[True, False, True])
    captions["distinct"] = captions.groupby("group")["caption"].transform("size")
    top = captions.groupby("group").head(_MOST_CAPTIONS)
    write_frame(captions_path, top.astype({"count": np.int64, "distinct": np.int64}))
    chosen = _first(found[~is_caption].astype({"row_id": np.int64}), members)
    write_frame(members_path, chosen[["group", "row_id", "similarity"]])
    return {"rows": len(found)}


def _first(rows: pd.DataFrame, members: int) -> pd.DataFrame:
    """Return some rows of each group: of the smallest keys."""
    return rows.sort_values(["group", "key", "row_id"]).groupby("group").head(members)


def _read(path: str, more: Sequence[str]) -> pa.Table:
    with open_table(path) as file, damage(path):
        names = ["row_id", *needed_columns(file.schema_arrow.names), *more]
        return file.read(names)


def _near(table: pa.Table, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the witnesses of the rows that are dropped at the threshold or above, and cosines."""
    kept = kept_columns(table)
    is_near = ~kept.is_kept & pc.greater_equal(
        kept.witness_similarity, pa.scalar(np.float32(threshold), pa.float32())
    ).fill_null(False).to_numpy(zero_copy_only=False)
    chosen = pa.array(is_near)
    witness = kept.witness_row_id.filter(chosen).to_numpy()
    return witness, kept.witness_similarity.filter(chosen).to_numpy()
