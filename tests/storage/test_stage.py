"""Stages: what has a record and whole files is kept, the rest is done."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from pathlib import Path

import dask
import pandas as pd
import pytest

from dask_dedup.runtime.executor import compute_tasks, ignore_result
from dask_dedup.storage.checksums import FileDigest
from dask_dedup.storage.files import read_frame, read_json, write_aside, write_frame
from dask_dedup.storage.stage import Stage


def files_under(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def twice(records) -> list[int]:
    assert all(record["files"] == {} for record in records)
    return [record["twice"] for record in records]


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
    received = []
    stage = Stage(tmp_path / "stage", {"a": 1})
    records = run(stage, log, {"z": 3, "a": 5, "m": 7}, received.append)
    assert twice(records) == [6, 10, 14]
    assert received == records
    assert read_json(stage.folder / "manifest.json") == {
        "digest": stage.digest,
        "finished": True,
        "settings": {"a": 1},
        "tasks": 3,
    }


def test_stage_finished_runs_nothing_again_and_returns_all_records(tmp_path, log):
    stage = Stage(tmp_path / "stage", {"a": 1})
    first = run(stage, log, {"x": 3, "y": 5})
    calls(log)
    received = []
    assert run(stage, log, {"x": 3, "y": 5}, received.append) == first
    assert calls(log) == []
    assert received == first


def test_stage_interrupted_with_same_settings_runs_only_the_rest(tmp_path, log):
    stage = Stage(tmp_path / "stage", {"a": 1})
    with pytest.raises(RuntimeError, match="killed"):
        run(stage, log, {"x": 3, "bad": -1})
    assert (read_json(stage.folder / "manifest.json") or {})["finished"] is False
    assert calls(log) == [-1, 3]
    again = Stage(tmp_path / "stage", {"a": 1})
    assert twice(run(again, log, {"x": 3, "bad": 5, "new": 7})) == [6, 10, 14]
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
    assert twice(run(stage, log, {"x": 3, "y": 5})) == [6, 10]
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


def test_stage_kill_between_write_and_rename_leaves_absent(tmp_path):
    stage = Stage(tmp_path / "stage", {"a": 1})
    stage.prepare()
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from dask_dedup.storage.files import write_aside\n"
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


# --- files ----------------------------------------------------------------------------------------


def write_part(folder: Path, log: Path, number: int) -> dict[str, int]:
    """Write a frame of so many rows, and a small file; note the call."""
    with open(log, "a") as handle:
        handle.write(f"{number}\n")
    write_frame(folder / "clusters" / f"{number}.parquet", pd.DataFrame({"x": range(number)}))
    with write_aside(folder / f"{number}.txt") as temporary:
        temporary.write_text("text")
    return {"rows": number}


def write_parts(stage: Stage, log: Path) -> list[dict]:
    tasks = {str(number): (stage.folder, log, number) for number in (3, 5, 7)}
    return stage.run(write_part, tasks, one_by_one, ignore_result)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path, position=-20):
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)


def test_stage_record_names_the_files_of_its_task(tmp_path, log):
    stage = Stage(tmp_path / "stage", {"a": 1})
    records = write_parts(stage, log)
    assert [sorted(record["files"]) for record in records] == [
        [f"{n}.txt", f"clusters/{n}.parquet"] for n in (3, 5, 7)
    ]
    size, tail, _ = records[0]["files"]["3.txt"]
    assert (size, tail) == (4, 4)
    size, tail, _ = records[0]["files"]["clusters/3.parquet"]
    assert size == (stage.folder / "clusters" / "3.parquet").stat().st_size > tail > 100


@pytest.mark.parametrize("name", ["clusters/5.parquet", "5.txt"])
@pytest.mark.parametrize(
    ("harm", "said"),
    [(Path.unlink, "is missing"), (cut, "bytes"), (flip, "its checksum is another")],
)
def test_stage_task_whose_file_is_not_whole_runs_again(tmp_path, log, caplog, name, harm, said):
    stage = Stage(tmp_path / "stage", {"a": 1})
    first = write_parts(stage, log)
    calls(log)
    if name == "5.txt" and harm is flip:
        (stage.folder / name).write_text("test")
    else:
        harm(stage.folder / name)
    with caplog.at_level(logging.WARNING, "dask_dedup"):
        assert write_parts(stage, log) == first
    assert calls(log) == [5]
    (message,) = caplog.messages
    assert message.startswith(f"{stage.folder / name}: ") and message.endswith(": made again")
    assert said in message
    assert len(read_frame(stage.folder / "clusters" / "5.parquet")) == 5


def test_stage_result_with_a_flipped_page_is_made_again(tmp_path, log, caplog):
    """No later stage reads it, so nobody else would notice."""
    stage = Stage(tmp_path / "stage", {"a": 1})
    first = write_parts(stage, log)
    calls(log)
    flip(stage.folder / "clusters" / "7.parquet", 40)
    with caplog.at_level(logging.WARNING, "dask_dedup"):
        assert write_parts(stage, log) == first
    assert calls(log) == [7]
    assert "clusters/7.parquet: is damaged" in caplog.text


def test_stage_many_lost_files_are_one_line(tmp_path, log, caplog):
    stage = Stage(tmp_path / "stage", {"a": 1})
    write_parts(stage, log)
    calls(log)
    for number in (3, 7):
        (stage.folder / f"{number}.txt").unlink()
        (stage.folder / "clusters" / f"{number}.parquet").unlink()
    with caplog.at_level(logging.WARNING, "dask_dedup"):
        write_parts(stage, log)
    assert calls(log) == [3, 7]
    assert len(caplog.messages) == 1 and "(and 3 more files)" in caplog.messages[0]


def test_stage_files_that_have_become_results_are_not_made_again(tmp_path, log):
    asked = []

    def is_published(name: str, digests: FileDigest) -> bool:
        asked.append((name, digests))
        return name.startswith("clusters/")

    stage = Stage(tmp_path / "stage", {"a": 1}, is_published)
    first = write_parts(stage, log)
    calls(log)
    for number in (3, 5, 7):
        (stage.folder / "clusters" / f"{number}.parquet").unlink()
    assert write_parts(stage, log) == first
    assert calls(log) == []
    assert dict(asked) == {
        f"clusters/{n}.parquet": FileDigest(*record["files"][f"clusters/{n}.parquet"])
        for n, record in zip((3, 5, 7), first, strict=True)
    }


def test_stage_record_without_files_is_not_trusted(tmp_path, log):
    stage = Stage(tmp_path / "stage", {"a": 1})
    run(stage, log, {"x": 3})
    (stage.folder / "x.done.json").write_text('{"twice": 8}')
    calls(log)
    assert twice(run(stage, log, {"x": 3})) == [6]
    assert calls(log) == [3]
