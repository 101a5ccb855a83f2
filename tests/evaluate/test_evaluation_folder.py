"""The folder of an evaluation: locked, refused, begun anew without loss of what is not ours."""

from __future__ import annotations

import pytest

from dask_dedup.errors import OutputError
from dask_dedup.evaluate.evaluation_folder import RESULTS, finish, is_finished, open_folder
from dask_dedup.storage.folder_lock import FolderLock


def evaluate(path, overwrite=False, **settings):
    with open_folder(path, "truth", settings, overwrite) as stage:
        stage.prepare()
        assert FolderLock(path).is_held()
        for name in RESULTS["truth"]:
            if "." in name:
                (path / name).write_text(str(settings))
            else:
                (path / name).mkdir(exist_ok=True)
                (path / name / f"{settings['k']}.parquet").write_text("")
        finish(stage)
    assert not FolderLock(path).is_held()


def names(path):
    return {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}


def test_open_folder_overwrite_removes_what_evaluations_write_and_nothing_else(tmp_path):
    evaluate(tmp_path / "out", k=3)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / "mine").mkdir()
    (tmp_path / "out" / "mine" / "more.txt").write_text("mine")
    evaluate(tmp_path / "out", overwrite=True, k=4)
    folders = {f"{name}/4.parquet" for name in ("neighbours", "pairs", "scan")}
    mine = {"notes.txt", "mine/more.txt"}
    assert names(tmp_path / "out") == {*folders, *mine, "summary.json", "manifest.json"}


def test_open_folder_of_the_same_settings_is_finished_and_of_others_refused(tmp_path):
    evaluate(tmp_path / "out", k=3)
    with open_folder(tmp_path / "out", "truth", {"k": 3}) as stage:
        assert is_finished(stage)
    with (
        pytest.raises(OutputError, match=r"another input or other settings: k \(3 → 4\)\."),
        open_folder(tmp_path / "out", "truth", {"k": 4}),
    ):
        pass
    with (
        pytest.raises(OutputError, match=r"holds files of something else \(manifest\.json, "),
        open_folder(tmp_path / "out", "pareto", {"k": 3}),
    ):
        pass
    with open_folder(tmp_path / "out", "truth", {"k": 3}) as stage:
        assert is_finished(stage)


def test_open_folder_that_another_has_is_refused(tmp_path):
    with (
        open_folder(tmp_path / "out", "truth", {"k": 3}),
        pytest.raises(OutputError, match="another run is writing into this folder"),
        open_folder(tmp_path / "out", "truth", {"k": 3}),
    ):
        pass
