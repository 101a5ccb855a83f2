import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dask_dedup import (
    build_cells,
    fit_pca,
    join_cells,
    join_clusters,
    label_components,
    read_dataset,
    spanning_forest,
)
from dask_dedup.data.part_rows import PartRows
from dask_dedup.results.clusters import (
    clusters_of_part,
    count_linked_through_others,
    largest_clusters,
    write_clusters,
)
from dask_dedup.results.members import compare_members, with_witnesses
from dask_dedup.schema import CLUSTERS, LABELS, check_frame


@pytest.fixture
def data(tmp_path, write_dataset):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 6)).astype("f4")
    rows[25] = rows[3] + 1e-4
    rows[31] = rows[3]
    rows[10] = np.nan
    parts = np.split(rows, [8, 8, 20, 30])  # the second part is empty
    start = np.cumsum([0, *(len(part) for part in parts)])
    metadata = [
        pd.DataFrame(
            {
                "URL": [f"u{start[i] + j}" for j in range(len(part))],
                "TEXT": [None if j % 3 else "é\n" for j in range(len(part))],
                "width": pd.array([None if j % 2 else j for j in range(len(part))], "Int64"),
                "cluster_id": [f"mine {start[i] + j}" for j in range(len(part))],
            }
        ).astype({"URL": "str", "TEXT": "str", "cluster_id": "str"})
        for i, part in enumerate(parts)
    ]
    folder = write_dataset(tmp_path / "data", parts, metadata)
    return read_dataset(folder), pd.concat(metadata, ignore_index=True)


def chain(data, folder):
    layout = build_cells(data, fit_pca(data, 4), folder)
    forest = spanning_forest(join_cells(layout, 0.99))
    labels = label_components(forest, 0.99)
    return join_clusters(data, labels), labels


def test_join_clusters_equals_a_pandas_join(tmp_path, data):
    data, metadata = data
    lazy, labels = chain(data, tmp_path / "cells")
    assert lazy.npartitions == 4
    clusters = check_frame(lazy.compute().reset_index(drop=True), CLUSTERS, "clusters")
    labels = labels.compute()
    assert labels["cluster_id"].to_dict() == {3: 3, 25: 3, 31: 3}
    expected = pd.DataFrame({"row_id": np.arange(40)}).join(labels)
    expected["cluster_id"] = expected["cluster_id"].fillna(expected["row_id"]).astype("int64")
    expected["cluster_size"] = expected["cluster_size"].fillna(1).astype("int64")
    for name in ("row_id", "cluster_id", "cluster_size"):
        assert clusters[name].tolist() == expected[name].tolist()
    assert clusters["is_representative"].tolist() == [row not in (25, 31) for row in range(40)]
    assert clusters["is_valid"].tolist() == [row != 10 for row in range(40)]
    similarity = clusters["similarity_to_representative"]
    rows = np.concatenate([np.load(part.embeddings.path) for part in data.parts]).astype("f8")
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert similarity.isna().tolist() == [row == 10 for row in range(40)]
    assert (similarity.drop([10, 25]) == 1).all()  # 31 repeats 3
    assert similarity[25] == np.float32(unit[25] @ unit[3]) > 0.99
    assert clusters["url"].tolist() == metadata["URL"].tolist()
    assert clusters["source_cluster_id"].tolist() == metadata["cluster_id"].tolist()
    assert clusters["caption"].isna().tolist() == metadata["TEXT"].isna().tolist()
    assert clusters["width"].fillna(-1).tolist() == metadata["width"].fillna(-1).tolist()


def members_of(data, labels):
    return with_witnesses(compare_members(labels, PartRows(data.filled_parts)), None, None)


def test_join_clusters_is_lazy(tmp_path, data, no_compute):
    data, _ = data
    layout = build_cells(data, fit_pca(data, 4), tmp_path / "cells")
    with no_compute():
        labels = label_components(spanning_forest(join_cells(layout, 0.9)), 0.9)
        join_clusters(data, labels)


def test_write_clusters_keeps_types_and_counts_representatives(tmp_path, data):
    data, _ = data
    labels = pd.DataFrame(
        {"cluster_id": [3, 3], "cluster_size": [2, 2]}, index=pd.Index([3, 25], name="row_id")
    ).astype(LABELS.dtypes)
    none, members = np.empty(0, np.int64), members_of(data, labels)
    path, alike = tmp_path / "a.parquet", {"rows": 0, "below_0.8": 0, "lowest": None}
    counts = write_clusters(data.parts[0], data.columns, members, none, path, 0.99)
    assert counts.pop("linked_through_others") == alike
    none_far = {"dropped_by_cap": 0, "dropped_by_decision": 0}
    sizes = {"1": 7, "2": 1}
    largest = counts.pop("largest")
    assert counts == {"rows": 8, "invalid_rows": 0, "kept": 8, "sizes": sizes, **none_far}
    assert largest == [{"cluster_id": 3, "rows": 2}]
    counts = write_clusters(
        data.parts[2], data.columns, members, np.array([10]), tmp_path / "b.parquet", 0.99
    )
    assert counts.pop("linked_through_others") == alike
    sizes = {"1": 11}
    assert counts.pop("largest") == []
    assert counts == {"rows": 12, "invalid_rows": 1, "kept": 12, "sizes": sizes, **none_far}
    counts = write_clusters(
        data.parts[3], data.columns, members, none, tmp_path / "c.parquet", 0.99
    )
    assert counts["kept"] == counts["rows"] - 1 == 9
    schema = clusters_of_part(data.parts[1], data.columns, members, none).schema
    assert schema.field("similarity_to_representative").type == pa.float32()
    assert schema.field("witness_row_id").type == pa.int64()
    assert schema.field("width").type == pa.int64()
    source = pq.read_schema(data.parts[0].metadata_path)
    assert schema.field("caption").type == source.field(data.columns.sources[1][0]).type


def test_similarity_to_representative_in_chunks_and_across_parts_is_the_cosine(
    tmp_path, write_dataset
):
    rng = np.random.default_rng(3)
    rows = (np.repeat(rng.normal(size=(20, 8)), 15, axis=0) + rng.normal(size=(300, 8))).astype(
        "f2"
    )
    data = read_dataset(write_dataset(tmp_path / "data", np.split(rows, [70, 71, 200])))
    ids = np.arange(300)
    labels = pd.DataFrame({"cluster_id": ids // 15 * 15, "cluster_size": 15}, index=ids)
    members = members_of(data, labels)
    found = np.concatenate(
        [
            clusters_of_part(part, data.columns, members, np.empty(0, np.int64))[
                "similarity_to_representative"
            ].to_numpy()
            for part in data.filled_parts
        ]
    )
    labels.index.name = "row_id"
    in_chunks = compare_members(labels, PartRows(data.filled_parts), read_bytes=7 * 16)
    np.testing.assert_array_equal(in_chunks["similarity"], found)
    unit = rows.astype("f8") / np.linalg.norm(rows.astype("f8"), axis=1, keepdims=True)
    np.testing.assert_allclose(found, (unit * unit[ids // 15 * 15]).sum(axis=1), atol=1e-7)


def test_count_linked_through_others_at_the_edge_is_decided_in_float32():
    """float32's 0.95 lies below the 0.95 that was asked for, and was linked all the same."""
    edge = np.float32(0.95)
    similarity = np.array([1, edge, np.nextafter(edge, np.float32(0)), np.nan, 0.8, -0.25], "f4")
    assert float(edge) < 0.95
    assert count_linked_through_others(similarity, 0.95) == {
        "rows": 3, "below_0.8": 1, "lowest": -0.25,
    }  # fmt: skip
    assert count_linked_through_others(similarity[[0, 1, 3]], 0.95) == {
        "rows": 0, "below_0.8": 0, "lowest": None,
    }  # fmt: skip


def test_write_clusters_counts_a_chain_s_rows_that_are_unlike_the_one_that_stays(
    tmp_path, write_dataset
):
    """Rows 15 degrees apart: neighbours have 0.966, and 30, 45 and 60 degrees are below 0.95."""
    degrees = np.radians([0, 15, 30, 45, 60, 200, 215])
    rows = np.column_stack([np.cos(degrees), np.sin(degrees)]).astype("f8")
    data = read_dataset(write_dataset(tmp_path / "data", [rows[:3], rows[3:]]))
    labels = pd.DataFrame(
        {"cluster_id": [0] * 5 + [5] * 2, "cluster_size": [5] * 5 + [2] * 2},
        index=pd.Index(range(7), name="row_id"),
    )
    counted = [
        write_clusters(
            part, data.columns, members_of(data, labels), np.empty(0, np.int64),
            tmp_path / f"{part.index}.parquet", 0.95,
        )["linked_through_others"]
        for part in data.parts
    ]  # fmt: skip
    half, root = np.float32(0.5), np.float32(np.sqrt(0.75))
    assert counted[0] == {"rows": 1, "below_0.8": 0, "lowest": pytest.approx(root)}
    assert counted[1] == {"rows": 2, "below_0.8": 2, "lowest": pytest.approx(half)}


def test_largest_clusters_are_five_ordered_by_size_then_id():
    given = [{"cluster_id": i, "rows": rows} for i, rows in enumerate([2, 9, 1, 9, 3, 2, 4, 1, 2])]
    found = largest_clusters(given)
    assert [(one["cluster_id"], one["rows"]) for one in found] == [
        (1, 9), (3, 9), (6, 4), (4, 3), (0, 2),
    ]  # fmt: skip
    assert largest_clusters([{"cluster_id": 0, "rows": 1}]) == []
