"""The second pass, by pandas over all rows."""

from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dask_dedup.results.cluster_files import list_files
from dask_dedup.results.page_rows import (
    COLUMN,
    RowScan,
    Wanted,
    describe,
    read_wanted,
    site_of,
    text_of,
)


@pytest.fixture(scope="module")
def files(finished):
    return list_files(finished.out / "clusters")


@pytest.fixture(scope="module")
def rows(finished):
    return pd.read_parquet(finished.out / "clusters")


def read(files, groups, row_ids, clusters):
    wanted = Wanted(
        np.array(row_ids), np.array(clusters), ("width.px", "tags"), 0, np.array(clusters)
    )
    whole = RowScan()
    for some in np.array_split(range(len(files.paths)), groups):
        paths, starts = [files.paths[j] for j in some], [files.starts[j] for j in some]
        whole.merge(read_wanted(paths, starts, wanted))
    return whole


@pytest.mark.parametrize("groups", [1, 4])
def test_wanted_rows_come_back_with_their_metadata(files, rows, groups):
    found = read(files, groups, [0, 7, 40, 649], []).rows.sort_values("row_id")
    true = rows[rows["row_id"].isin([0, 7, 40, 649])]
    assert found["row_id"].tolist() == [0, 7, 40, 649]
    assert found["cluster_id"].tolist() == true["cluster_id"].tolist()
    assert found["is_kept"].tolist() == true["is_kept"].tolist()
    assert found["caption"].tolist() == true["caption"].tolist()
    assert found["url"].tolist()[1] is None
    assert found[f"{COLUMN}width.px"].tolist() == ["0", "7", "40", "649"]
    assert found[f"{COLUMN}tags"].tolist()[0] == "['t0', 'x']"


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_content_of_clusters_is_counted(files, rows, groups):
    clusters = np.sort(rows[rows["cluster_size"] > 2]["cluster_id"].unique())
    found = describe(read(files, groups, [], clusters).content)
    assert found["cluster_id"].tolist() == clusters.tolist()
    own = rows[rows["cluster_id"].isin(clusters)].groupby("cluster_id")
    assert found["rows"].tolist() == own.size().tolist()
    assert found["kept"].tolist() == own["is_kept"].sum().tolist()
    assert found["urls"].tolist() == own["url"].nunique().tolist()
    assert found["captions"].tolist() == own["caption"].nunique().tolist()
    near = own["similarity_to_representative"].apply(lambda one: (one >= np.float32(0.98)).sum())
    assert found["near"].tolist() == near.tolist()
    assert found["is_exact"].all()


def test_members_are_few_and_the_same_for_any_tasks(files, rows):
    clusters = np.sort(rows[rows["cluster_size"] > 2]["cluster_id"].unique())
    one, many = (
        read(files, groups, [], clusters).members.sort_values("row_id") for groups in (1, 4)
    )
    assert one["row_id"].tolist() == many["row_id"].tolist()
    assert one.groupby("cluster_id").size().max() <= 8
    true = rows[~rows["is_representative"] & rows["cluster_id"].isin(clusters)]
    least = true.assign(s=true["witness_similarity"]).groupby("cluster_id")["s"].min()
    assert one.groupby("cluster_id")["similarity"].min().tolist() == least.tolist()


@pytest.mark.parametrize("groups", [1, 4])
def test_sites_are_counted_exactly(files, rows, groups):
    counts = read(files, groups, [], []).sites
    site = rows["url"].map(lambda url: urlsplit(url).hostname, na_action="ignore").fillna("")
    assert counts.missing == 0
    assert counts.frame["rows"].to_dict() == site.value_counts().to_dict()
    gone = site[~rows["is_kept"]].value_counts()
    assert counts.top(9).set_index("name")["dropped"].to_dict() == gone.to_dict()


@pytest.mark.parametrize(
    ("url", "site"),
    [
        ("https://User:pw@WWW.Example.org:8080/a//b", "www.example.org"),
        ("http://[::1]:9/x", "[::1]"),
        ("//cdn.example.org/x", "cdn.example.org"),
        ("debian:package/a/b.png", "debian:package"),
        ("javascript:alert(1)//http://a.b/", "javascript:alert(1)"),
        ("picture.jpg", "picture.jpg"),
        ("http:///nohost", "http:"),
        ("/absolute", ""),
        ("", ""),
        (None, ""),
        ("https://a.b?q#f", "a.b"),
    ],
)
def test_site_of_says_which_host_a_url_names(url, site):
    assert site_of(pa.array([url], pa.string())).tolist() == [site]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array(["a", None]), ["a", None]),
        (pa.array(["a", None], pa.large_string()), ["a", None]),
        (pa.array(["a", None], pa.string_view()), ["a", None]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.nulls(2), [None, None]),
        (pa.array([1, None]), ["1", None]),
        (pa.array([1.5, None]), ["1.5", None]),
        (pa.array([[1, 2], None]), ["[1, 2]", None]),
        (pa.array([b"\xff", b"a"]), ["\\xff", "a"]),
    ],
)
def test_text_of_turns_any_column_into_text(values, expected):
    assert text_of(pa.chunked_array([values])).to_pylist() == expected
