"""The output folder of a run: what is refused, what is left alone, who may write."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dask_dedup.errors import OutputError
from dask_dedup.storage.files import read_json, write_json
from dask_dedup.storage.run_folder import RunFolder

WORKING = ("labels", "layout", "plan.json")
SETTINGS = {"seed": 0, "clusters": {"threshold": 0.95}}


def folder_of(path: Path, settings=SETTINGS, fingerprint="input", overwrite=False) -> RunFolder:
    return RunFolder(path, settings, fingerprint, overwrite, working=WORKING)


def names(path: Path) -> set[str]:
    return {p.name for p in path.iterdir()}


RESULTS = {*RunFolder.result_folders, *RunFolder.result_files, RunFolder.state_name}


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
        pytest.raises(OutputError, match=r"run\.json: is damaged, or not of dask_dedup"),
        folder_of(tmp_path / "out", overwrite=True),
    ):
        pass
    assert read_json(tmp_path / "out" / "run.json") == content


@pytest.mark.parametrize("name", ["clusters", "forest", "stages"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_run_folder_with_a_link_for_results_is_refused(tmp_path, name, overwrite, finish):
    with folder_of(tmp_path / "out") as folder:
        finish(folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "part-00000.parquet").write_text("precious")
    shutil.rmtree(tmp_path / "out" / name, ignore_errors=True)
    (tmp_path / "out" / name).symlink_to(tmp_path / "mine")
    with (
        pytest.raises(OutputError, match=rf"out/{name}: is a link"),
        folder_of(tmp_path / "out", overwrite=overwrite),
    ):
        pass
    assert (tmp_path / "mine" / "part-00000.parquet").read_text() == "precious"


@pytest.mark.parametrize("name", ["clusters/notes.csv", "stages/mine/data.bin", "stages/mine.txt"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_run_folder_with_files_of_the_user_among_ours_is_refused(tmp_path, name, overwrite, finish):
    with folder_of(tmp_path / "out") as folder:
        finish(folder)
    (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "out" / name).write_text("precious")
    with (
        pytest.raises(OutputError, match=r"which no run has written"),
        folder_of(tmp_path / "out", {"seed": 5}, overwrite=overwrite),
    ):
        pass
    assert (tmp_path / "out" / name).read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("clusters/part-00000.parquet/mine.txt", "which no run has written"),
        ("clusters/part-7.parquet", "which no run has written"),
        ("clusters/.unfinished-mine/x.txt", "which no run has written"),
        ("stages/plan.json/mine.txt", "which no run has written"),
        ("settings.toml/mine.txt", "is a folder"),
    ],
)
def test_run_folder_with_files_of_the_user_under_our_names_is_refused(tmp_path, name, said, finish):
    with folder_of(tmp_path / "out") as folder:
        finish(folder)
    path = tmp_path / "out" / name
    if path.parent.is_file():
        path.parent.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("precious")
    with (
        pytest.raises(OutputError, match=said),
        folder_of(tmp_path / "out", {"seed": 5}, overwrite=True),
    ):
        pass
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["summary.json", "clusters/part-00000.parquet", "stages/layout"])
def test_run_folder_with_a_link_under_our_names_is_refused(tmp_path, name, finish):
    with folder_of(tmp_path / "out") as folder:
        finish(folder)
    path = tmp_path / "out" / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    (tmp_path / "mine").write_text("precious")
    path.symlink_to(tmp_path / "mine")
    with (
        pytest.raises(OutputError, match=r"is a link|which no run has written"),
        folder_of(tmp_path / "out", {"seed": 5}, overwrite=True),
    ):
        pass
    assert path.is_symlink() and (tmp_path / "mine").read_text() == "precious"


def test_lock_that_is_a_link_or_the_users_own_file_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "out" / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match=r"\.lock: is a link"), folder_of(tmp_path / "out"):
        pass
    assert (tmp_path / "mine").read_text() == "precious"
    (tmp_path / "out" / ".lock").unlink()
    (tmp_path / "out" / ".lock").write_text("precious")
    with pytest.raises(OutputError, match=r"\.lock: is no lock"), folder_of(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / ".lock").read_text() == "precious"


def test_run_folder_whose_working_files_lie_among_the_results_is_refused(tmp_path):
    with (
        pytest.raises(OutputError, match=r"lies in .*out/clusters, which the results replace"),
        RunFolder(tmp_path / "out", {}, "input", work=str(tmp_path / "out" / "clusters")),
    ):
        pass
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("harm", [{"settings": 5}, {"source": {"path": 5}}, {"search": []}])
def test_run_folder_whose_state_was_edited_is_refused(tmp_path, harm, finish):
    with folder_of(tmp_path / "out") as folder:
        finish(folder)
    state = read_json(tmp_path / "out" / "run.json")
    (tmp_path / "out" / "run.json").write_text(json.dumps({**state, **harm}))
    with (
        pytest.raises(OutputError, match=r"run\.json: is damaged, or not of dask_dedup"),
        folder_of(tmp_path / "out"),
    ):
        pass


def open_of(path: Path, source: str, marks: list[str], **options) -> RunFolder:
    return RunFolder(
        path, SETTINGS, " ".join(marks), source=(source, marks), working=WORKING, **options
    )


def test_run_folder_of_another_data_set_is_refused_unless_overwritten(tmp_path, finish):
    with open_of(tmp_path / "out", "/data/a", ["1", "2"]) as folder:
        finish(folder)
    with (
        pytest.raises(OutputError, match=r"results of another data set, /data/a, .*--overwrite"),
        open_of(tmp_path / "out", "/data/b", ["3"]),
    ):
        pass
    assert (tmp_path / "out" / "summary.json").exists()
    with open_of(tmp_path / "out", "/data/b", ["3"], overwrite=True) as folder:
        finish(folder)


@pytest.mark.parametrize(
    ("source", "marks"), [("/data/b", ["2", "3"]), ("/data/a", ["3"]), ("/elsewhere", ["1", "2"])]
)
def test_run_folder_of_a_grown_changed_or_moved_data_set_is_taken(tmp_path, source, marks, finish):
    with open_of(tmp_path / "out", "/data/a", ["1", "2"]) as folder:
        finish(folder)
    with open_of(tmp_path / "out", source, marks) as folder:
        folder.begin()
        assert (read_json(folder.path / "run.json") or {})["source"]["path"] == source


def test_run_folder_of_a_relative_name_is_that_of_the_same_place(tmp_path, finish, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_of(tmp_path / "out", "data", ["1", "2"]) as folder:
        finish(folder)
    with open_of(tmp_path / "out", str(tmp_path / "data"), ["3"]) as folder:
        folder.begin()


def test_run_folder_that_is_refused_leaves_no_folder_behind(tmp_path):
    with pytest.raises(ZeroDivisionError), folder_of(tmp_path / "a" / "b" / "out"):
        raise ZeroDivisionError
    assert not (tmp_path / "a").exists()


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


def test_overwrite_removes_our_files_and_no_others(tmp_path, finish):
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
from dask_dedup.storage.run_folder import RunFolder
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


def test_lock_second_opener_is_refused_and_a_killed_owners_lock_is_taken_over(tmp_path, finish):
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
    assert not (tmp_path / "out").exists()  # nothing was begun
    with folder_of(tmp_path / "out"):
        assert names(tmp_path / "out") == {".lock"}
