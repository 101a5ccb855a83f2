"""Real worker processes."""

import os
import signal
import threading
import time
from functools import partial

import pandas as pd
import pytest

import dask_dedup
from dask_dedup import Settings, load_settings
from dask_dedup.pipeline.worker_imports import PRELOAD
from dask_dedup.runtime.deployment import local_cluster
from dask_dedup.runtime.executor import NoProgress, compute_tasks, ignore_result
from dask_dedup.runtime.shares import memory_per_worker, threads_together, worker_count
from dask_dedup.storage.stage import Stage

run_here = partial(dask_dedup.run, execute=compute_tasks)

CELLS = {"cells": {"cells_per_row": 3.0, "cells": 12}}  # as for `photo_clusters`
SLURM = {"cluster.kind": "slurm", "compute.workers": 4, "compute.memory": "4GB"}
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # a killed worker's sockets


def run(photos, out, execute, progress=None, threads=1):
    dask_dedup.run(
        photos, out, {**CELLS, "compute": {"threads": threads}}, execute=execute, progress=progress
    )
    return pd.read_parquet(out / "clusters")


@pytest.mark.parametrize(("workers", "threads"), [(1, 2), (3, 1)])
def test_run_gives_the_same_clusters_on_any_workers_and_threads(
    photos, tmp_path, photo_clusters, workers, threads
):
    compute = Settings.model_validate(
        {"compute": {"workers": workers, "threads": threads, "memory": "4GB"}}
    ).compute
    with local_cluster(compute, tmp_path / "dask", preload=PRELOAD) as execute:
        assert len(execute.client.scheduler_info()["workers"]) == workers
        clusters = run(photos, tmp_path / "out", execute, threads=threads)
    pd.testing.assert_frame_equal(clusters, photo_clusters)


class KillInJoin(NoProgress):
    """Kills a worker as the join begins."""

    def __init__(self, client):
        self.client = client
        self.killed = threading.Event()

    def start(self, stage, rows):
        if stage == "join":
            threading.Thread(target=self._kill).start()

    def _kill(self):
        time.sleep(0.05)
        os.kill(next(iter(self.client.run(os.getpid).values())), signal.SIGKILL)
        self.killed.set()


def test_run_survives_a_killed_worker(photos, tmp_path, photo_clusters):
    compute = Settings.model_validate({"compute": {"workers": 2, "memory": "4GB"}}).compute
    with local_cluster(compute, tmp_path / "dask", preload=PRELOAD) as execute:
        progress = KillInJoin(execute.client)
        clusters = run(photos, tmp_path / "out", execute, progress)
        assert progress.killed.wait(10)
    pd.testing.assert_frame_equal(clusters, photo_clusters)


def note_time(name):
    time.sleep(0.02)
    return {"rows": 1, "began": time.time()}


def test_stage_begins_its_tasks_in_their_order(tmp_path):
    """The costliest tasks stand first, so that no worker is left with one at the end."""
    compute = Settings.model_validate({"compute": {"workers": 1, "memory": "1GB"}}).compute
    names = [f"task-{i:03d}" for i in range(30)]
    with local_cluster(compute, tmp_path / "dask", preload=PRELOAD) as execute:
        stage = Stage(tmp_path / "stage", {})
        tasks = {name: (name,) for name in names}
        records = stage.run(note_time, tasks, execute, ignore_result)
    began = [record["began"] for record in records]
    assert began == sorted(began)


def test_worker_count_and_memory_follow_the_settings():
    compute = Settings.model_validate({"compute": {"workers": 3, "memory": "2GB"}}).compute
    assert worker_count(compute) == 3
    assert memory_per_worker(compute) == 2_000_000_000
    compute = Settings.model_validate({"compute": {"threads": 1}}).compute
    assert 1 <= worker_count(compute) <= len(os.sched_getaffinity(0))  # less under a quota


@pytest.mark.parametrize(
    ("options", "threads"),
    [
        ({"compute.workers": 3, "compute.threads": 2}, 6),
        ({**SLURM, "cluster.processes": 4, "compute.threads": 2}, 8),
        ({**SLURM, "cluster.processes": 4, "cluster.cores": 16}, 16),
        ({"cluster.kind": "tcp://somewhere:8786", "compute.threads": 2}, 2),
    ],
)
def test_training_alone_takes_the_threads_of_all_workers_on_a_machine(options, threads):
    assert threads_together(load_settings(None, options)) == threads
