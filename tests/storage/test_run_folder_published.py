"""The output folder of a run: what is finished, what is published."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from dask_dedup.errors import DamagedError, OutputError
from dask_dedup.storage.files import read_frame, read_json
from dask_dedup.storage.run_folder import RunFolder

FOLDERS = ("audit", "clusters", "forest", "invalid")
WORKING = ("labels", "layout", "plan.json")
SETTINGS = {"seed": 0, "clusters": {"threshold": 0.95}}


def folder_of(path: Path, settings=SETTINGS, fingerprint="input", overwrite=False) -> RunFolder:
    return RunFolder(path, settings, fingerprint, overwrite, working=WORKING)


def mark_of(path: Path) -> str:
    return read_frame(path)["mark"][0]


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


def test_run_folder_finished_run_is_known_by_the_next(tmp_path, finish):
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
def test_run_folder_other_settings_or_input_are_not_finished(
    tmp_path, settings, fingerprint, finish
):
    with folder_of(tmp_path / "out") as folder:
        finish(folder)
    with folder_of(tmp_path / "out", settings, fingerprint) as folder:
        assert not folder.is_finished()


@pytest.mark.parametrize("name", sorted(RESULTS - {"run.json"}))
def test_is_finished_result_that_is_gone_is_named(tmp_path, name, finish):
    with folder_of(tmp_path / "out") as folder:
        finish(folder)
    path = tmp_path / "out" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with (
        pytest.raises(OutputError, match=f"{path}.*: is missing.* not whole.*--overwrite"),
        folder_of(tmp_path / "out") as folder,
    ):
        folder.is_finished()
    with folder_of(tmp_path / "out", overwrite=True) as folder:
        assert not folder.is_finished()


@pytest.mark.parametrize("name", [*(f"{n}/part-00000.parquet" for n in FOLDERS), "summary.json"])
@pytest.mark.parametrize("content", ["other", "longer than it was"])
def test_is_finished_result_that_has_changed_is_named(tmp_path, name, content, finish):
    with folder_of(tmp_path / "out") as folder:
        finish(folder, mark="first")
    (tmp_path / "out" / name).write_text(content)
    with (
        pytest.raises(OutputError, match=rf"out/{name}: .*not whole"),
        folder_of(tmp_path / "out") as folder,
    ):
        folder.is_finished()


def test_begin_changed_settings_are_named_in_the_log(tmp_path, caplog, finish):
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


def test_begin_again_takes_the_old_summary_away(tmp_path, finish):
    with folder_of(tmp_path / "out") as folder:
        finish(folder)
    with folder_of(tmp_path / "out", {"seed": 1}) as folder:
        folder.begin()
        assert "summary.json" not in names(tmp_path / "out")
        finish(folder, mark="second")
    assert read_json(tmp_path / "out" / "summary.json") == {"mark": "second"}
    assert mark_of(tmp_path / "out" / "clusters" / "part-00000.parquet") == "second"


def test_finish_keeps_or_removes_the_stages(tmp_path, finish):
    for keep in (True, False):
        with folder_of(tmp_path / f"out-{keep}") as folder:
            finish(folder, keep_stages=keep)
            assert folder.stages.exists() == keep


# --- publish --------------------------------------------------------------------------------------


def test_publish_replaces_older_results_as_a_whole(tmp_path, make):
    with folder_of(tmp_path / "out") as folder:
        (folder.path / "clusters").mkdir()
        (folder.path / "clusters" / "part-00009.parquet").write_text("old")
        stage, records = make(folder, "new")
        folder.publish(stage, "clusters", records)
    assert names(tmp_path / "out" / "clusters") == {"part-00000.parquet"}
    assert not (stage.folder / "clusters").exists()


def test_publish_what_this_very_stage_has_published_stays(tmp_path, make):
    for _ in range(2):  # interrupted after it, the run is started again
        with folder_of(tmp_path / "out") as folder:
            folder.begin()
            stage, records = make(folder)
            folder.publish(stage, "clusters", records)
    assert mark_of(tmp_path / "out" / "clusters" / "part-00000.parquet") == "first"


def test_publish_what_another_run_has_published_since_is_made_again(tmp_path, make):
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


def test_publish_part_that_is_missing_is_named_and_nothing_is_replaced(tmp_path, make):
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


def test_publish_file_that_was_lost_after_it_is_put_beside_the_others(tmp_path, make):
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


def test_mend_removes_a_file_of_no_task_and_leaves_results_alone(tmp_path, make):
    with folder_of(tmp_path / "out") as folder:
        stage, records = make(folder)
        folder.publish(stage, "clusters", records)
        assert not folder.mend(str(folder.path / "clusters" / "part-00000.parquet"))
        (stage.folder / "model.bin").write_text("damaged")
        assert folder.mend(str(stage.folder / "model.bin"))
        assert not (stage.folder / "model.bin").exists()
        assert make(folder) == (stage, records)  # which has nothing to do


def test_publish_after_a_kill_leaves_no_part_of_a_larger_run_before(tmp_path, make):
    """Killed when `results.json` named the new result, and OUT still held the old one."""
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


def test_is_finished_file_that_is_not_of_the_result_is_named(tmp_path, finish):
    with folder_of(tmp_path / "out") as folder:
        finish(folder)
    shutil.copy(*(tmp_path / "out" / "clusters" / f"part-0000{i}.parquet" for i in (0, 1)))
    with (
        pytest.raises(OutputError, match=r"part-00001\.parquet: is not of this result"),
        folder_of(tmp_path / "out") as folder,
    ):
        folder.is_finished()
