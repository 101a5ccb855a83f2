"""Outputs of stages: complete or absent, kept where nothing has changed."""

from __future__ import annotations

import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_dedup.io.store import (
    Stage,
    digest_of,
    open_once,
    read_arrays,
    read_json,
    write_arrays,
    write_aside,
    write_frame,
    write_json,
)
from dask_dedup.tasks import compute_tasks, ignore_result


def files_under(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# --- write_aside ----------------------------------------------------------------------------------


def test_write_aside_file_appears_only_when_the_block_ends(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    with write_aside(target) as temporary:
        temporary.write_text("done")
        assert temporary.parent == target.parent
        assert not target.exists()
    assert target.read_text() == "done"
    assert files_under(tmp_path) == ["deep/a.txt"]


def test_write_aside_failure_between_write_and_rename_leaves_absent(tmp_path):
    with pytest.raises(KeyboardInterrupt), write_aside(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert files_under(tmp_path) == []


def test_write_aside_failure_keeps_what_was_there(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), write_aside(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "a.txt").read_text() == "old"


def test_write_aside_kill_between_write_and_rename_leaves_absent(tmp_path):
    stage = Stage(tmp_path / "stage", {"a": 1})
    stage.prepare()
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from dask_dedup.io.store import write_aside\n"
        "with write_aside(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
    )
    target = stage.folder / "clusters" / "part-00000.parquet"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    left = [p for p in target.parent.iterdir() if p.is_file()]
    assert [p.read_text() for p in left] == ["half"]
    assert not target.exists()
    stage.prepare()  # what is left goes when the stage begins again
    assert list(target.parent.iterdir()) == []


# --- JSON, frames, digests ------------------------------------------------------------------------


def test_write_arrays_holds_those_arrays_and_nothing_else(tmp_path):
    """numpy before 2.2 stores what it does not know, such as an option, as one more array."""
    arrays = {"rows": np.arange(6, dtype="f4").reshape(3, 2), "row_ids": np.array([5, 3, 1])}
    write_arrays(tmp_path / "a.npz", **arrays)
    with zipfile.ZipFile(tmp_path / "a.npz") as file:
        assert sorted(file.namelist()) == ["row_ids.npy", "rows.npy"]
    read = read_arrays(tmp_path / "a.npz")
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype


def test_write_arrays_writes_no_pickle(tmp_path):
    with pytest.raises(AssertionError, match="arrays of objects"):
        write_arrays(tmp_path / "a.npz", names=np.array(["a", None], object))
    assert files_under(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe", b"[1, 2"])
def test_read_json_damaged_or_missing_is_none(tmp_path, content):
    assert read_json(tmp_path / "a.json") is None
    (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") is None


def test_write_json_reads_back(tmp_path):
    content = {"text": "über 🦆\n", "numbers": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content


def test_write_json_of_what_json_cannot_say_leaves_absent(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert files_under(tmp_path) == []


def test_write_frame_keeps_schema_and_no_notes_of_pandas(tmp_path):
    frame = pd.DataFrame(
        {"src": np.array([3, 1]), "x": np.array([0.5, 1], np.float32)}, index=[7, 8]
    )
    write_frame(tmp_path / "a.parquet", frame)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema == pa.schema([("src", pa.int64()), ("x", pa.float32())])
    assert table.schema.metadata is None
    assert table.to_pydict() == {"src": [3, 1], "x": [0.5, 1.0]}


def test_write_frame_empty_keeps_the_schema(tmp_path):
    schema = pa.schema([("row_id", pa.int64()), ("tags", pa.list_(pa.string()))])
    write_frame(tmp_path / "a.parquet", schema.empty_table())
    assert pq.read_table(tmp_path / "a.parquet").schema == schema


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False) | st.text()))
def test_digest_of_does_not_depend_on_the_order_of_keys(settings):
    assert digest_of(settings) == digest_of(dict(reversed(settings.items())))


def test_digest_of_changes_with_any_value():
    variants = [{}, {"a": 1}, {"a": 2}, {"a": None}, {"b": 1}, {"a": {"b": 1}}, {"a": 1, "b": 1}]
    assert len({digest_of(settings) for settings in variants}) == len(variants)


# --- Stage ----------------------------------------------------------------------------------------


def double(log: Path, number: int) -> dict[str, int]:
    """Note that it was called; fail where the number is negative."""
    with open(log, "a") as handle:
        handle.write(f"{number}\n")
    if number < 0:
        raise RuntimeError("killed")
    return {"twice": 2 * number}


@pytest.fixture
def log(tmp_path) -> Path:
    path = tmp_path / "calls.txt"
    path.touch()
    return path


def calls(log: Path) -> list[int]:
    """Numbers of the calls since the last look."""
    done = [int(line) for line in log.read_text().split()]
    log.write_text("")
    return sorted(done)


def run(stage: Stage, log: Path, numbers: dict[str, int], on_result=ignore_result) -> list[dict]:
    tasks = {name: (log, number) for name, number in numbers.items()}
    return stage.run(double, tasks, one_by_one, on_result)


def one_by_one(tasks, on_result):
    """An `Execute` in the order of the tasks."""
    return [compute_tasks([task], on_result)[0] for task in tasks]


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


def test_stage_records_come_in_the_order_of_the_tasks(tmp_path, log):
    heard = []
    stage = Stage(tmp_path / "stage", {"a": 1})
    records = run(stage, log, {"z": 3, "a": 5, "m": 7}, heard.append)
    assert records == [{"twice": 6}, {"twice": 10}, {"twice": 14}]
    assert heard == records
    assert read_json(stage.folder / "manifest.json") == {
        "digest": stage.digest,
        "finished": True,
        "settings": {"a": 1},
        "tasks": 3,
    }


def test_stage_finished_runs_nothing_again_and_tells_all_records(tmp_path, log):
    stage = Stage(tmp_path / "stage", {"a": 1})
    first = run(stage, log, {"x": 3, "y": 5})
    calls(log)
    heard = []
    assert run(stage, log, {"x": 3, "y": 5}, heard.append) == first
    assert calls(log) == []
    assert heard == first


def test_stage_interrupted_with_same_settings_runs_only_the_rest(tmp_path, log):
    stage = Stage(tmp_path / "stage", {"a": 1})
    with pytest.raises(RuntimeError, match="killed"):
        run(stage, log, {"x": 3, "bad": -1})
    assert (read_json(stage.folder / "manifest.json") or {})["finished"] is False
    assert calls(log) == [-1, 3]
    again = Stage(tmp_path / "stage", {"a": 1})
    assert run(again, log, {"x": 3, "bad": 5, "new": 7}) == [
        {"twice": 6},
        {"twice": 10},
        {"twice": 14},
    ]
    assert calls(log) == [5, 7]
    assert (read_json(stage.folder / "manifest.json") or {})["finished"] is True


def test_stage_changed_settings_redo_everything_and_remove_old_files(tmp_path, log):
    old = Stage(tmp_path / "stage", {"a": 1})
    run(old, log, {"x": 3, "y": 5})
    (old.folder / "clusters").mkdir()
    (old.folder / "clusters" / "part.parquet").write_text("old")
    calls(log)
    new = Stage(tmp_path / "stage", {"a": 2})
    run(new, log, {"x": 3})
    assert calls(log) == [3]
    assert files_under(new.folder) == ["manifest.json", "x.done.json"]


def test_stage_files_without_a_manifest_are_not_trusted(tmp_path, log):
    stage = Stage(tmp_path / "stage", {"a": 1})
    run(stage, log, {"x": 3})
    (stage.folder / "manifest.json").unlink()
    calls(log)
    run(stage, log, {"x": 3})
    assert calls(log) == [3]


def test_stage_damaged_record_is_made_again(tmp_path, log):
    stage = Stage(tmp_path / "stage", {"a": 1})
    run(stage, log, {"x": 3, "y": 5})
    (stage.folder / "x.done.json").write_text('{"twi')
    calls(log)
    assert run(stage, log, {"x": 3, "y": 5}) == [{"twice": 6}, {"twice": 10}]
    assert calls(log) == [3]


def test_stage_removes_what_killed_tasks_were_writing(tmp_path, log):
    stage = Stage(tmp_path / "stage", {"a": 1})
    run(stage, log, {"x": 3})
    leftovers = [stage.folder / ".unfinished-1-a", stage.folder / "clusters" / ".unfinished-2-b"]
    leftovers[1].parent.mkdir()
    for leftover in leftovers:
        leftover.touch()
    stage.prepare()
    assert not any(leftover.exists() for leftover in leftovers)
    assert "x.done.json" in files_under(stage.folder)


def leave_and_finish(folder: Path) -> dict[str, int]:
    """Leave what a worker killed in mid-write leaves; its task is then done by another."""
    (folder / "clusters").mkdir(exist_ok=True)
    (folder / "clusters" / ".unfinished-1-part").touch()
    return {}


def test_stage_removes_what_workers_killed_during_this_run_left(tmp_path):
    stage = Stage(tmp_path / "stage", {"a": 1})
    stage.run(leave_and_finish, {"x": (stage.folder,)}, compute_tasks, ignore_result)
    assert files_under(stage.folder) == ["manifest.json", "x.done.json"]


def test_stage_record_is_written_after_the_work(tmp_path, log):
    stage = Stage(tmp_path / "stage", {"a": 1})
    with pytest.raises(RuntimeError):
        run(stage, log, {"bad": -1})
    assert files_under(stage.folder) == ["manifest.json"]


def test_open_once_reads_a_file_once_until_it_changes(tmp_path):
    opened = []

    def load(path):
        opened.append(path)
        return (tmp_path / "model").read_text()

    (tmp_path / "model").write_text("one")
    assert [open_once(load, tmp_path / "model") for _ in range(3)] == ["one"] * 3
    assert len(opened) == 1
    with write_aside(tmp_path / "model") as temporary:
        temporary.write_text("two")
    assert open_once(load, tmp_path / "model") == "two"


def test_open_once_of_a_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_once(lambda path: open(path).close(), tmp_path / "none")
