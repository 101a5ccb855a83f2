"""Exports: what is in them by pandas and numpy, other readers, resume, refusals."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

import dask_dedup
from dask_dedup import InputError, OutputError, SettingsError, export, read_dataset
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)


def names(path):
    return sorted(p.name for p in Path(path).iterdir())


def arrays(folder):
    return np.concatenate([np.load(folder / name) for name in names(folder)])


@pytest.mark.parametrize("what", ["kept", "dropped", "all"])
@pytest.mark.parametrize("shard_rows", [None, 17])
def test_export_is_the_chosen_rows_of_the_input(
    tmp_path, small_run, small_data, small_clusters, planted, what, shard_rows, plain, counts_of
):
    embeddings, metadata = planted
    summary = export(small_run, tmp_path / "to", what=what, shard_rows=shard_rows)
    is_kept = small_clusters["is_kept"].to_numpy()
    chosen = {"kept": is_kept, "dropped": ~is_kept, "all": np.ones(len(is_kept), bool)}[what]
    positions = np.flatnonzero(chosen)
    assert (summary["rows"], summary["source_rows"]) == (len(positions), len(is_kept))
    np.testing.assert_array_equal(arrays(tmp_path / "to" / "img_emb"), embeddings[positions])
    texts = arrays(tmp_path / "to" / "text_emb")
    np.testing.assert_array_equal(texts, -embeddings[positions].astype("f2"))
    assert texts.dtype == np.float16
    found = pd.read_parquet(tmp_path / "to" / "metadata")
    assert found["row_id"].tolist() == positions.tolist()
    for name in metadata:
        assert plain(found[name]) == plain(metadata[name].iloc[positions]), name
    own = small_clusters.iloc[positions].reset_index(drop=True)
    assert found["cluster_id"].equals(own["cluster_id"])
    if what != "dropped":
        counts = counts_of(small_clusters)[positions].where(own["is_kept"].to_numpy())
        np.testing.assert_array_equal(found["duplicate_count"].astype("f8"), counts)
    if what == "kept":
        assert "witness_row_id" not in found
        assert found["duplicate_count"].sum() == len(is_kept)
    else:
        for name in ("witness_row_id", "witness_similarity"):
            np.testing.assert_array_equal(found[name].astype("f8"), own[name].astype("f8"))
    if what == "all":
        assert found["is_kept"].tolist() == is_kept.tolist()
    made, input_names = names(tmp_path / "to" / "metadata"), names(small_data / "metadata")
    if shard_rows is None:
        assert made == [n for i, n in enumerate(input_names) if i != 2]  # an empty part has no rows
        assert names(tmp_path / "to" / "img_emb")[0] == "img_emb_0.npy"
    else:
        rows = [pq.read_metadata(tmp_path / "to" / "metadata" / n).num_rows for n in made]
        assert rows == [17] * (len(positions) // 17) + [len(positions) % 17] * bool(
            len(positions) % 17
        )
        assert made[:2] == ["metadata_00000.parquet", "metadata_00001.parquet"]
    types = pq.read_schema(tmp_path / "to" / "metadata" / made[0])
    assert types.field("width").type == pa.int16()
    assert pa.types.is_dictionary(types.field("kind").type)


def test_export_witnesses_are_kept_and_as_similar_as_is_said(tmp_path, small_run, planted):
    export(small_run, tmp_path / "to", what="all", format="parquet")
    found = pd.read_parquet(tmp_path / "to" / "parquet")
    unit = planted[0].astype("f8") / np.linalg.norm(planted[0].astype("f8"), axis=1, keepdims=True)
    dropped = found[~found["is_kept"]]
    witnesses = dropped["witness_row_id"].astype(int).to_numpy()
    assert found["is_kept"].to_numpy()[witnesses].all()
    cosines = (unit[dropped["row_id"]] * unit[witnesses]).sum(axis=1)
    np.testing.assert_allclose(dropped["witness_similarity"].astype("f8"), cosines, atol=1e-6)


def test_run_over_an_export_finds_nothing(tmp_path, small_run):
    export(small_run, tmp_path / "to")
    made = read_dataset(tmp_path / "to")
    unit = made.embeddings.compute().astype("f8")
    unit = unit[np.isfinite(unit).all(axis=1)]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = unit @ unit.T - 2 * np.eye(len(unit))
    assert cosines.max() < 0.95  # all true pairs were found: none is left
    summary = run_here(tmp_path / "to", tmp_path / "again", audit_queries=0, cells=1)
    assert (summary["duplicates"], summary["invalid_rows"]) == (0, 1)
    again = pd.read_parquet(tmp_path / "again" / "clusters")
    before = pd.read_parquet(tmp_path / "to" / "metadata")
    assert again["source_row_id"].tolist() == before["row_id"].tolist()
    second = export(tmp_path / "again", tmp_path / "second")
    assert second["rows"] == len(before)
    frame = pd.read_parquet(tmp_path / "second" / "metadata")
    assert frame["source_duplicate_count"].equals(before["duplicate_count"])


def test_export_of_a_list_column_keeps_it_one(tmp_path, planted, small_clusters):
    embeddings, metadata = planted
    (tmp_path / "data").mkdir()
    lists = pd.Series(list(embeddings))
    lists[7] = None
    frame = metadata.assign(emb=lists)
    for i, rows in enumerate(np.split(np.arange(len(frame)), [100, 100, 300])):
        frame.iloc[rows].to_parquet(tmp_path / "data" / f"p{i}.parquet", index=False)
    run_here(tmp_path / "data", tmp_path / "out", embedding_column="emb", audit_queries=0, cells=1)
    export(tmp_path / "out", tmp_path / "to")
    found = pd.read_parquet(tmp_path / "to" / "metadata")
    kept = np.flatnonzero(small_clusters["is_kept"])
    assert found["row_id"].tolist() == kept.tolist()
    for row, own in zip(found["emb"], kept, strict=True):
        assert (row is None) == (own == 7)
        if row is not None:
            np.testing.assert_array_equal(row, embeddings[own])
    assert names(tmp_path / "to") == ["export.json", "metadata", "results.json", "summary.json"]
    again = run_here(tmp_path / "to", tmp_path / "again", embedding_column="emb", audit_queries=0)
    assert again["duplicates"] == 0


def test_export_of_texts_has_both_modalities(tmp_path, small_data, planted):
    run_here(small_data, tmp_path / "out", modality="text", audit_queries=0)
    export(tmp_path / "out", tmp_path / "to", what="all")
    np.testing.assert_array_equal(arrays(tmp_path / "to" / "img_emb"), planted[0])
    np.testing.assert_array_equal(arrays(tmp_path / "to" / "text_emb"), -planted[0].astype("f2"))


def test_export_after_rules_has_merged_columns_and_counts(tmp_path, small_run, plain, counts_of):
    path = tmp_path / "d.csv"
    path.write_text("row_id,decision\n0,drop\n1,drop\n2,drop\n")
    rules = {"merge": "caption=distinct", "decisions": str(path), "max_per_cluster": 1}
    result = dask_dedup.keep(small_run, tmp_path / "out", execute=compute_tasks, **rules)
    clusters = pd.read_parquet(tmp_path / "out" / "clusters")
    kept = clusters[clusters["is_kept"]]
    result.export(tmp_path / "to")
    found = pd.read_parquet(tmp_path / "to" / "metadata")
    assert found["duplicate_count"].tolist() == counts_of(clusters)[kept["row_id"]].tolist()
    assert plain(found["caption_merged"]) == plain(kept["caption_merged"])
    dropped = export(tmp_path / "out", tmp_path / "gone", what="dropped", format="csv")
    without = (clusters["witness_row_id"].isna() & ~clusters["is_kept"]).sum()
    gone = pd.concat([pd.read_csv(p) for p in (tmp_path / "gone" / "csv").glob("*.csv")])
    assert (dropped["rows"], gone["witness_row_id"].isna().sum()) == (result["dropped"], without)


def test_export_of_ids_is_an_array(tmp_path, small_run, small_clusters):
    export(small_run, tmp_path / "to", what="dropped", format="ids")
    found = arrays(tmp_path / "to" / "ids")
    assert found.dtype == np.int64
    assert found.tolist() == np.flatnonzero(~small_clusters["is_kept"]).tolist()


def test_export_of_some_columns(tmp_path, small_run):
    export(small_run, tmp_path / "to", columns=["TEXT", "width"])
    found = pd.read_parquet(tmp_path / "to" / "metadata")
    assert [*found] == ["row_id", "cluster_id", "duplicate_count", "TEXT", "width"]
    with pytest.raises(SettingsError, match="has no column 'height'; it has url, caption, key"):
        export(small_run, tmp_path / "other", columns=["height"], format="csv")
    assert not (tmp_path / "other").exists()


def test_export_of_nothing_is_whole(tmp_path, write_dataset):
    data = write_dataset(tmp_path / "data", [np.eye(9, dtype="f4")])
    run_here(data, tmp_path / "out", audit_queries=0)
    for format in ("input", "parquet", "csv", "ids"):
        for shard_rows in (None, 2):
            to = tmp_path / f"{format}{shard_rows}"
            made = export(
                tmp_path / "out", to, what="dropped", format=format, shard_rows=shard_rows
            )
            assert (made["rows"], made["files"]) == (0, 1)
    empty = pd.read_parquet(tmp_path / "inputNone" / "metadata")
    assert len(empty) == 0
    assert "witness_row_id" in empty
    assert np.load(tmp_path / "inputNone" / "img_emb" / "img_emb_0.npy").shape == (0, 9)


def test_export_continues_where_it_was_stopped(tmp_path, small_run):
    done = []

    def two(tasks, on_result):
        if not tasks[0].key.startswith("export-"):  # what is counted before
            return compute_tasks(tasks, on_result)
        compute_tasks(tasks[:2], on_result)
        raise KeyboardInterrupt

    def counted(tasks, on_result):
        done.extend(task.key.split("-")[0] for task in tasks)
        return compute_tasks(tasks, on_result)

    to = tmp_path / "to"
    with pytest.raises(KeyboardInterrupt):
        export(small_run, to, execute=two)
    assert not (to / "metadata").exists()
    assert not (to / "summary.json").exists()
    export(small_run, to, execute=counted)
    assert done == ["export"] * (4 - 2)
    export(small_run, tmp_path / "whole")
    for folder in ("img_emb", "metadata", "text_emb"):
        for name in names(to / folder):
            whole = (tmp_path / "whole" / folder / name).read_bytes()
            assert (to / folder / name).read_bytes() == whole
    export(small_run, to, execute=counted)
    assert done == ["export"] * (4 - 2)
    with pytest.raises(OutputError, match="with other settings or by another version"):
        export(small_run, to, what="dropped")
    export(small_run, to, format="ids", overwrite=True)
    assert names(to) == ["export.json", "ids", "results.json", "summary.json"]


def test_export_refuses_what_it_would_spoil(tmp_path, small_run, small_data):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("")
    with pytest.raises(OutputError, match="holds files of something else"):
        export(small_run, tmp_path / "mine", overwrite=True)
    with pytest.raises(OutputError, match="is the finished run itself"):
        export(small_run, small_run)
    with pytest.raises(InputError, match="holds files of the input"):
        export(small_run, small_data)
    with pytest.raises(OutputError, match=r"holds no run: there is no run\.json"):
        export(small_data, tmp_path / "to")
    assert not (tmp_path / "to").exists()
    with pytest.raises(SettingsError, match="format: expected input, parquet, csv"):
        export(small_run, tmp_path / "to", format="json")
    with pytest.raises(SettingsError, match="what: expected kept, dropped, all, got 'some'"):
        export(small_run, tmp_path / "to", what="some")
    with pytest.raises(SettingsError, match="shard_rows: expected at least 1, got 0"):
        export(small_run, tmp_path / "to", shard_rows=0)


def test_export_into_the_finished_run_is_refused(small_run):
    before = names(small_run)
    for format in ("csv", "input"):
        with pytest.raises(OutputError, match="is the finished run itself, or lies in it"):
            export(small_run, small_run / "new", format=format)
    assert names(small_run) == before


def test_export_of_a_changed_data_set_is_refused(tmp_path, write_dataset):
    data = write_dataset(tmp_path / "data", [np.eye(9, dtype="f4")])
    run_here(data, tmp_path / "out", audit_queries=0)
    np.save(data / "img_emb" / "img_emb_0.npy", np.eye(9, dtype="f4")[::-1])
    with pytest.raises(InputError, match="has changed since the run into"):
        export(tmp_path / "out", tmp_path / "to")
    assert export(tmp_path / "out", tmp_path / "to", format="ids")["rows"] == 9
    os.rename(data, tmp_path / "moved")
    with pytest.raises(
        InputError, match=r"no such folder or file\. It is the data set of .* is read again"
    ):
        export(tmp_path / "out", tmp_path / "input")


def test_export_of_damaged_clusters_is_refused(tmp_path, write_dataset):
    data = write_dataset(tmp_path / "data", [np.eye(9, dtype="f4")])
    run_here(data, tmp_path / "out", audit_queries=0)
    path = tmp_path / "out" / "clusters" / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    with pytest.raises(OutputError, match=r"part-00000.parquet: is damaged .* Put the file back"):
        export(tmp_path / "out", tmp_path / "to", format="csv")
    path.unlink()
    with pytest.raises(OutputError, match=r"is missing: the result of a finished run is not whole"):
        export(tmp_path / "out", tmp_path / "to", format="csv")


def test_export_into_a_store_is_the_same(tmp_path, small_run):
    to = UPath("memory://exported/to")
    export(small_run, to, shard_rows=50)
    export(small_run, tmp_path / "to", shard_rows=50)
    for folder in ("img_emb", "metadata"):
        for path in (tmp_path / "to" / folder).iterdir():
            assert (to / folder / path.name).read_bytes() == path.read_bytes()
    to.fs.rm("/exported", recursive=True)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_export_with_files_that_cannot_be_read_has_their_rows(tmp_path, write_dataset):
    data = write_dataset(tmp_path / "data", [np.eye(9, dtype="f4")[:3] + i for i in range(3)])
    (data / "img_emb" / "img_emb_1.npy").write_bytes(b"no")
    run_here(data, tmp_path / "out", audit_queries=0, skip_bad_parts=True, threshold=1.0)
    export(tmp_path / "out", tmp_path / "to")
    found = arrays(tmp_path / "to" / "img_emb")
    np.testing.assert_array_equal(found[:3], np.eye(9)[:3])
    np.testing.assert_array_equal(found[6:], np.eye(9)[:3] + 2)
    assert np.isnan(found[3:6]).all()
    captions = pd.read_parquet(tmp_path / "to" / "metadata")["caption"]
    assert captions.tolist() == [f"{i}-{j}" for i in range(3) for j in range(3)]
    again = run_here(tmp_path / "to", tmp_path / "again", audit_queries=0, threshold=1.0)
    assert again["invalid_rows"] == 3
