"""A GPU for each worker, by Dask's resource: with workers of a real cluster that offer one."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest
from dask.delayed import delayed
from distributed import Client, LocalCluster, Scheduler, SpecCluster, Worker, get_worker

from dask_dedup.errors import ClusterError
from dask_dedup.runtime.deployment import local_cluster, use_client
from dask_dedup.runtime.gpus import GPU, worker_number
from dask_dedup.settings.run_settings import ComputeSettings

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def _time_on_worker(_: int) -> tuple[str, int, float, float]:
    began = time.time()
    time.sleep(0.2)
    return get_worker().address, worker_number(), began, time.time()


def test_local_workers_are_as_many_as_gpus_and_numbered(tmp_path: Path) -> None:
    compute = ComputeSettings(workers=3)
    with local_cluster(compute, tmp_path, gpus=2) as execute:
        offered = [worker["resources"] for worker in execute.workers().values()]
        assert offered == [{"GPU": 1}, {"GPU": 1}]
        found = execute([delayed(_time_on_worker)(i) for i in range(6)], lambda _: None)
    assert {number for _, number, *_ in found} == {0, 1}
    assert len({address for address, *_ in found}) == 2


def test_local_workers_without_gpus_are_all(tmp_path: Path) -> None:
    with local_cluster(ComputeSettings(workers=2), tmp_path) as execute:
        assert [worker["resources"] for worker in execute.workers().values()] == [{}, {}]


def test_tasks_run_one_at_a_time_on_the_worker_that_offers_a_gpu() -> None:
    workers = {
        name: {"cls": Worker, "options": {"nthreads": 3, "resources": resources}}
        for name, resources in (("plain", {}), ("gpu", {"GPU": 1}))
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": ":0", "dashboard": False}}
    with SpecCluster(workers, scheduler, silence_logs=50) as cluster, Client(cluster) as client:
        execute = use_client(client, resources=GPU)
        found = execute([delayed(_time_on_worker)(i) for i in range(4)], lambda _: None)
        (own,) = {
            address for address, worker in execute.workers().items() if worker["name"] == "gpu"
        }
    assert {address for address, *_ in found} == {own}
    times = sorted((began, ended) for *_, began, ended in found)
    for (_, ended), (began, _) in pairwise(times):
        assert began >= ended


def test_workers_that_offer_no_gpu_are_refused() -> None:
    with (
        LocalCluster(1, processes=False, dashboard_address=":0", silence_logs=50) as cluster,
        Client(cluster) as client,
        pytest.raises(ClusterError, match=r"none of 1 workers offers a GPU.*--resources GPU=1"),
    ):
        use_client(client, resources=GPU)


def test_worker_number_outside_of_workers_is_0() -> None:
    assert worker_number() == 0
