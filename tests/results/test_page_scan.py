"""The first pass, by pandas over all rows."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dask_dedup.results.cluster_files import list_files
from dask_dedup.results.page_cards import Tiles
from dask_dedup.results.page_rows import Wanted, read_wanted
from dask_dedup.results.page_scan import ClusterScan, scan_files


@pytest.fixture(scope="module")
def files(finished):
    return list_files(finished.out / "clusters")


@pytest.fixture(scope="module")
def rows(finished):
    return pd.read_parquet(finished.out / "clusters")


def scan(files, out, groups):
    whole = ClusterScan()
    invalid = sorted((out / "invalid").iterdir())
    for some in np.array_split(range(len(files.paths)), groups):
        paths, starts = [files.paths[j] for j in some], [files.starts[j] for j in some]
        whole.merge(scan_files(paths, starts, [str(invalid[j]) for j in some], 0))
    return whole


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_scan_finds_the_largest_and_the_least_alike(finished, files, rows, groups):
    found = scan(files, finished.out, groups)
    first = rows[rows["is_representative"] & (rows["cluster_size"] >= 2)]
    largest = first.sort_values(["cluster_size", "cluster_id"], ascending=[False, True])[:256]
    assert found.largest["cluster_id"].tolist() == largest["cluster_id"].tolist()
    assert found.largest["cluster_size"].tolist() == largest["cluster_size"].tolist()
    gone = rows[~rows["is_kept"]].sort_values(["witness_similarity", "row_id"])
    gone = gone.drop_duplicates("cluster_id")[:64]
    assert found.unlike_witness["row_id"].tolist() == gone["row_id"].tolist()
    assert found.unlike_witness["witness_row_id"].tolist() == gone["witness_row_id"].tolist()
    other = rows[rows["is_valid"] & ~rows["is_representative"]]
    other = other.sort_values(["similarity_to_representative", "row_id"])
    other = other.drop_duplicates("cluster_id")[:64]
    assert found.unlike_representative["row_id"].tolist() == other["row_id"].tolist()
    assert found.unlike_representative["similarity"].tolist() == (
        other["similarity_to_representative"].tolist()
    )
    assert dict(found.reasons) == {"nan": 1}


def test_random_clusters_are_the_same_for_any_tasks(finished, files, rows):
    one, many = (scan(files, finished.out, groups).random for groups in (1, 4))
    pd.testing.assert_frame_equal(one, many)
    assert one["cluster_id"].is_unique
    sizes = rows.set_index("row_id")["cluster_size"]
    assert one["cluster_size"].tolist() == sizes[one["cluster_id"]].tolist()
    assert one["cluster_size"].min() >= 2


def test_scan_of_no_files_is_empty():
    found = scan_files([], [], [], 0)
    assert len(found.largest) == len(found.random) == len(found.unlike_witness) == 0


def test_a_dropped_row_without_a_witness_is_beside_nothing(finished, tmp_path):
    whole = pq.read_table(finished.out / "clusters" / "part-00002.parquet")
    gone = np.flatnonzero(~np.asarray(whole["is_kept"]))
    positions = np.isin(np.arange(len(whole)), gone[:3])
    place = whole.schema.names.index("witness_row_id")
    for i in (place, place + 1):
        column = whole.column(i).combine_chunks()
        none = pc.if_else(pa.array(positions), pa.scalar(None, column.type), column)
        whole = whole.set_column(i, whole.schema.field(i), none)
    pq.write_table(whole, tmp_path / "part.parquet", write_page_checksum=True)
    found = scan_files([str(tmp_path / "part.parquet")], [100], [], 0).unlike_witness
    assert found["witness_row_id"].min() >= 0
    assert found["similarity"].notna().all()
    assert not found["row_id"].isin(100 + gone[:3]).any()
    wanted = Wanted(100 + gone[:3], np.empty(0, np.int64), (), 0)
    rows = read_wanted([str(tmp_path / "part.parquet")], [100], wanted).rows
    assert rows["witness_row_id"].tolist() == [-1, -1, -1]
    records = {row["row_id"]: {**row, "site": ""} for row in rows.to_dict("records")}
    tile = Tiles(records, None, 0.95, {}, "").cluster([int(100 + gone[0])]).first
    assert (tile.verdict, tile.note) == ("goes", "no row that stays is like it")
