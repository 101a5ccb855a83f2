"""Members and paths of a small run, against pandas, scipy and all cosines."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree

from dask_dedup.cli.commands import main
from dask_dedup.errors import InputError
from dask_dedup.graph.forest import forest_of_edges
from dask_dedup.results.cluster_files import list_files
from dask_dedup.results.show import (
    Asked,
    find_members,
    join_paths,
    nearest_first,
    path_of_rows,
    show_rows,
    with_metadata,
)
from dask_dedup.schema import FOREST
from dask_dedup.storage.files import write_frame


def expected_members(finished, clusters):
    """The members of clusters by a brute-force grouping, in the order that is promised."""
    rows = finished.rows[finished.rows["cluster_id"].isin(clusters)]
    rows = rows.assign(similarity=finished.cosines[rows["row_id"], rows["cluster_id"]])
    return rows.sort_values(
        ["cluster_id", "similarity", "row_id"], ascending=[True, False, True], ignore_index=True
    )


def assert_members(found, expected, asked):
    for name in ("row_id", "cluster_id"):
        assert found[name].tolist() == expected[name].tolist()
    np.testing.assert_allclose(found["similarity"], expected["similarity"], atol=1e-6)
    assert found["is_kept"].tolist() == (expected["row_id"] == expected["cluster_id"]).tolist()
    gone = expected["cluster_id"].where(expected["row_id"] != expected["cluster_id"])
    assert found["witness_row_id"].astype("Float64").equals(gone.astype("Float64"))
    sizes = expected.groupby("cluster_id")["row_id"].transform("size")
    assert found["cluster_size"].tolist() == sizes.tolist()
    assert set(found.loc[found["is_asked"], "row_id"]) == set(asked)


@pytest.fixture(scope="module")
def files(finished):
    return finished.result.files


def test_find_members_of_every_row_are_those_of_its_component(finished, files):
    for row in [*range(0, 650, 13), 0, 99, 100, 379, 380, 649]:
        if row == 40:
            continue
        found = find_members(files, Asked(row=row), 0.95)
        cluster = finished.rows["cluster_id"][row]
        assert_members(found, expected_members(finished, [cluster]), [row])
        again = find_members(files, Asked(cluster=int(cluster)), 0.95)
        assert again.drop(columns="is_asked").equals(found.drop(columns="is_asked"))
        assert again.loc[again["is_asked"], "row_id"].tolist() == [cluster]


def test_find_members_of_a_url_are_the_clusters_of_all_rows_that_have_it(finished, files):
    for number in (0, 3, 44, 149, 400):
        url = f"https://example.org/{number}.jpg"
        matches = finished.rows.index[finished.rows["url"] == url]
        assert len(matches) == (2 if number < 150 else 1)
        found = find_members(files, Asked(url=url), 0.95)
        expected = expected_members(finished, finished.rows["cluster_id"][matches])
        assert_members(found, expected, matches)


def test_find_members_of_an_invalid_row_is_that_row_alone(files):
    (only,) = find_members(files, Asked(row=40), 0.95).itertuples()
    assert (only.row_id, only.cluster_id, only.cluster_size, only.is_kept) == (40, 40, 1, True)
    assert np.isnan(only.similarity)
    assert only.reason == "no usable embedding"


def test_find_members_says_why_a_row_stays_or_goes(finished, files):
    sizes = finished.rows["cluster_id"].value_counts()
    single, shared = sizes.index[sizes == 1][0], sizes.index[0]
    (only,) = find_members(files, Asked(row=int(single)), 0.95)["reason"]
    assert only == "no other row is like it"
    first, *others = find_members(files, Asked(row=int(shared)), 0.95).itertuples()
    assert first.reason == "represents its cluster"
    for one in others:
        cosine = finished.cosines[one.row_id, shared]
        assert one.reason == f"{cosine:.4f} similar to row {shared}, which stays"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(row=650), r"row 650: expected a number from 0 to 649\."),
        (Asked(row=-1), r"row -1: expected a number from 0 to 649\."),
        (Asked(cluster=700), r"cluster 700: expected a number from 0 to 649\."),
        (Asked(url="https://example.org"), r"url https://example.org: no row has it\."),
        (Asked(), "expected one of row, url and cluster, got none. Give one of them"),
        (Asked(row=1, url="x"), "expected one of row, url and cluster, got row, url. Give"),
    ],
)
def test_find_members_of_what_is_not_there_is_refused(files, asked, message):
    with pytest.raises(InputError, match=message):
        find_members(files, asked, 0.95)


def test_find_members_of_a_row_that_names_no_cluster_says_where_it_is(finished, files):
    gone = finished.rows.index[finished.rows["cluster_id"] != finished.rows["row_id"]][0]
    cluster = finished.rows["cluster_id"][gone]
    with pytest.raises(InputError, match=f"cluster {gone}: there is none; .* in cluster {cluster}"):
        find_members(files, Asked(cluster=int(gone)), 0.95)


def test_with_metadata_adds_each_row_s_own_columns(finished, files):
    found = find_members(files, Asked(url="https://example.org/3.jpg"), 0.95)
    shown = with_metadata(files, found)
    for one in shown.to_dict("records"):
        row = finished.rows.loc[one["row_id"]]
        assert one["caption"] == row["caption"]
        assert one["width.px"] == row["width.px"] == one["row_id"]
        assert list(one["tags"]) == row["tags"]
    assert shown["width.px"].dtype == pd.ArrowDtype(pa.int32())


def test_path_of_rows_has_the_bottleneck_of_a_spanning_tree(finished, files):
    """The tree by scipy over -similarity; paths in it by hand, between rows of all kinds."""
    linked = np.triu(np.where(finished.cosines >= np.float32(0.85), finished.cosines, 0), 1)
    tree = minimum_spanning_tree(csr_array(-linked.astype("f8")))
    tree = -(tree + tree.T).toarray()

    def best_way(one, other):
        waiting, seen = [(one, np.inf)], {one}
        while waiting:
            row, low = waiting.pop()
            if row == other:
                return low
            for beside in set(np.flatnonzero(tree[row])) - seen:
                seen.add(beside)
                waiting.append((int(beside), min(low, tree[row, beside])))
        return None

    rng, kinds = np.random.default_rng(2), set()
    low = finished.rows.assign(low=_components_at(finished, 0.85))
    pairs = [rng.choice(650, 2) for _ in range(60)]
    for column in ("cluster_id", "low"):
        groups = [g["row_id"].to_numpy() for _, g in low.groupby(column) if len(g) > 3]
        pairs += [rng.choice(group, 2, replace=False) for group in groups[:40]]
    for one, other in np.array(pairs).tolist():
        path, expected = path_of_rows(finished.out, files, one, other, 0.95), best_way(one, other)
        same = finished.rows["cluster_id"][one] == finished.rows["cluster_id"][other]
        kinds.add((bool(same), path is None))
        if path is None:
            assert expected is None
            continue
        if one == other:
            assert path.empty
            continue
        assert path["from_row"].iloc[0] == one
        assert path["to_row"].iloc[-1] == other
        assert path["from_row"].tolist()[1:] == path["to_row"].tolist()[:-1]
        cosines = finished.cosines[path["from_row"], path["to_row"]]
        np.testing.assert_allclose(path["similarity"], cosines, atol=1e-6)
        (weakest,) = path.loc[path["is_weakest"], "similarity"]
        assert weakest == path["similarity"].min() == pytest.approx(expected, abs=1e-6)
        assert same == (weakest >= np.float32(0.95))
    assert kinds == {(True, False), (False, False), (False, True)}


def _components_at(finished, threshold):
    return finished.result.at(threshold).compute()["cluster_id"].reindex(range(650))


def test_path_of_rows_that_are_not_there_is_refused(finished, files):
    with pytest.raises(InputError, match="row 650: expected"):
        path_of_rows(finished.out, files, 3, 650, 0.95)


def test_join_paths_lead_every_row_that_goes_to_the_one_that_stays(finished, files):
    sizes = finished.rows["cluster_id"].value_counts()
    found = find_members(files, Asked(cluster=int(sizes.index[0])), 0.95)
    paths = join_paths(finished.out, found, 650, 0.95)
    assert set(paths) == set(found.loc[~found["is_kept"], "row_id"])
    for row, path in paths.items():
        assert path["from_row"].iloc[0] == row
        assert path["to_row"].iloc[-1] == sizes.index[0]
        assert (path["similarity"] >= np.float32(0.95)).all()
        again = path_of_rows(finished.out, files, row, int(sizes.index[0]), 0.95)
        pd.testing.assert_frame_equal(path, again)
    found["is_wanted"] = found["row_id"] == found["row_id"].iloc[-1]
    assert set(join_paths(finished.out, found, 650, 0.95)) == {found["row_id"].iloc[-1]}


def test_show_rows_limits_rows_and_clusters_but_shows_what_was_asked_for(finished, files):
    members = find_members(files, Asked(cluster=_largest(finished)), 0.95)
    last = int(members["row_id"].iloc[-1])
    report = show_rows(
        finished.out, files, finished.result.summary, Asked(row=last), other=41, limit=2
    )
    (group,) = report["clusters"]
    # The row that is asked for, and the one that stays for it; nothing else within the limit.
    assert [one["row_id"] for one in group["members"]] == [members["row_id"][0], last]
    assert group["cluster_size"] == len(members)
    assert group["kept"] == 1
    assert group["members"][-1]["path"][-1]["to_row"] == group["cluster_id"]
    assert group["members"][0]["path"] is None
    assert group["members"][0]["witness_row_id"] is None
    assert report["path"] == {"from_row": last, "to_row": 41, "edges": None}


def _largest(finished):
    return int(finished.rows["cluster_id"].value_counts().index[0])


@pytest.fixture
def star(tmp_path):
    """Clusters by hand with witnesses: row 3 goes for 1, which stays beside 0; 2 goes for 0."""
    table = pa.table(
        {
            "row_id": pa.array(range(6)),
            "cluster_id": pa.array([0, 0, 0, 0, 4, 0]),
            "cluster_size": pa.array([5, 5, 5, 5, 1, 5]),
            "is_representative": [True, False, False, False, True, False],
            "is_valid": [True] * 6,
            "similarity_to_representative": pa.array([1, 0.9, 0.97, 0.6, 1, 0.93], pa.float32()),
            "is_kept": [True, True, False, False, True, True],
            "witness_row_id": pa.array([None, None, 0, 1, None, None], pa.int64()),
            "witness_similarity": pa.array([None, None, 0.97, 0.96, None, None], pa.float32()),
            "url": ["a", "b", "c", "d", "e", "f"],
            "caption": [None] * 6,
        }
    )
    (tmp_path / "clusters").mkdir()
    for i, (start, stop) in enumerate([(0, 2), (2, 6)]):
        part = table.slice(start, stop - start)
        pq.write_table(part, tmp_path / "clusters" / f"part-{i:05d}.parquet", row_group_size=1)
    edges = [(0, 2, 0.97), (1, 3, 0.96), (2, 5, 0.955), (3, 5, 0.952)]
    forest = pd.DataFrame(edges, columns=list(FOREST.columns)).astype(FOREST.dtypes)
    (tmp_path / "forest").mkdir()
    write_frame(tmp_path / "forest" / "part-00000.parquet", forest_of_edges(forest))
    return tmp_path


def test_show_rows_of_a_run_with_witnesses_shows_who_stays_for_whom(star):
    files = list_files(star / "clusters", 6)
    found = find_members(files, Asked(url="d"), 0.95)
    assert found["row_id"].tolist() == [0, 5, 1, 2, 3]
    assert found["is_kept"].tolist() == [True, True, True, False, False]
    assert found["witness_row_id"].fillna(-1).tolist() == [-1, -1, -1, 0, 1]
    assert found["similarity"].tolist() == np.array([1, 0.93, 0.9, 0.97, 0.96], "f4").tolist()
    assert found["reason"].tolist() == [
        "represents its cluster",
        *["no row that stays is similar to it by 0.95 or more"] * 2,
        "0.9700 similar to row 0, which stays",
        "0.9600 similar to row 1, which stays",
    ]
    paths = join_paths(star, found, 6, 0.95)
    assert {row: path["to_row"].tolist() for row, path in paths.items()} == {2: [0], 3: [1]}
    path = path_of_rows(star, files, 1, 0, 0.95)
    assert path["to_row"].tolist() == [3, 5, 2, 0]
    assert path["is_weakest"].tolist() == [False, True, False, False]
    shutil.rmtree(star / "forest")
    assert len(find_members(files, Asked(row=4), 0.95)) == 1


def test_show_of_text_that_is_no_utf8_escapes_it_and_finds_it(bytes_run):
    _, out, urls = bytes_run
    for words in (["--row", "41"], ["--url", urls[41].decode("utf8", "surrogateescape")]):
        done = CliRunner().invoke(main, ["show", str(out), *words, "--json"])
        assert done.exit_code == 0
        assert "http://x/\\\\xff41" in done.stdout
        assert 'http://x/\\\\xff1"' in done.stdout


def test_nearest_first_keeps_what_is_asked_for_and_its_copies_in_their_order():
    members = pd.DataFrame(
        {
            "row_id": [1, 5, 9, 2, 7, 8],
            "cluster_id": 1,
            "is_asked": [False, False, False, False, True, False],
            "witness_row_id": pd.array([None, None, None, 5, 9, 9], "Int64"),
        }
    )
    for limit, rows in ((1, [7]), (3, [9, 7, 8]), (4, [1, 9, 7, 8]), (9, [1, 5, 9, 2, 7, 8])):
        assert nearest_first(members, limit)["row_id"].tolist() == rows
