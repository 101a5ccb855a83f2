"""The real command, killed at any moment and given again, comes to the undisturbed clusters."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest

from dask_dedup.pipeline.stages import stages_of
from dask_dedup.storage.files import read_json
from dask_dedup.storage.stage import MANIFEST, RECORD

FOLDERS = {
    stage.name: stage.folder
    for stage in stages_of("join")
    if stage.is_shown and not stage.is_optional
}


#: As of `clipart_clusters` and `photo_clusters`.
CLIPART = ["--workers", "2", "--cells-per-row", "4", "--cells", "40", "-q"]
PHOTOS = ["--workers", "2", "--cells-per-row", "3", "--cells", "12", "-q"]


def start(data: Path, out: Path, options: list[str] = CLIPART) -> subprocess.Popen:
    command = [sys.executable, "-m", "dask_dedup", "run", str(data), str(out), *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def finish(data: Path, out: Path, options: list[str] = CLIPART) -> pd.DataFrame:
    process = start(data, out, options)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return pd.read_parquet(out / "clusters")


def count_records(out: Path) -> int:
    return len(list((out / "stages").rglob(f"*{RECORD}")))


def processes_of(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill_driver(process: subprocess.Popen) -> None:
    """Kill the command alone, as the kernel does for want of memory; what it started must end."""
    started = processes_of(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive


def test_driver_killed_and_run_again(photos, tmp_path, photo_clusters):
    """Killed once the first task is recorded."""
    out = tmp_path / "out"
    process = start(photos, out, PHOTOS)
    while process.poll() is None and not count_records(out):
        time.sleep(0.01)
    kill_driver(process)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "summary.json").exists()
    pd.testing.assert_frame_equal(finish(photos, out, PHOTOS), photo_clusters)


def stage_of(out: Path) -> str:
    """Return the last stage that has begun, or how a run without one stands."""
    begun = [name for name, folder in FOLDERS.items() if (out / "stages" / folder).is_dir()]
    if begun == ["fit", "layout"] and not (out / "stages" / "layout" / "trained.json").exists():
        return "fit"
    return begun[-1] if begun else "done" if (out / "summary.json").exists() else "start"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_driver_killed_at_twenty_random_moments(clipart, tmp_path, clipart_clusters):
    moments = random.Random(0)
    began = time.monotonic()
    finish(clipart, tmp_path / "whole")
    whole = time.monotonic() - began
    print(f"\nundisturbed: {whole:.1f} s\n| killed after | in | tasks kept | both runs | more |")
    kills = 0
    for trial in range(60):
        out, moment = tmp_path / f"out-{trial}", moments.uniform(0.3, 1.0) * whole
        began = time.monotonic()
        process = start(clipart, out)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=moment)
        seconds = time.monotonic() - began
        if process.poll() is not None:  # done before its moment
            process.stderr.close()
            continue
        kill_driver(process)
        kept, stage = count_records(out), stage_of(out)
        began = time.monotonic()
        clusters = finish(clipart, out)
        seconds += time.monotonic() - began
        pd.testing.assert_frame_equal(clusters, clipart_clusters)
        print(
            f"| {moment:.1f} s | {stage} | {kept} | {seconds:.1f} s | {seconds / whole - 1:.0%} |"
        )
        kills += 1
        if kills == 20:
            break
    assert kills == 20


@pytest.mark.slow
@pytest.mark.parametrize("stage", FOLDERS)
def test_worker_killed_in_each_stage(clipart, tmp_path, clipart_clusters, stage):
    out = tmp_path / "out"
    process = start(clipart, out)
    folder = out / "stages" / FOLDERS[stage]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        manifest = read_json(folder / MANIFEST)
        if manifest is not None and (manifest["tasks"] is not None or stage == "fit"):
            break
        time.sleep(0.002)
    # A worker is one that has threads, and is no child of the command itself.
    seen, workers = stage_of(out), []
    while time.monotonic() < deadline and process.poll() is None and not workers:
        workers = [
            child
            for child in processes_of(process)
            if child.ppid() != process.pid and child.num_threads() > 3
        ]
    assert workers
    os.kill(workers[0].pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    pd.testing.assert_frame_equal(pd.read_parquet(out / "clusters"), clipart_clusters)
    print(f"worker killed in {stage} ({seen})")
