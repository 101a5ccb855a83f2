"""Exported samples: which are in the tars, byte for byte; how they are found; other readers."""

import io
import json
import tarfile

import numpy as np
import pandas as pd
import pytest

from dask_dedup import InputError, SettingsError, export
from dask_dedup.results.export_webdataset import find_tars

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
    found = [s["__key__"] for s in webdataset.WebDataset(paths, shardshuffle=False)]
    assert [key.rpartition("/")[2] for key in found] == [*read(tmp_path / "to" / "webdataset")]
