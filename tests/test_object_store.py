"""The chain from a bucket into a bucket, against a real S3 endpoint."""

import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from botocore.session import Session
from click.testing import CliRunner
from s3fs import S3FileSystem

import dask_dedup
from dask_dedup import Settings, load_settings, read_dataset
from dask_dedup.cli import commands as cli
from dask_dedup.errors import InputError, OutputError, SettingsError
from dask_dedup.paths import as_path
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.storage.checksums import noted_files
from dask_dedup.storage.files import write_aside
from dask_dedup.storage.folder_lock import FolderLock
from dask_dedup.storage.listing import glob_files
from dask_dedup.storage.objects import exists, local_copy, read_content, upload
from dask_dedup.storage.run_folder import RunFolder

run_here = partial(dask_dedup.run, execute=compute_tasks)
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

SECRET = "not-to-be-seen"  # the key of `endpoint`
OPTIONS = ["--workers", "1", "--cells", "6", "--cells-per-row", "2"]
SMALL = {"cells": {"cells": 6, "cells_per_row": 2.0}}


@pytest.fixture(scope="module")
def local(write_dataset, tmp_path_factory):
    """A data set of 1,500 rows in 3 parts, a third of them near copies of others."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1500, 32))
    rows[1000:] = rows[:500] + rng.uniform(0, 0.4, (500, 1)) * rng.normal(size=(500, 32))
    rows = rng.permutation(rows).astype("f2")
    return write_dataset(tmp_path_factory.mktemp("local") / "data", np.split(rows, 3))


@pytest.fixture(scope="module")
def bucket(endpoint, local):
    """A bucket with that data set under ``data``."""
    Session().create_client("s3").create_bucket(Bucket="images")
    for path in sorted(local.glob("*/*")):
        upload(path, as_path(f"s3://images/data/{path.relative_to(local)}"))
    return "s3://images"


@pytest.fixture(scope="module")
def local_clusters(local, tmp_path_factory):
    out = tmp_path_factory.mktemp("local") / "out"
    summary = run_here(local, out, Settings.model_validate(SMALL))
    assert 100 < summary["duplicates"] < 500
    return pd.read_parquet(out / "clusters")


def dedup(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "dask_dedup", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def clusters_in(out):
    names = glob_files(as_path(out), "clusters/*.parquet")
    return pd.concat([pd.read_parquet(local_copy(name)) for name in sorted(names)])


def requests(log, since):
    text = log.read_text(errors="replace")[since:]
    lines = re.sub("\\x1b\\[[0-9;]*m", "", text).splitlines()
    found = [re.search(r'"([A-Z]+) (\S+) HTTP[^"]*" (\d+)', line) for line in lines]
    return [match.groups() for match in found if match]


def test_run_from_a_bucket_into_a_bucket_equals_the_local_run(bucket, endpoint, local_clusters):
    since = len(endpoint.read_text(errors="replace"))
    ran = dedup("run", f"{bucket}/data", f"{bucket}/out", *OPTIONS)
    assert ran.returncode == 0, ran.stderr
    found = clusters_in(f"{bucket}/out")
    pd.testing.assert_frame_equal(found.reset_index(drop=True), local_clusters)
    seen = requests(endpoint, since)
    embeddings = [one for one in seen if one[0] == "GET" and "/data/img_emb/" in one[1]]
    assert embeddings
    assert {status for _, _, status in embeddings} == {"206"}  # byte ranges, never a whole file
    left = glob_files(as_path(f"{bucket}/out"), "**")
    assert not [name for name in left if "/stages/" in name or name.endswith(".lock")]
    for name in left:
        assert SECRET.encode() not in read_content(as_path(name)), name
    assert SECRET not in ran.stdout + ran.stderr
    arguments = ["run", f"{bucket}/data", f"{bucket}/out", *OPTIONS]
    assert "nothing to do" in CliRunner().invoke(cli.main, arguments).output
    shown = CliRunner().invoke(cli.main, ["status", f"{bucket}/out"])
    assert "finished" in shown.output


def test_run_from_a_bucket_to_a_disk_with_working_files_elsewhere(bucket, local_clusters, tmp_path):
    settings = Settings.model_validate({**SMALL, "compute": {"work": str(tmp_path / "work")}})
    run_here(f"{bucket}/data", tmp_path / "out", settings, keep_stages=True)
    assert not (tmp_path / "out" / "stages").exists()
    (own,) = (tmp_path / "work").iterdir()
    assert (own / "layout" / "manifest.json").exists()
    found = pd.read_parquet(tmp_path / "out" / "clusters")
    pd.testing.assert_frame_equal(found, local_clusters)


def test_run_with_working_files_in_a_bucket_leaves_none_there(bucket, local, tmp_path):
    settings = Settings.model_validate({**SMALL, "compute": {"work": f"{bucket}/work"}})
    run_here(local, tmp_path / "out", settings)
    assert glob_files(as_path(bucket), "work/**") == []


def test_run_that_was_stopped_goes_on_in_the_bucket(bucket, local_clusters, stage_notes):
    out = f"{bucket}/stopped"
    settings = Settings.model_validate(SMALL)
    with pytest.raises(InterruptedError):
        run_here(f"{bucket}/data", out, settings, progress=stage_notes("forest"))
    (records,) = [glob_files(as_path(out), "stages/join/*.done.json")]
    before = [as_path(name).stat().st_mtime for name in records]
    assert before
    run_here(f"{bucket}/data", out, settings, keep_stages=True)
    assert [as_path(name).stat().st_mtime for name in records] == before
    found = clusters_in(out).reset_index(drop=True)
    pd.testing.assert_frame_equal(found, local_clusters)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "s3://nowhere/data", "{tmp}/out"), "bucket does not exist"),
        (("run", "s3://images/data", "s3://nowhere/out"), "bucket does not exist"),
        (("run", "s3://images/none", "{tmp}/out"), "no such folder"),
        (("run", "s3://key:word@images/data", "{tmp}/out"), "holds credentials"),
        (("run", "gopher://images/data", "{tmp}/out"), "gopher"),
        (("evaluate", "truth", "s3://images/data", "s3://images/truth"), "local folder"),
    ],
)
def test_paths_that_do_not_work_get_one_clear_error(bucket, tmp_path, arguments, words):
    ran = CliRunner().invoke(cli.main, [one.format(tmp=tmp_path) for one in arguments])
    assert ran.exit_code == 2, ran.output
    assert words in " ".join(ran.output.split())
    assert "word@" not in ran.output
    assert not (tmp_path / "out").exists()


def test_wrong_credentials_are_reported_in_the_words_of_the_store(
    bucket, local, tmp_path, monkeypatch
):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    S3FileSystem.clear_instance_cache()
    for paths in (("s3://images/data", tmp_path / "out"), (local, "s3://images/none")):
        ran = CliRunner().invoke(cli.main, ["run", *map(str, paths)])
        assert ran.exit_code == 2, ran.output
        assert "redentials" in ran.output
        assert not (tmp_path / "out").exists()
    S3FileSystem.clear_instance_cache()  # the tests after have credentials


def test_run_whose_lock_was_broken_publishes_nothing(bucket, tmp_path):
    folder = as_path(f"{bucket}/robbed")
    with RunFolder(
        folder, {}, "input", work=str(tmp_path / "work"), working=("clusters",)
    ) as first:
        first.begin()
        stage = first.stage("clusters", {})
        (stage.folder / "clusters").mkdir(parents=True)
        with noted_files() as noted, write_aside(stage.folder / "clusters" / "a") as temporary:
            temporary.write_text("a")
        records = [{"files": {"clusters/a": list(next(iter(noted.values())))}}]
        FolderLock(folder, break_lock=True).acquire()
        with pytest.raises(OutputError, match="another run has taken this folder"):
            first.publish(stage, "clusters", records)
    assert not exists(folder / "clusters")


def test_part_replaced_in_the_midst_of_a_run_is_noticed(
    bucket, tmp_path, write_dataset, stage_notes
):
    rows = np.random.default_rng(1).normal(size=(2, 60, 8)).astype(np.float32)
    local = write_dataset(tmp_path / "data", list(rows))
    for path in local.glob("*/*"):
        upload(path, as_path(f"{bucket}/replaced/{path.relative_to(local)}"))
    victim = next((local / "img_emb").iterdir())

    def replace():
        np.save(victim, np.load(victim)[::-1])
        upload(victim, as_path(f"{bucket}/replaced/img_emb/{victim.name}"))

    with pytest.raises(InputError, match=rf"{victim.name}: changed while the run was reading "):
        run_here(
            f"{bucket}/replaced", f"{bucket}/mixed", progress=stage_notes(do={"join": replace})
        )
    left = [name.partition("/mixed/")[2] for name in glob_files(as_path(f"{bucket}/mixed"), "**")]
    assert [name for name in left if not name.startswith("stages/")] == ["log.txt", "run.json"]


def test_part_that_is_replaced_by_another_is_noticed(bucket, tmp_path):
    data = f"{bucket}/changing"
    local = tmp_path / "data"
    for kind in ("img_emb", "metadata"):
        (local / kind).mkdir(parents=True)
    for seed in (0, 1):
        rows = np.random.default_rng(seed).normal(size=(50, 8)).astype(np.float16)
        np.save(local / "img_emb" / "a.npy", rows)
        pd.DataFrame({"url": [f"u{i}" for i in range(50)]}).to_parquet(local / "metadata/a.parquet")
        for path in (local / "img_emb" / "a.npy", local / "metadata" / "a.parquet"):
            upload(path, as_path(f"{data}/{path.parent.name}/{path.name}"))
        fingerprint = read_dataset(data).fingerprint
        if seed == 0:
            before = fingerprint
    assert fingerprint != before


def test_copies_of_a_file_are_made_once_and_anew_when_it_changes(bucket, tmp_path):
    path = as_path(f"{bucket}/copied/x.bin")
    (tmp_path / "x.bin").write_bytes(b"one")
    upload(tmp_path / "x.bin", path)
    first = local_copy(path)
    assert (first.read_bytes(), local_copy(path)) == (b"one", first)
    (tmp_path / "x.bin").write_bytes(b"other")
    upload(tmp_path / "x.bin", path)
    assert local_copy(path).read_bytes() == b"other"


COPY = """
import os, signal, sys
from dask_dedup.storage.objects import local_copy
from dask_dedup.storage.files import write_aside
from dask_dedup.paths import as_path
copy = local_copy(sys.argv[1])
assert copy.read_bytes() == b"one" and os.readlink(copy).startswith(os.environ["TMPDIR"])
with write_aside(as_path(sys.argv[1] + "-other")) as temporary:
    temporary.write_bytes(b"unfinished")
    assert os.readlink(temporary).startswith(os.environ["TMPDIR"])
    os.kill(os.getpid(), int(sys.argv[2]))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_copies_are_gone_however_their_process_ends(bucket, tmp_path, monkeypatch, how):
    (tmp_path / "x.bin").write_bytes(b"one")
    upload(tmp_path / "x.bin", as_path(f"{bucket}/left/x.bin"))
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    command = [sys.executable, "-c", COPY, f"{bucket}/left/x.bin", str(int(how))]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == -how, ended.stderr
    assert list((tmp_path / "scratch").iterdir()) == []
    assert not exists(as_path(f"{bucket}/left/x.bin-other"))


def test_copies_of_many_files_keep_few_open(bucket, tmp_path):
    for i in range(40):
        (tmp_path / "x.bin").write_bytes(bytes([i]))
        upload(tmp_path / "x.bin", as_path(f"{bucket}/many/{i}"))
    before = len(os.listdir("/proc/self/fd"))
    assert [local_copy(f"{bucket}/many/{i}").read_bytes()[0] for i in range(40)] == list(range(40))
    assert len(os.listdir("/proc/self/fd")) - before <= 32


@pytest.mark.parametrize(
    ("missing", "url", "install"),
    [
        ("upath", "s3://images/data", r"pip install 'dask_dedup\[s3\]'\."),
        ("s3fs", "s3://images/data", r"pip install 'dask_dedup\[s3\]'\."),
        ("upath", "gs://images/data", r"pip install universal_pathlib and the package that fsspec"),
    ],
)
def test_url_without_the_packages_for_it_says_what_to_install(tmp_path, missing, url, install):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        f"from dask_dedup.__main__ import main\n"
        f"sys.argv = ['dask-dedup', 'plan', {url!r}]; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert re.match(rf"dask-dedup: {url}: no package is installed for URLs of .*{install}", line)


@pytest.mark.parametrize("name", [Path("s3://images/data"), "s3:/images/data"])
def test_url_that_has_lost_a_slash_is_no_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"s3:/images/data: .*give a URL as text"):
        as_path(name)
    (tmp_path / "s3:").mkdir()  # unless there is one
    assert as_path(name) == Path("s3:/images/data")


@pytest.mark.parametrize(
    "key", ["compute.work", "adc.model", "read.metadata", "read.image_embeddings"]
)
def test_settings_with_credentials_are_refused_without_repeating_them(key):
    with pytest.raises(SettingsError, match="holds credentials") as caught:
        load_settings(None, {key: f"s3://user:{SECRET}@images/work"})
    assert SECRET not in str(caught.value)


def test_parts_of_a_bucket_by_pattern(bucket):
    data = read_dataset(
        bucket, metadata="data/metadata/*.parquet", image_embeddings="data/img_emb/*.npy"
    )
    assert (data.rows, len(data.parts)) == (1500, 3)
    with pytest.raises(InputError, match="no file matches"):
        read_dataset(bucket, metadata="data/metadata/*.csv", image_embeddings="data/*/*.npy")


def test_folder_with_brackets_in_a_bucket_is_found_by_patterns(bucket, tmp_path, write_dataset):
    local = write_dataset(tmp_path / "data", [np.eye(3, 5, dtype="f4"), np.eye(2, 5, dtype="f4")])
    base = f"{bucket}/sets/data [v1]"
    for path in local.glob("*/*"):
        upload(path, as_path(f"{base}/{path.relative_to(local)}"))
        upload(path, as_path(f"{bucket}/sets/data v/{path.relative_to(local)}"))
    expected = [f"{base}/metadata/metadata_{i}.parquet" for i in (0, 1)]
    assert sorted(glob_files(as_path(base), "meta*/*.parquet")) == expected
    assert sorted(glob_files(as_path(base), "**/metadata_[0-9].parquet")) == expected
    read = {"metadata": "metadata/*.parquet", "image_embeddings": "**/*.npy"}
    assert read_dataset(base, **read).rows == 5


def test_fingerprint_in_a_bucket_changes_with_any_byte(bucket, tmp_path, write_dataset):
    local = write_dataset(tmp_path / "data", [np.zeros((9000, 16), "f4")])
    for path in local.glob("*/*"):
        upload(path, as_path(f"{bucket}/marked/{path.relative_to(local)}"))
    dataset = read_dataset(f"{bucket}/marked")
    before = dataset.fingerprint
    assert read_dataset(f"{bucket}/marked").fingerprint == before
    rows = np.zeros((9000, 16), "f4")
    rows[4321, 7] = 1
    np.save(local / "img_emb" / "img_emb_0.npy", rows)
    upload(local / "img_emb" / "img_emb_0.npy", as_path(f"{bucket}/marked/img_emb/img_emb_0.npy"))
    with pytest.raises(InputError, match="changed while the run was reading"):
        dataset.check_unchanged()
    assert read_dataset(f"{bucket}/marked").fingerprint != before


def test_one_file_in_a_bucket_is_a_data_set_and_the_log_is_written_in_the_end(bucket, clipart):
    source = clipart / "img_emb" / "img_emb_0001.npy"
    upload(source, as_path(f"{bucket}/rows.npy"))
    data = read_dataset(f"{bucket}/rows.npy")
    np.testing.assert_array_equal(data.embeddings.compute(), np.load(source))
    for threshold in (0.95, 0.97):
        run_here(f"{bucket}/rows.npy", f"{bucket}/of-rows", audit_queries=0, threshold=threshold)
    lines = read_content(as_path(f"{bucket}/of-rows/log.txt")).decode().splitlines()
    ends = [line.partition("+")[2].partition(" ")[2] for line in lines if "finished: " in line]
    assert len(ends) == 2
    assert sum("fit: begun" in line for line in lines) == 1
    clusters = clusters_in(f"{bucket}/of-rows")
    assert ends[1].endswith(f"{clusters['is_kept'].sum():,} kept")
