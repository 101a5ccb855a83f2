"""The output folder: whose it is, who may write, what is finished."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dask_dedup.errors import OutputError
from dask_dedup.io.run_folder import RunFolder
from dask_dedup.io.store import read_json, write_json

SETTINGS = {"seed": 0, "clusters": {"threshold": 0.95}}


def folder_of(path: Path, settings=SETTINGS, fingerprint="input", overwrite=False) -> RunFolder:
    return RunFolder(path, settings, fingerprint, overwrite)


def finish(folder: RunFolder, keep_stages: bool = False, mark: str = "first") -> None:
    """Do what a run does with its folder."""
    folder.begin()
    for name in ("audit", "clusters", "invalid", "forest"):
        made = folder.stages / "labels" / name
        made.mkdir(parents=True)
        (made / "part-00000.parquet").write_text(mark)
        folder.publish(made)
    for name in ("histogram.csv", "histogram.png", "settings.toml"):
        (folder.path / name).write_text(mark)
    folder.finish({"mark": mark}, keep_stages)


def names(path: Path) -> set[str]:
    return {p.name for p in path.iterdir()}


RESULTS = {
    "audit",
    "clusters",
    "forest",
    "invalid",
    "histogram.csv",
    "histogram.png",
    "settings.toml",
    "summary.json",
    "run.json",
}


# --- finished or not ------------------------------------------------------------------------------


def test_run_folder_finished_run_is_known_by_the_next(tmp_path):
    with folder_of(tmp_path / "out") as folder:
        assert not folder.is_finished()
        finish(folder)
        assert folder.is_finished()
    assert names(tmp_path / "out") == RESULTS
    with folder_of(tmp_path / "out") as folder:
        assert folder.is_finished()
        assert folder.read_summary() == {"mark": "first"}


def test_run_folder_interrupted_run_is_not_finished_and_is_no_foreign_folder(tmp_path):
    with pytest.raises(KeyboardInterrupt), folder_of(tmp_path / "out") as folder:
        folder.begin()
        folder.stages.mkdir()
        raise KeyboardInterrupt
    assert names(tmp_path / "out") == {"run.json", "stages"}
    with folder_of(tmp_path / "out") as folder:
        assert not folder.is_finished()


@pytest.mark.parametrize(
    ("settings", "fingerprint"),
    [
        ({"seed": 1, "clusters": {"threshold": 0.95}}, "input"),
        ({"seed": 0, "clusters": {"threshold": 0.9}}, "input"),
        (SETTINGS, "another input"),
    ],
)
def test_run_folder_other_settings_or_input_are_not_finished(tmp_path, settings, fingerprint):
    with folder_of(tmp_path / "out") as folder:
        finish(folder)
    with folder_of(tmp_path / "out", settings, fingerprint) as folder:
        assert not folder.is_finished()


@pytest.mark.parametrize("name", sorted(RESULTS - {"run.json"}))
def test_run_folder_that_lacks_a_result_is_not_finished(tmp_path, name):
    with folder_of(tmp_path / "out") as folder:
        finish(folder)
    path = tmp_path / "out" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with folder_of(tmp_path / "out") as folder:
        assert not folder.is_finished()


def test_begin_changed_settings_are_named_in_the_log(tmp_path, caplog):
    with folder_of(tmp_path / "out") as folder:
        finish(folder)
    new = {"seed": 0, "clusters": {"threshold": 0.9}, "more": 1}
    with (
        caplog.at_level(logging.WARNING, "dask_dedup"),
        folder_of(tmp_path / "out", new, "another") as folder,
    ):
        folder.begin()
        folder.begin()  # as the command line and the pipeline do
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'out'}: changed since the last run: clusters.threshold (0.95 → 0.9), "
        f"more (None → 1), the input files"
    ]


def test_begin_same_settings_log_nothing(tmp_path, caplog):
    for _ in range(2):
        with folder_of(tmp_path / "out") as folder:
            folder.begin()
    assert not caplog.records


def test_begin_again_takes_the_old_summary_away(tmp_path):
    with folder_of(tmp_path / "out") as folder:
        finish(folder)
    with folder_of(tmp_path / "out", {"seed": 1}) as folder:
        folder.begin()
        assert "summary.json" not in names(tmp_path / "out")
        finish(folder, mark="second")
    assert read_json(tmp_path / "out" / "summary.json") == {"mark": "second"}
    assert (tmp_path / "out" / "clusters" / "part-00000.parquet").read_text() == "second"


def test_finish_keeps_or_removes_the_stages(tmp_path):
    for keep in (True, False):
        with folder_of(tmp_path / f"out-{keep}") as folder:
            finish(folder, keep_stages=keep)
            assert folder.stages.exists() == keep


# --- publish --------------------------------------------------------------------------------------


def test_publish_replaces_older_results_as_a_whole(tmp_path):
    with folder_of(tmp_path / "out") as folder:
        (folder.path / "clusters").mkdir()
        (folder.path / "clusters" / "part-00009.parquet").write_text("old")
        made = folder.stages / "clusters"
        made.mkdir(parents=True)
        (made / "part-00000.parquet").write_text("new")
        folder.publish(made)
    assert names(tmp_path / "out" / "clusters") == {"part-00000.parquet"}
    assert not made.exists()


def test_publish_what_an_interrupted_run_has_published_stays(tmp_path):
    with folder_of(tmp_path / "out") as folder:
        (folder.path / "clusters").mkdir()
        folder.publish(folder.stages / "clusters")
        assert (folder.path / "clusters").is_dir()


def test_publish_result_that_is_nowhere_is_refused(tmp_path):
    with (
        pytest.raises(OutputError, match=r"out/clusters: has been removed, .*--overwrite"),
        folder_of(tmp_path / "out") as folder,
    ):
        folder.publish(folder.stages / "clusters")


# --- whose folder ---------------------------------------------------------------------------------


def test_run_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with (
        pytest.raises(OutputError, match="out: is a file; the output needs a folder"),
        folder_of(tmp_path / "out"),
    ):
        pass
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_run_folder_with_foreign_files_is_refused_and_left_alone(tmp_path, overwrite):
    out = tmp_path / "out"
    (out / "clusters").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "c.txt", "d.txt"):
        (out / name).touch()
    with (
        pytest.raises(
            OutputError,
            match=r"holds files of something else \(a\.txt, b\.txt, c\.txt, …\)\. Choose",
        ),
        folder_of(out, overwrite=overwrite),
    ):
        pass
    assert names(out) == {"a.txt", "b.txt", "c.txt", "d.txt", "clusters"}


@pytest.mark.parametrize("content", [{"name": "of another tool"}, [], {"tool": "other"}, "text"])
def test_run_folder_with_run_json_of_another_tool_is_refused(tmp_path, content):
    write_json(tmp_path / "out" / "run.json", content)
    with (
        pytest.raises(OutputError, match=r"something else \(run\.json\)"),
        folder_of(tmp_path / "out", overwrite=True),
    ):
        pass
    assert read_json(tmp_path / "out" / "run.json") == content


def test_run_folder_empty_one_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    with folder_of(tmp_path / "out") as folder:
        folder.begin()
    assert names(tmp_path / "out") == {"run.json"}


@pytest.mark.parametrize("name", ["file/out", "x" * 300])
def test_run_folder_that_cannot_be_made_is_refused(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"), folder_of(tmp_path / name):
        pass


def test_overwrite_removes_our_files_and_no_others(tmp_path):
    with folder_of(tmp_path / "out") as folder:
        finish(folder, keep_stages=True)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with folder_of(tmp_path / "out", overwrite=True) as folder:
        assert not folder.is_finished()
        assert names(tmp_path / "out") - {".lock"} == {"notes.txt"}
        finish(folder, mark="second")
    assert names(tmp_path / "out") == RESULTS | {"notes.txt"}


# --- the lock -------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from dask_dedup.io.run_folder import RunFolder
with RunFolder(Path(sys.argv[1]), {}, "input") as folder:
    folder.begin()
    print("open", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_by_another_process(path: Path) -> Iterator[subprocess.Popen]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            process.kill()


def test_lock_second_opener_is_refused_and_a_killed_owners_lock_is_taken_over(tmp_path):
    out = tmp_path / "out"
    with held_by_another_process(out) as owner:
        with (
            pytest.raises(OutputError, match="out: another run is writing into this folder"),
            folder_of(out, overwrite=True),
        ):
            pass
        assert names(out) == {".lock", "run.json"}  # not even --overwrite touched anything
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        with folder_of(out) as folder:
            assert not folder.is_finished()
            finish(folder)
    assert names(out) == RESULTS


def test_lock_is_released_and_removed_in_the_end_and_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), folder_of(tmp_path / "out"):
        raise ZeroDivisionError
    assert names(tmp_path / "out") == set()
    with folder_of(tmp_path / "out"):
        assert names(tmp_path / "out") == {".lock"}


def test_lock_leaving_never_removes_the_lock_of_the_next_owner(tmp_path, monkeypatch):
    """The next owner may come as soon as the lock is released, before `__exit__` returns."""
    first, second = folder_of(tmp_path / "out"), folder_of(tmp_path / "out")
    first.__enter__()
    release = first._lock.release

    def release_and_let_the_next_in() -> None:
        release()
        second.__enter__()

    monkeypatch.setattr(first._lock, "release", release_and_let_the_next_in)
    first.__exit__(None, None, None)
    try:
        with (
            pytest.raises(OutputError, match="another run is writing"),
            folder_of(tmp_path / "out"),
        ):
            pass
    finally:
        second.__exit__(None, None, None)
