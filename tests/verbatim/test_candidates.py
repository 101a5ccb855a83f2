"""Candidates of a small run with planted groups, beside pandas over its clusters."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dask_dedup
from dask_dedup.errors import OutputError, SettingsError
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.verbatim.candidates import CandidateSettings, find_candidates

run_here = partial(dask_dedup.run, execute=compute_tasks)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, write_dataset) -> Path:
    """A run over 400 rows in three parts: groups of 40, 30, 12, 12, 5, 2, and single rows."""
    folder = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(4)
    sizes = [40, 30, 12, 12, 5, 2]
    which = np.concatenate([np.repeat(np.arange(len(sizes)), sizes), np.full(299, -1)])
    which = which[rng.permutation(400)]
    centres = rng.normal(size=(len(sizes), 24))
    rows = rng.normal(size=(400, 24))
    for group in range(len(sizes)):
        own = np.flatnonzero(which == group)
        noise = 0.0 if group == 2 else 0.05  # the third is of equal rows
        rows[own] = centres[group] + noise * rng.normal(size=(len(own), 24))
    captions = [
        f"a {group}{'!' * (i % 3)}" if group >= 0 else None for i, group in enumerate(which)
    ]
    captions = [None if group == 3 else text for group, text in zip(which, captions, strict=True)]
    metadata = pd.DataFrame(
        {
            "url": [f"https://example.org/{i}.jpg" for i in range(400)],
            "caption": pd.array(captions, "str"),
            "k": np.arange(400) * 10,  # a name of ours
            "planted": which,
        }
    )
    cuts = [150, 260]
    write_dataset(
        folder / "data",
        np.split(rows.astype("f4"), cuts),
        [metadata[:150], metadata[150:260], metadata[260:]],
    )
    run_here(folder / "data", folder / "out", threshold=0.95)
    return folder / "out"


def _expected(out: Path) -> pd.DataFrame:
    """Groups by pandas: the row that stays, and k."""
    clusters = pd.read_parquet(out / "clusters")
    near = clusters[~clusters["is_kept"] & (clusters["witness_similarity"] >= np.float32(0.95))]
    groups = near.groupby("witness_row_id").agg(
        k=("row_id", "size"), least=("witness_similarity", "min")
    )
    groups["k"] += 1
    groups = groups.reset_index().rename(columns={"witness_row_id": "row_id"})
    return groups.sort_values(["k", "row_id"], ascending=[False, True], ignore_index=True)


def test_find_candidates_are_the_largest_groups(out: Path, tmp_path: Path) -> None:
    summary = find_candidates(out, tmp_path / "dest", CandidateSettings(top=4))
    found = pd.read_parquet(tmp_path / "dest/candidates/candidates.parquet")
    clusters = pd.read_parquet(out / "clusters").set_index("row_id")
    expected = _expected(out)
    planted = clusters["planted"].loc[expected["row_id"]].to_numpy()
    assert sorted(expected["k"][planted != 3], reverse=True)[:2] == [40, 30]
    with_caption = expected[planted != 3].head(4)  # the fourth group has no caption
    assert found["row_id"].tolist() == with_caption["row_id"].tolist()
    assert found["k"].tolist() == with_caption["k"].tolist()
    np.testing.assert_array_equal(found["least_similarity"], with_caption["least"])
    assert found["candidate"].tolist() == [0, 1, 2, 3]
    assert found["url"].tolist() == clusters["url"].loc[found["row_id"]].tolist()
    assert found["source_k"].tolist() == clusters["k"].loc[found["row_id"]].tolist()
    assert summary["groups"] == len(expected)
    assert summary["candidates"] == 4
    before_last = expected["row_id"].tolist().index(found["row_id"].iloc[-1])
    assert summary["without_caption"] == (planted[:before_last] == 3).sum() > 0


def test_find_candidates_counts_captions(out: Path, tmp_path: Path) -> None:
    find_candidates(out, tmp_path / "dest", CandidateSettings(top=3))
    folder = tmp_path / "dest/candidates"
    captions = pd.read_parquet(folder / "captions.parquet")
    candidates = pd.read_parquet(folder / "candidates.parquet")
    clusters = pd.read_parquet(out / "clusters")
    for row in candidates.itertuples():
        own = clusters[
            (clusters["row_id"] == row.row_id) | (clusters["witness_row_id"] == row.row_id)
        ]
        expected = own["caption"].value_counts().to_dict()
        mine = captions[captions["candidate"] == row.candidate]
        assert dict(zip(mine["caption"], mine["count"], strict=True)) == expected
        assert mine["count"].is_monotonic_decreasing
        assert row.distinct_captions == len(expected) == 3


def test_find_candidates_members_are_copies_of_their_group(out: Path, tmp_path: Path) -> None:
    find_candidates(out, tmp_path / "dest", CandidateSettings(top=3, members=6))
    members = pd.read_parquet(tmp_path / "dest/candidates/members.parquet")
    candidates = pd.read_parquet(tmp_path / "dest/candidates/candidates.parquet")
    clusters = pd.read_parquet(out / "clusters").set_index("row_id")
    assert members.groupby("candidate").size().tolist() == [6, 6, 6]
    kept = candidates["row_id"].to_numpy()[members["candidate"]]
    own = clusters.loc[members["row_id"]]
    np.testing.assert_array_equal(own["witness_row_id"], kept)
    np.testing.assert_array_equal(own["witness_similarity"], members["similarity"])
    np.testing.assert_array_equal(own["url"], members["url"])


def test_find_candidates_of_equal_rows_have_equal_members_only_where_there_are_no_others(
    out: Path, tmp_path: Path
) -> None:
    find_candidates(out, tmp_path / "dest", CandidateSettings(top=3, members=100))
    members = pd.read_parquet(tmp_path / "dest/candidates/members.parquet")
    candidates = pd.read_parquet(tmp_path / "dest/candidates/candidates.parquet")
    assert (members.groupby("candidate").size() == candidates["k"] - 1).all()
    assert (members["similarity"][members["candidate"] == 2] == 1).all()


def test_find_candidates_filters(out: Path, tmp_path: Path) -> None:
    expected = _expected(out)
    find_candidates(out, tmp_path / "a", CandidateSettings(smallest=13))
    found = pd.read_parquet(tmp_path / "a/candidates/candidates.parquet")
    assert (found["k"] >= 13).all() and len(found) == (expected["k"] >= 13).sum()
    summary = find_candidates(out, tmp_path / "b", CandidateSettings(caption_length=5))
    assert summary["candidates"] > 0
    captions = pd.read_parquet(tmp_path / "b/candidates/captions.parquet")
    np.testing.assert_array_equal(captions["is_prompt"], captions["caption"].str.len() >= 5)
    summary = find_candidates(out, tmp_path / "c", CandidateSettings(caption_length=50))
    assert summary["candidates"] == 0
    assert summary["without_caption"] == summary["groups"] == len(expected)


def test_find_candidates_without_any_group_finds_none(out: Path, tmp_path: Path) -> None:
    summary = find_candidates(out, tmp_path / "dest", CandidateSettings(smallest=1000))
    assert (summary["groups"], summary["candidates"]) == (0, 0)
    for name in ("candidates", "captions", "members"):
        assert len(pd.read_parquet(tmp_path / f"dest/candidates/{name}.parquet")) == 0


def test_find_candidates_of_clusters_that_are_another_s_are_refused(
    out: Path, tmp_path: Path
) -> None:
    shutil.copytree(out, tmp_path / "out")
    forest = tmp_path / "out/forest/part-00000.parquet"
    shutil.copy(forest, tmp_path / "out/clusters/part-00000.parquet")
    with pytest.raises(OutputError, match=r"part-00000\.parquet.*not whole"):
        find_candidates(tmp_path / "out", tmp_path / "dest")


def test_find_candidates_above_a_similarity_counts_those_alone(out: Path, tmp_path: Path) -> None:
    find_candidates(out, tmp_path / "dest", CandidateSettings(alike=0.999, top=1))
    (found,) = pd.read_parquet(tmp_path / "dest/candidates/candidates.parquet").itertuples()
    clusters = pd.read_parquet(out / "clusters")
    near = clusters[clusters["witness_similarity"] >= np.float32(0.999)]
    counts = near["witness_row_id"].value_counts() + 1
    counts = counts[counts.index.isin(clusters["row_id"][clusters["planted"] != 3])]
    assert found.k == counts.max()


def test_find_candidates_again_has_nothing_to_do(out: Path, tmp_path: Path) -> None:
    find_candidates(out, tmp_path / "dest")
    before = (tmp_path / "dest/candidates/candidates.parquet").stat()
    find_candidates(out, tmp_path / "dest")
    after = (tmp_path / "dest/candidates/candidates.parquet").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    with pytest.raises(OutputError, match="with other settings"):
        find_candidates(out, tmp_path / "dest", CandidateSettings(top=2))
    assert (
        find_candidates(out, tmp_path / "dest", CandidateSettings(top=2), overwrite=True)[
            "candidates"
        ]
        == 2
    )


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (CandidateSettings(top=0), "top: expected at least 1, got 0"),
        (CandidateSettings(alike=1.5), "alike: expected a cosine from 0 to 1, got 1.5"),
        (CandidateSettings(members=-1), "members: expected at least 0, got -1"),
    ],
)
def test_find_candidates_with_impossible_settings_is_refused(
    settings: CandidateSettings, text: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=text):
        find_candidates(tmp_path, tmp_path / "dest", settings)


def test_find_candidates_into_a_folder_of_somebody_is_refused(out: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    dest.mkdir()
    (dest / "mine.txt").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"dest: holds files of something else \(mine\.txt\)"):
            find_candidates(out, dest, overwrite=overwrite)
    assert [path.name for path in dest.iterdir()] == ["mine.txt"]
    with pytest.raises(OutputError, match="holds files of something else"):
        find_candidates(out, out)
    (dest / "mine.txt").unlink()
    find_candidates(out, dest)
    (dest / "made").mkdir()  # ours by now: pictures made elsewhere may lie there
    find_candidates(out, dest, CandidateSettings(top=2), overwrite=True)
