"""`relabel` into another folder, against fresh runs at the same thresholds, row for row."""

import hashlib
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import dask_dedup
from dask_dedup import DamagedError, InputError, OutputError, SettingsError
from dask_dedup.cli.commands import main
from dask_dedup.pipeline.status import run_status
from dask_dedup.results.sweep import sweep
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.storage.files import read_json, write_json

run_here = partial(dask_dedup.run, execute=compute_tasks)
relabel = partial(dask_dedup.relabel, execute=compute_tasks)

SMALL = {"cells.cells": 20, "audit.queries": 200}


@pytest.fixture(scope="module")
def original(write_dataset, tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1200, 24))
    noise = rng.normal(size=(1200, 24)) * rng.uniform(0, 0.5, (1200, 1))
    rows[600:] = rows[rng.integers(0, 600, 600)] + noise[600:]
    rows[7] = np.nan
    folder = tmp_path_factory.mktemp("data") / "data"
    return write_dataset(folder, np.split(rows.astype(np.float32), 3))


@pytest.fixture(scope="module")
def finished(original, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "out"
    run_here(original, out, SMALL, threshold=0.95, search_threshold=0.9)
    return out


@pytest.fixture
def data(original, tmp_path):
    """A copy with the times of its files, which is the same data set."""
    return shutil.copytree(original, tmp_path / "data")


def contents(folder):
    return {
        path.relative_to(folder): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".lock")
    }


def check_equal(one, other):
    for name in ("clusters", "invalid", "audit/queries.parquet", "audit/pairs.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(one / name), pd.read_parquet(other / name))
    assert (one / "histogram.csv").read_text() == (other / "histogram.csv").read_text()


def counts(summary):
    passing = ("stages", "wall_seconds", "peak_memory_bytes", "source_run", "planned_seconds")
    kept = {name: value for name, value in summary.items() if name not in passing}
    return {**kept, "audit": {**kept["audit"], "seconds": 0}}


@pytest.mark.parametrize("threshold", [0.9, 0.93, 0.97, 0.998])
def test_relabel_equals_a_fresh_run_and_leaves_its_source_alone(
    original, finished, tmp_path, threshold
):
    before = contents(finished)
    summary = relabel(finished, tmp_path / "dest", threshold)
    assert contents(finished) == before
    fresh = run_here(original, tmp_path / "fresh", SMALL, threshold=threshold, search_threshold=0.9)
    check_equal(tmp_path / "dest", tmp_path / "fresh")
    assert counts(summary) == counts(fresh)
    assert summary["source_run"] == str(finished)
    assert (tmp_path / "dest" / "settings.toml").read_text() == (
        tmp_path / "fresh" / "settings.toml"
    ).read_text()


def test_relabelled_folder_is_complete_by_itself(original, finished, tmp_path, stage_notes):
    out = shutil.copytree(finished, tmp_path / "out")
    dest = tmp_path / "dest"
    relabel(out, dest, 0.97)
    shutil.rmtree(out)
    assert run_status(dest, verify=True)["damage"] == []
    seen = stage_notes()
    run_here(original, dest, SMALL, threshold=0.97, search_threshold=0.9, progress=seen)
    assert seen.names == []  # finished before
    run_here(original, dest, SMALL, threshold=0.92, search_threshold=0.9, progress=seen)
    assert seen.names == ["witnesses", "clusters", "report"]
    relabel(dest, tmp_path / "again", 0.95)
    check_equal(tmp_path / "again", finished)


def test_relabel_that_was_stopped_continues_and_again_has_nothing_to_do(
    finished, tmp_path, monkeypatch, stage_notes
):
    dest = tmp_path / "dest"
    with pytest.raises(InterruptedError):
        relabel(finished, dest, 0.97, progress=stage_notes("clusters"))
    assert not read_json(dest / "run.json")["finished"]
    for expected in (["witnesses", "clusters", "report"], []):
        seen = stage_notes()
        relabel(finished, dest, 0.97, progress=seen)
        assert seen.names == expected
    relabel(finished, tmp_path / "other", 0.97)
    check_equal(dest, tmp_path / "other")
    monkeypatch.chdir(finished.parent)
    relabel("out", dest, 0.95)  # and another threshold takes its place
    check_equal(dest, finished)


def test_relabel_follows_a_source_that_was_searched_anew(original, finished, tmp_path):
    out, dest = shutil.copytree(finished, tmp_path / "out"), tmp_path / "dest"
    relabel(out, dest, 0.97)
    run_here(original, out, SMALL, threshold=0.95, search_threshold=0.8)
    relabel(out, dest, 0.85)
    run_here(original, tmp_path / "fresh", SMALL, threshold=0.85, search_threshold=0.8)
    check_equal(dest, tmp_path / "fresh")


def test_relabel_by_a_share_takes_what_the_sweep_says(finished, tmp_path):
    said = []
    summary = relabel(finished, tmp_path / "dest", keep_fraction=0.7, say=said.append)
    assert 1 - summary["duplicate_fraction"] <= 0.7
    assert summary["duplicate_fraction"] == pytest.approx(0.3, abs=0.002)
    (row,) = sweep(finished, [summary["threshold"]]).to_dict("records")
    assert row["duplicates"] == summary["duplicates"]
    assert f"threshold {summary['threshold']} keeps" in said[0]
    assert f"{summary['duplicates']:,} are duplicates" in said[0]


def test_relabel_of_a_data_set_that_was_moved(original, finished, data, tmp_path):
    out = tmp_path / "out"
    run_here(data, out, SMALL, threshold=0.95, search_threshold=0.9)
    moved = data.rename(tmp_path / "moved")
    gone = r"data: no such folder or file\. It is the data set of .*--dataset"
    with pytest.raises(InputError, match=gone):
        relabel(out, tmp_path / "dest", 0.97)
    assert not (tmp_path / "dest").exists()
    relabel(out, tmp_path / "dest", 0.97, dataset=moved)
    relabel(finished, tmp_path / "right", 0.97)
    check_equal(tmp_path / "dest", tmp_path / "right")


def test_relabel_of_a_data_set_that_has_changed_is_refused(data, tmp_path):
    out = tmp_path / "out"
    run_here(data, out, SMALL, threshold=0.95)
    rows = np.load(data / "img_emb" / "img_emb_1.npy")
    np.save(data / "img_emb" / "img_emb_1.npy", rows[::-1].copy())
    changed = r"data: has changed since the run into .*out, whose.*Run again"
    with pytest.raises(InputError, match=changed):
        relabel(out, tmp_path / "dest", 0.97)
    assert not (tmp_path / "dest").exists()


def test_relabel_goes_without_the_files_that_its_source_went_without(data, tmp_path):
    (data / "img_emb" / "img_emb_1.npy").write_bytes(b"nothing")
    run_here(data, tmp_path / "out", SMALL, skip_bad_parts=True, search_threshold=0.9)
    summary = relabel(tmp_path / "out", tmp_path / "dest", 0.97)
    assert summary["invalid_rows"] == 401
    run_here(data, tmp_path / "fresh", SMALL, threshold=0.97, skip_bad_parts=True)
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "dest" / "clusters"),
        pd.read_parquet(tmp_path / "fresh" / "clusters"),
    )


def test_relabel_refuses_places_that_are_not_for_it(original, finished, tmp_path):
    for inside in (finished, finished / "dest", finished / "clusters" / ".." / "dest"):
        with pytest.raises(OutputError, match=r": is the finished run itself, or lies in it"):
            relabel(finished, inside, 0.97)
    assert not (finished / "dest").exists()
    with pytest.raises(OutputError, match=r"none: holds no run"):
        relabel(tmp_path / "none", tmp_path / "dest", 0.97)
    other = tmp_path / "other"
    run_here(original, other, SMALL, threshold=0.95)
    with pytest.raises(OutputError, match=r"other: holds a run that is not of .*out.*--overwrite"):
        relabel(finished, other, 0.97)
    relabel(finished, other, 0.97, overwrite=True)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds files of something else"):
        relabel(finished, tmp_path / "foreign", 0.97)


def test_relabel_refuses_settings_that_are_not_for_it(finished, tmp_path):
    dest = tmp_path / "dest"
    with pytest.raises(SettingsError, match=r"answers thresholds from 0\.9 to .*got 0\.85"):
        relabel(finished, dest, 0.85)
    for some in ({}, {"threshold": 0.97, "keep_fraction": 0.5}):
        with pytest.raises(SettingsError, match="one of the two"):
            relabel(finished, dest, **some)
    with pytest.raises(SettingsError, match=r"unknown keyword cells\. Known are keep"):
        relabel(finished, dest, 0.97, cells=3)
    assert not dest.exists()


def test_relabel_refuses_the_forest_of_another_version(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    state = read_json(out / "run.json")
    write_json(out / "run.json", {**state, "version": "0.0.1"})
    with pytest.raises(OutputError, match=r"is of dask_dedup 0\.0\.1"):
        relabel(out, tmp_path / "dest", 0.97)


def test_relabel_refuses_a_forest_that_is_damaged(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    path = out / "forest" / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[100] ^= 255
    path.write_bytes(content)
    with pytest.raises((OutputError, DamagedError), match=r"forest/part-00000\.parquet"):
        relabel(out, tmp_path / "dest", 0.97)


def test_command_relabels_as_python_does(finished, tmp_path, scheduler):
    words = ["relabel", finished, tmp_path / "dest", "--threshold", "0.97", "-q"]
    words += ["--cluster", scheduler]
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == 0, done.output
    relabel(finished, tmp_path / "right", 0.97)
    check_equal(tmp_path / "dest", tmp_path / "right")


@pytest.mark.slow
def test_relabel_of_clipart_equals_fresh_runs(clipart, tmp_path):
    """At 0.98 and 0.99 the number of duplicates is also that of its README, by brute force."""
    run_here(clipart, tmp_path / "out", threshold=0.95, search_threshold=0.9)
    duplicates = []
    for threshold in (0.92, 0.95, 0.98, 0.99):
        dest, fresh = tmp_path / f"dest{threshold}", tmp_path / f"fresh{threshold}"
        summary = relabel(tmp_path / "out", dest, threshold)
        run_here(clipart, fresh, threshold=threshold)
        for name in ("clusters", "invalid"):
            pd.testing.assert_frame_equal(
                pd.read_parquet(dest / name), pd.read_parquet(fresh / name)
            )
        assert (dest / "histogram.csv").read_text() == (fresh / "histogram.csv").read_text()
        (row,) = sweep(tmp_path / "out", [threshold]).to_dict("records")
        assert row["duplicates"] == summary["duplicates"]
        duplicates.append(summary["duplicates"])
    assert duplicates[1:] == [4261, 3371, 2957]
