import shutil
from types import SimpleNamespace

import dask
import faiss
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from dask_dedup import (
    InputError,
    OutputError,
    fit_compressor,
    read_dataset,
    save_model,
)
from dask_dedup.cli import commands as cli
from dask_dedup.data.part_list import write_parts
from dask_dedup.data.parts import Part
from dask_dedup.ivf import shards as shards_module
from dask_dedup.ivf.shards import group_spans
from dask_dedup.ivf.vector_index import build_index, open_index, search_block, search_index


@pytest.fixture(scope="module")
def rows():
    values = np.random.default_rng(3).standard_normal((900, 16)).astype("f4")
    values[4] = np.nan
    values[700] = 0
    return values


@pytest.fixture(scope="module")
def data(rows, tmp_path_factory, write_dataset):
    return write_dataset(tmp_path_factory.mktemp("d") / "d", np.split(rows, [200, 200, 650]))


@pytest.fixture(scope="module")
def index(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("index") / "index"
    return build_index(read_dataset(data), out, "IVF8,Flat")


def test_build_index_manifest_says_what_the_index_holds(index, rows):
    assert (index.rows, index.invalid, index.indexed, index.lists) == (900, 2, 898, 8)
    assert index.bytes_per_row == 16 * 4 + 8
    assert sum(shard.rows for shard in index.shards) == 898
    files = index.shards[0].bytes + index.overhead_bytes
    assert files > index.bytes_per_row * 898
    assert open_index(index.folder) == index


@pytest.mark.parametrize("shard_bytes", [1, 300 * 72, 1 << 30])
def test_search_index_equals_faiss_flat_for_any_shards(
    data, rows, tmp_path, shard_bytes, no_compute
):
    dataset = read_dataset(data)
    index = build_index(
        dataset, tmp_path / "index", "IVF8,Flat", span_rows=1, shard_bytes=shard_bytes
    )
    assert len(index.shards) == {1: 3, 300 * 72: 3, 1 << 30: 1}[shard_bytes]
    unit = np.nan_to_num(rows)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-30)
    usable = np.flatnonzero(unit.any(axis=1))
    oracle = faiss.IndexIDMap2(faiss.IndexFlatL2(16))
    oracle.add_with_ids(unit[usable], usable)
    distances, row_ids = oracle.search(unit[usable], 5)
    with no_compute():
        lazy = search_index(index, dataset, 5, 8)
    found = dask.compute(*lazy, scheduler="synchronous")
    assert [len(piece.row_ids) for piece in found] == [200, 450, 250]
    ours = np.concatenate([piece.row_ids for piece in found])
    assert (ours[usable] == row_ids).all()
    assert (ours[[4, 700]] == -1).all()
    np.testing.assert_allclose(
        np.concatenate([piece.distances for piece in found])[usable], distances, atol=1e-5
    )


def test_search_block_k_larger_than_the_data(index, rows):
    found = search_block(index, rows[:2], 2000, 8)
    assert (np.sort(found.row_ids, axis=1)[:, -898:] >= 0).all()
    assert ((found.row_ids >= 0).sum(axis=1) == 898).all()


def test_row_ids_beyond_31_bits_survive(data, rows, tmp_path):
    dataset = read_dataset(data)
    moved = tuple(
        Part(p.index, p.row_start + 2**33, p.metadata_path, p.embeddings) for p in dataset.parts
    )
    layout = shards_module.IndexLayout(str(tmp_path / "base.faiss"), str(tmp_path))
    write_parts([part for part in moved if part.rows], tmp_path / "parts.json")
    shards_module.train_index(dataset, layout, "IVF4,Flat")
    record = shards_module.fill_shard(layout, "shard-00000", layout.spans)
    shards_module.write_shards(layout, [record])
    (shard,) = shards_module.open_shards(layout)
    _, row_ids = shard.search(rows[[300]] / np.linalg.norm(rows[300]), 1)
    assert row_ids.tolist() == [[2**33 + 300]]


def test_build_index_again_does_nothing_and_another_factory_builds_anew(data, tmp_path):
    dataset = read_dataset(data)
    first = build_index(dataset, tmp_path / "i", "IVF8,PQ4x4")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "i").rglob("*.*")}
    assert build_index(dataset, tmp_path / "i", "IVF8,PQ4x4") == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "i").rglob("*.*")} == before
    assert build_index(dataset, tmp_path / "i", "SQ8").bytes_per_row == 16 + 8


def test_build_index_interrupted_keeps_finished_shards(data, tmp_path):
    dataset, out, small = read_dataset(data), tmp_path / "i", {"span_rows": 1, "shard_bytes": 1}
    whole = build_index(dataset, tmp_path / "whole", "IVF8,PQ4x4", **small)

    def stop_after_one(tasks, on_result):
        done = list(dask.compute(*tasks[:1], scheduler="synchronous"))
        if len(tasks) > 1:
            raise KeyboardInterrupt
        return done

    with pytest.raises(KeyboardInterrupt):
        build_index(dataset, out, "IVF8,PQ4x4", **small, execute=stop_after_one)
    with pytest.raises(InputError, match=r"no index\.json"):
        open_index(out)
    kept = (out / "shards" / "shard-00000.faiss").stat().st_mtime_ns
    again = build_index(dataset, out, "IVF8,PQ4x4", **small)
    assert (out / "shards" / "shard-00000.faiss").stat().st_mtime_ns == kept
    assert again.shards == whole.shards
    for name in ("shard-00000", "shard-00002"):
        ours, theirs = (p / "shards" / f"{name}.faiss" for p in (out, tmp_path / "whole"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_build_index_into_a_foreign_folder_is_refused(data, tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(OutputError, match="holds files of something else"):
        build_index(read_dataset(data), tmp_path, "SQ8")


def test_search_damaged_shard_is_refused(index, rows, tmp_path):
    shutil.copytree(index.folder, tmp_path / "i")
    shard = tmp_path / "i" / "shards" / "shard-00000.faiss"
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"shard-00000\.faiss: .* The file is damaged"):
        search_block(open_index(tmp_path / "i"), rows[:2], 3)
    with pytest.raises(InputError, match=r"expected \(queries, 16\)"):
        search_block(index, rows[:2, :8], 3)


def test_a_model_is_applied_and_its_output_is_of_unit_length(data, rows, tmp_path):
    dataset = read_dataset(data)
    save_model(fit_compressor(dataset, "pca", 4), tmp_path / "model")
    index = build_index(dataset, tmp_path / "i", "Flat", model=tmp_path / "model")
    assert (index.dim, index.indexed_dim) == (16, 4)
    found = search_block(index, rows[:3], 2)
    units = np.delete(rows, [4, 700], axis=0).astype("f8")
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    compressed = units @ np.linalg.svd(units, full_matrices=False)[2][:4].T
    compressed /= np.linalg.norm(compressed, axis=1, keepdims=True)
    cosine = np.sort(compressed[:3] @ compressed.T, axis=1)[:, -2]
    np.testing.assert_allclose(1 - found.distances[:, 1] / 2, cosine, atol=1e-5)
    save_model(fit_compressor(dataset, "pca", 5), tmp_path / "model", overwrite=True)
    with pytest.raises(InputError, match="has changed since"):
        search_block(index, rows[:3], 2)


def test_group_spans_cuts_by_rows_and_never_inside_a_span():
    def layout(*rows):
        starts = np.cumsum([0, *rows])
        spans = [SimpleNamespace(index=i, row_start=s, rows=n)
                 for i, (s, n) in enumerate(zip(starts, rows, strict=False))]  # fmt: skip
        return SimpleNamespace(spans=tuple(spans))

    groups = group_spans(layout(250_000, 12_000, 600, 800_000, 3), 12)
    assert [[span.index for span in spans] for spans in groups.values()] == [[0, 1], [2], [3], [4]]
    assert list(groups) == ["shard-00000", "shard-00001", "shard-00002", "shard-00003"]


def invoke(*arguments):
    return CliRunner().invoke(cli.main, [str(a) for a in arguments], catch_exceptions=False)


def test_commands_build_and_search_with_metadata(data, rows, tmp_path):
    done = invoke("build-index", data, tmp_path / "i", "--factory", "IVF8,Flat", "--workers", 1)
    assert done.exit_code == 0, done.output
    assert "rows indexed  898 (2 invalid ones left out)" in done.stdout
    np.save(tmp_path / "q.npy", rows[[250, 4, 10]])
    out = tmp_path / "out.parquet"
    done = invoke(
        "search", tmp_path / "i", tmp_path / "q.npy", out, "-k", 3, "--nprobe", 8, "--dataset", data
    )
    assert done.exit_code == 0, done.output
    assert "6 neighbours of 3 queries" in done.stdout
    table = pd.read_parquet(out)
    assert table["query"].tolist() == [0, 0, 0, 2, 2, 2]
    assert table["rank"].tolist() == [0, 1, 2] * 2
    assert table["row_id"].iloc[[0, 3]].tolist() == [250, 10]
    metadata = read_dataset(data).metadata.compute(scheduler="synchronous")
    assert table["url"].tolist() == metadata["url"].loc[table["row_id"]].tolist()
    assert table["caption"].tolist() == metadata["caption"].loc[table["row_id"]].tolist()
    expected = search_block(open_index(tmp_path / "i"), rows[[250]], 3, 8)
    assert table["distance"].iloc[:3].tolist() == expected.distances[0].tolist()

    invoke("search", tmp_path / "i", data, tmp_path / "all.parquet", "-k", 1, "--nprobe", 8)
    everything = pd.read_parquet(tmp_path / "all.parquet")
    assert (everything["query"] == everything["row_id"]).all() and len(everything) == 898


def test_commands_wrong_input_exit_2_and_leave_nothing(data, index, rows, tmp_path):
    np.save(tmp_path / "q.npy", rows[:3, :5])
    wrong = {
        "has no index.json": ("search", tmp_path, tmp_path / "q.npy", tmp_path / "o"),
        "have dimension 5, but": ("search", index.folder, tmp_path / "q.npy", tmp_path / "o"),
    }
    for text, arguments in wrong.items():
        done = invoke(*arguments)
        assert done.exit_code == 2 and text in done.stderr
        assert not (tmp_path / "o").exists()
