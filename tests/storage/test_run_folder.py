"""The output folder: whose it is, who may write, what is finished."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
import pandas as pd
import pytest

from dask_dedup.errors import DamagedError, OutputError
from dask_dedup.runtime.executor import compute_tasks, ignore_result
from dask_dedup.storage.files import read_frame, read_json, write_frame, write_json
from dask_dedup.storage.run_folder import RunFolder
from dask_dedup.storage.stage import Stage

WORKING = ("labels", "layout", "plan.json")
SETTINGS = {"seed": 0, "clusters": {"threshold": 0.95}}


def folder_of(path: Path, settings=SETTINGS, fingerprint="input", overwrite=False) -> RunFolder:
    return RunFolder(path, settings, fingerprint, overwrite, working=WORKING)


FOLDERS = ("audit", "clusters", "forest", "invalid")


def make(folder: RunFolder, mark: str = "first", parts: int = 1) -> tuple[Stage, list]:
    """Have a stage make the result folders."""
    stage = folder.stage("labels", {**folder.settings, "mark": mark})
    tasks = {f"part-{i:05d}": (stage.folder, i, mark) for i in range(parts)}
    with dask.config.set(scheduler="synchronous"):
        return stage, stage.run(write_results, tasks, compute_tasks, ignore_result)


def write_results(folder: Path, part: int, mark: str) -> dict[str, int]:
    for name in FOLDERS:
        write_frame(folder / name / f"part-{part:05d}.parquet", pd.DataFrame({"mark": [mark]}))
    return {}


def mark_of(path: Path) -> str:
    return read_frame(path)["mark"][0]


def finish(folder: RunFolder, keep_stages: bool = False, mark: str = "first") -> None:
    """Do what a run does with its folder."""
    folder.begin()
    stage, records = make(folder, mark)
    for name in FOLDERS:
        folder.publish(stage, name, records)
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
    "results.json",
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
def test_is_finished_result_that_is_gone_is_named(tmp_path, name):
    with folder_of(tmp_path / "out") as folder:
        finish(folder)
    path = tmp_path / "out" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    named = (
        r"out/\w+: is not told of in results\.json"
        if name == "results.json"
        else f"{path}.*: is missing"
    )
    with (
        pytest.raises(OutputError, match=rf"{named}.* not whole.*--overwrite"),
        folder_of(tmp_path / "out") as folder,
    ):
        folder.is_finished()
    with folder_of(tmp_path / "out", overwrite=True) as folder:
        assert not folder.is_finished()


@pytest.mark.parametrize("name", [*(f"{n}/part-00000.parquet" for n in FOLDERS), "summary.json"])
@pytest.mark.parametrize("content", ["other", "longer than it was"])
def test_is_finished_result_that_has_changed_is_named(tmp_path, name, content):
    with folder_of(tmp_path / "out") as folder:
        finish(folder, mark="first")
    (tmp_path / "out" / name).write_text(content)
    with (
        pytest.raises(OutputError, match=rf"out/{name}: .*not whole"),
        folder_of(tmp_path / "out") as folder,
    ):
        folder.is_finished()


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
    assert mark_of(tmp_path / "out" / "clusters" / "part-00000.parquet") == "second"


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
        stage, records = make(folder, "new")
        folder.publish(stage, "clusters", records)
    assert names(tmp_path / "out" / "clusters") == {"part-00000.parquet"}
    assert not (stage.folder / "clusters").exists()


def test_publish_what_this_very_stage_has_published_stays(tmp_path):
    for _ in range(2):  # interrupted after it, the run is started again
        with folder_of(tmp_path / "out") as folder:
            folder.begin()
            stage, records = make(folder)
            folder.publish(stage, "clusters", records)
    assert mark_of(tmp_path / "out" / "clusters" / "part-00000.parquet") == "first"


def test_publish_what_another_run_has_published_since_is_made_again(tmp_path):
    """The first run was killed before it ended; its stages are in a work folder of their own."""
    works = [str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "a")]
    for mark, work in zip(("first", "second", "first"), works, strict=True):
        with RunFolder(
            tmp_path / "out", {"mark": mark}, "input", work=work, working=WORKING
        ) as folder:
            folder.begin()
            stage, records = make(folder, mark)
            folder.publish(stage, "clusters", records)
        assert mark_of(tmp_path / "out" / "clusters" / "part-00000.parquet") == mark


def test_publish_part_that_is_missing_is_named_and_nothing_is_replaced(tmp_path):
    with folder_of(tmp_path / "out") as folder:
        (folder.path / "clusters").mkdir()
        (folder.path / "clusters" / "part-00000.parquet").write_text("old")
        stage, records = make(folder, parts=3)
        (stage.folder / "clusters" / "part-00001.parquet").unlink()
        with pytest.raises(
            DamagedError, match=r"clusters/part-00001\.parquet: is missing"
        ) as error:
            folder.publish(stage, "clusters", records)
        assert (folder.path / "clusters" / "part-00000.parquet").read_text() == "old"
        assert folder.mend(error.value.path)
        stage, records = make(folder, parts=3)
        folder.publish(stage, "clusters", records)
    assert len(names(tmp_path / "out" / "clusters")) == 3


def test_publish_file_that_was_lost_after_it_is_put_beside_the_others(tmp_path):
    for _ in range(2):
        with folder_of(tmp_path / "out") as folder:
            folder.begin()
            stage, records = make(folder, parts=3)
            folder.publish(stage, "clusters", records)
        (tmp_path / "out" / "clusters" / "part-00001.parquet").unlink(missing_ok=True)
    with folder_of(tmp_path / "out") as folder:
        stage, records = make(folder, parts=3)
        folder.publish(stage, "clusters", records)
    assert len(names(tmp_path / "out" / "clusters")) == 3


def test_mend_removes_a_file_of_no_task_and_leaves_results_alone(tmp_path):
    with folder_of(tmp_path / "out") as folder:
        stage, records = make(folder)
        folder.publish(stage, "clusters", records)
        assert not folder.mend(str(folder.path / "clusters" / "part-00000.parquet"))
        (stage.folder / "model.bin").write_text("damaged")
        assert folder.mend(str(stage.folder / "model.bin"))
        assert not (stage.folder / "model.bin").exists()
        assert make(folder) == (stage, records)  # which has nothing to do


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
def test_run_folder_with_a_link_for_results_is_refused(tmp_path, name, overwrite):
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
def test_run_folder_with_files_of_the_user_among_ours_is_refused(tmp_path, name, overwrite):
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
def test_run_folder_with_files_of_the_user_under_our_names_is_refused(tmp_path, name, said):
    with folder_of(tmp_path / "out") as folder:
        finish(folder)
    place = tmp_path / "out" / name
    if place.parent.is_file():
        place.parent.unlink()
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("precious")
    with (
        pytest.raises(OutputError, match=said),
        folder_of(tmp_path / "out", {"seed": 5}, overwrite=True),
    ):
        pass
    assert place.read_text() == "precious"


@pytest.mark.parametrize("name", ["summary.json", "clusters/part-00000.parquet", "stages/layout"])
def test_run_folder_with_a_link_under_our_names_is_refused(tmp_path, name):
    with folder_of(tmp_path / "out") as folder:
        finish(folder)
    place = tmp_path / "out" / name
    place.unlink(missing_ok=True)
    place.parent.mkdir(exist_ok=True)
    (tmp_path / "mine").write_text("precious")
    place.symlink_to(tmp_path / "mine")
    with (
        pytest.raises(OutputError, match=r"is a link|which no run has written"),
        folder_of(tmp_path / "out", {"seed": 5}, overwrite=True),
    ):
        pass
    assert place.is_symlink() and (tmp_path / "mine").read_text() == "precious"


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


def test_publish_after_a_kill_leaves_no_part_of_a_larger_run_before(tmp_path):
    """Killed when `results.json` told of the new result, and the old one was still in place."""
    with folder_of(tmp_path / "out") as folder:
        folder.begin()
        stage, records = make(folder, "old", parts=3)
        folder.publish(stage, "clusters", records)
    old = shutil.copytree(tmp_path / "out" / "clusters", tmp_path / "old")
    with folder_of(tmp_path / "out", {"seed": 7}) as folder:
        folder.begin()
        stage, records = make(folder, "new", parts=2)
        kept = shutil.copytree(stage.folder, tmp_path / "kept")
        folder.publish(stage, "clusters", records)
    shutil.rmtree(tmp_path / "out" / "clusters")
    shutil.copytree(old, tmp_path / "out" / "clusters")
    shutil.rmtree(stage.folder)
    shutil.copytree(kept, stage.folder)
    with folder_of(tmp_path / "out", {"seed": 7}) as folder:
        stage, records = make(folder, "new", parts=2)
        folder.publish(stage, "clusters", records)
    assert names(tmp_path / "out" / "clusters") == {"part-00000.parquet", "part-00001.parquet"}
    assert mark_of(tmp_path / "out" / "clusters" / "part-00001.parquet") == "new"


def test_is_finished_file_that_is_not_of_the_result_is_named(tmp_path):
    with folder_of(tmp_path / "out") as folder:
        finish(folder)
    shutil.copy(*(tmp_path / "out" / "clusters" / f"part-0000{i}.parquet" for i in (0, 1)))
    with (
        pytest.raises(OutputError, match=r"part-00001\.parquet: is not of this result"),
        folder_of(tmp_path / "out") as folder,
    ):
        folder.is_finished()


@pytest.mark.parametrize("harm", [{"settings": 5}, {"source": {"path": 5}}, {"search": []}])
def test_run_folder_whose_state_was_edited_is_refused(tmp_path, harm):
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


def test_run_folder_of_another_data_set_is_refused_unless_overwritten(tmp_path):
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
def test_run_folder_of_a_grown_changed_or_moved_data_set_is_taken(tmp_path, source, marks):
    with open_of(tmp_path / "out", "/data/a", ["1", "2"]) as folder:
        finish(folder)
    with open_of(tmp_path / "out", source, marks) as folder:
        folder.begin()
        assert (read_json(folder.path / "run.json") or {})["source"]["path"] == source


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
    assert not (tmp_path / "out").exists()  # nothing was begun
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
