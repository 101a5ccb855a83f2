"""A run's folder as a run leaves it, without a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dask
import pandas as pd
import pytest

from dask_dedup.runtime.executor import compute_tasks, ignore_result
from dask_dedup.storage.files import write_frame
from dask_dedup.storage.run_folder import RunFolder
from dask_dedup.storage.stage import Stage


@pytest.fixture
def make() -> Callable:
    """Have a stage make the result folders: what is called with the folder returns both."""
    return make_results


@pytest.fixture
def finish() -> Callable:
    """Do what a run does with its folder: to be called with it."""
    return finish_run


def make_results(folder: RunFolder, mark: str = "first", parts: int = 1) -> tuple[Stage, list]:
    """Have a stage make the result folders."""
    stage = folder.stage("labels", {**folder.settings, "mark": mark})
    tasks = {f"part-{i:05d}": (stage.folder, i, mark) for i in range(parts)}
    with dask.config.set(scheduler="synchronous"):
        return stage, stage.run(write_results, tasks, compute_tasks, ignore_result)


def write_results(folder: Path, part: int, mark: str) -> dict[str, int]:
    for name in RunFolder.result_folders:
        write_frame(folder / name / f"part-{part:05d}.parquet", pd.DataFrame({"mark": [mark]}))
    return {}


def finish_run(folder: RunFolder, keep_stages: bool = False, mark: str = "first") -> None:
    """Do what a run does with its folder."""
    folder.begin()
    stage, records = make_results(folder, mark)
    for name in RunFolder.result_folders:
        folder.publish(stage, name, records)
    for name in ("histogram.csv", "histogram.png", "settings.toml"):
        (folder.path / name).write_text(mark)
    folder.finish({"mark": mark}, keep_stages)
