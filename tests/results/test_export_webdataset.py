"""Exported samples: which are in the tars, byte for byte; how they are found; other readers."""

import io
import json
import os
import tarfile
from functools import partial

import numpy as np
import pandas as pd
import pytest

import dask_dedup
from dask_dedup import InputError, SettingsError, export
from dask_dedup.results.export_webdataset import find_tars
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)
SHARD = 100


@pytest.fixture(scope="module")
def tars(tmp_path_factory, planted):
    """Tars as img2dataset writes them; every seventh sample could not be downloaded."""
    folder = tmp_path_factory.mktemp("tars")
    keys = planted[1]["key"]
    for shard, start in enumerate(range(0, len(keys), SHARD)):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for i in range(start, min(start + SHARD, len(keys))):
                if i % 7:
                    for ending, content in files_of(i, keys[i]).items():
                        above = "long/" * 30 * (i % 11 == 0)  # such a header has one of its own
                        member = tarfile.TarInfo(f"{above}{keys[i]}.{ending}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
        (folder / f"{shard:05d}_stats.json").write_text("{}")
    return folder


def files_of(row, key):
    """The files of a sample."""
    picture = np.random.default_rng(row).bytes(100 + 300 * (row % 5))
    return {"jpg": picture, "txt": b"text", "json": json.dumps({"key": key}).encode()}


def read(folder):
    """All samples of some tars, in their order: key to files."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, ending = member.name.rpartition("/")[2].partition(".")
                found.setdefault(key, {})[ending] = tar.extractfile(member).read()
    return found


@pytest.mark.parametrize("what", ["kept", "dropped", "all"])
def test_export_of_samples_has_those_of_the_rows(
    tmp_path, small_run, small_clusters, tars, planted, what
):
    summary = export(
        small_run, tmp_path / "to", what=what, format="webdataset", shards=tars, key="key"
    )
    there = small_clusters[small_clusters["row_id"] % 7 != 0]
    lost = ~there["is_kept"] & (there["witness_row_id"] % 7 == 0)  # their witness has no sample
    assert lost.any()
    is_kept = there["is_kept"] | lost
    rows = {"kept": there[is_kept], "dropped": there[~is_kept], "all": there}[what]["row_id"]
    keys = planted[1]["key"]
    assert read(tmp_path / "to" / "webdataset") == {keys[i]: files_of(i, keys[i]) for i in rows}
    assert (summary["rows"], summary["samples"]) == (len(rows), len(there))
    by = summary["samples_by_verdict"]
    assert by["without_witness"] == lost.sum()
    assert by["dropped"] == (~is_kept).sum()
    assert summary["result"]["unmatched"] == len(small_clusters) - len(there)
    missing = pd.read_parquet(tmp_path / "to" / "unmatched_result")
    assert (missing["row_id"] % 7 == 0).all()
    for path in (tmp_path / "to" / "webdataset").iterdir():
        assert path.stat().st_size % 10_240 == 0


def test_export_of_samples_with_counted_keys(tmp_path, small_run, small_clusters):
    """The oracle counts as img2dataset's reader does: each file of metadata begins a shard."""
    folder = tmp_path / "tars"
    folder.mkdir()
    expected, shard, start = [], 0, 0
    for rows in (50, 1, 0, 249, 120):
        for first in range(0, rows, 40):
            with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
                for index in range(min(40, rows - first)):
                    key = f"{100 * shard + index:07d}"  # 40 samples: two digits, and five
                    tar.addfile(tarfile.TarInfo(f"{key}.txt"))
                    if small_clusters["is_kept"][start + first + index]:
                        expected.append(key)
            shard += 1
        start += rows
    summary = export(
        small_run, tmp_path / "to", format="webdataset", shards=folder, key="{shard}{index}",
        samples_per_shard=40,
    )  # fmt: skip
    assert [*read(tmp_path / "to" / "webdataset")] == expected
    assert summary["samples_by_verdict"]["unmatched"] == 0


def test_export_of_samples_that_no_row_knows_keeps_them(tmp_path, small_run):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("folder/", "x/000000001.txt", "README", "foreign.txt", "foreign.seg.png"):
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            tar.addfile(member)
    summary = export(small_run, tmp_path / "to", format="webdataset", shards=tmp_path / "a.tar")
    assert summary["samples_by_verdict"]["unmatched"] == 1
    with tarfile.open(tmp_path / "to" / "webdataset" / "a.tar") as tar:
        assert [m.name for m in tar][-2:] == ["foreign.txt", "foreign.seg.png"]


def write_in_folders(path, names):
    with tarfile.open(path, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(f"{name}.txt")
            member.size = 5
            tar.addfile(member, io.BytesIO(b"first"))


@pytest.fixture(scope="module")
def run_of_folders(tmp_path_factory, write_dataset):
    """Keys with folders: of a/0 to a/4 and b/0 to b/4, b/1 to b/4 are copies of a/1 to a/4."""
    rows = np.random.default_rng(2).normal(size=(10, 8)).astype("f4")
    rows[6:] = rows[1:5]
    names = [f"{folder}/{i}" for folder in "ab" for i in range(5)]
    metadata = pd.DataFrame({"url": names, "caption": "c", "key": names})
    base = tmp_path_factory.mktemp("folders")
    data = write_dataset(base / "data", [rows], [metadata])
    run_here(data, base / "out", {"audit.queries": 0, "cells.cells": 1})
    return base / "out"


def test_export_of_samples_whose_keys_differ_by_folder(tmp_path, run_of_folders):
    names = [f"{folder}/{i}" for i in range(5) for folder in "ab"]
    write_in_folders(tmp_path / "one.tar", names)
    summary = export(
        run_of_folders, tmp_path / "to", format="webdataset", shards=tmp_path / "one.tar"
    )
    with tarfile.open(tmp_path / "to" / "webdataset" / "one.tar") as tar:
        found = [member.name for member in tar]
    assert found == [f"{name}.txt" for name in names if name[0] == "a" or name == "b/0"]
    assert summary["samples_by_verdict"]["dropped"] == 4


@pytest.mark.parametrize("is_one_tar", [True, False])
def test_export_of_samples_of_one_key_in_two_folders_is_refused(
    tmp_path, small_run, small_clusters, is_one_tar
):
    key = f"{small_clusters['row_id'][~small_clusters['is_kept']].iloc[0]:09d}"
    names = [f"a/{key}", f"b/{key}"]
    folder = tmp_path / "tars"
    folder.mkdir()
    for i, own in enumerate([names] if is_one_tar else [names[:1], names[1:]]):
        write_in_folders(folder / f"{i}.tar", own)
    with pytest.raises(InputError) as error:
        export(small_run, tmp_path / "to", format="webdataset", shards=folder)
    assert str(error.value) == (
        f"a/{key} and b/{key} are two samples of one key, as 'key' has no folders in {small_run} "
        f"(1 such key): which of them was dropped is not known. Name a column of keys with the "
        f"folders that the tars have (--key), or the tars of one folder alone (--shards)."
    )
    assert not (tmp_path / "to" / "webdataset").exists()


def test_export_of_unknown_samples_names_their_folders(tmp_path, small_run):
    write_in_folders(tmp_path / "a.tar", ["a/x", "b/x"])
    export(small_run, tmp_path / "to", format="webdataset", shards=tmp_path / "a.tar")
    unknown = pd.read_parquet(tmp_path / "to" / "unmatched_metadata")
    assert [*unknown["key"]] == ["a/x", "b/x"]


def test_export_of_tars_that_change_while_they_are_read_is_refused(tmp_path, small_run):
    """By their content too: size and time stay."""
    write_in_folders(tmp_path / "a.tar", ["000000001", "000000002"])
    before = (tmp_path / "a.tar").stat()

    def change_behind(tasks, on_result):
        done = compute_tasks(tasks, on_result)
        content = (tmp_path / "a.tar").read_bytes().replace(b"first", b"other")
        (tmp_path / "a.tar").write_bytes(content)
        os.utime(tmp_path / "a.tar", ns=(before.st_atime_ns, before.st_mtime_ns))
        return done

    with pytest.raises(InputError, match=r"a\.tar: changed while it was read \(1 of 1 files\)"):
        export(
            small_run, tmp_path / "to", format="webdataset", shards=tmp_path / "a.tar",
            execute=change_behind,
        )  # fmt: skip
    assert not (tmp_path / "to" / "webdataset").exists()


def test_find_tars_by_folder_pattern_and_braces(tmp_path, tars):
    names = [str(tars / f"{i:05d}.tar") for i in range(5)]
    assert find_tars(str(tars)) == names
    assert find_tars(f"{tars}/*.tar") == names
    assert find_tars(f"{tars}/{{00001..00003}}.tar") == names[1:4]
    assert find_tars(names[2]) == names[2:3]
    odd = tmp_path / "a[1]{b}"
    odd.mkdir()
    (odd / "00000.tar").touch()
    assert find_tars(str(odd)) == find_tars(str(odd / "00000.tar")) == [str(odd / "00000.tar")]
    assert find_tars(f"{tars}/{{{','.join(f'{i % 5:05d}' for i in range(100))}}}.tar") == names * 20
    with pytest.raises(InputError, match=r"00005.tar: no such file \(1 of 3\)"):
        find_tars(f"{tars}/{{00003..00005}}.tar")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"expected a folder of \.tar files, found none"):
        find_tars(str(tmp_path / "none"))


def test_export_of_samples_that_cannot_be_is_refused(tmp_path, small_run, tars):
    with pytest.raises(SettingsError, match="format webdataset filters the tars"):
        export(small_run, tmp_path / "to", format="webdataset")
    with pytest.raises(SettingsError, match="only with this format"):
        export(small_run, tmp_path / "to", shards=tars)
    with pytest.raises(SettingsError, match="has no column 'uid'; it has url, caption, key"):
        export(small_run, tmp_path / "to", format="webdataset", shards=tars, key="uid")
    assert not (tmp_path / "to").exists()
    content = (tars / "00001.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[: len(content) // 2 + 100])
    with pytest.raises(InputError, match=r"cut.tar: cannot be read as a tar"):
        export(small_run, tmp_path / "to", format="webdataset", shards=tmp_path / "cut.tar")


@pytest.mark.filterwarnings("ignore")  # theirs
def test_export_of_samples_is_read_by_webdataset(tmp_path, small_run, small_clusters, tars):
    webdataset = pytest.importorskip("webdataset")
    export(small_run, tmp_path / "to", format="webdataset", shards=tars, key="key")
    paths = sorted(map(str, (tmp_path / "to" / "webdataset").iterdir()))
    found = {
        sample["__key__"].rpartition("/")[2]: {
            name: sample[name] for name in ("jpg", "txt", "json")
        }
        for sample in webdataset.WebDataset(paths, shardshuffle=False)
    }
    assert found == read(tmp_path / "to" / "webdataset")
    assert found
