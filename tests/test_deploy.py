"""Workers of a scheduler that runs already: real ones, of `dask scheduler` and `dask worker`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from dask_dedup.config import load_settings
from dask_dedup.deploy import open_cluster
from dask_dedup.errors import ClusterError

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., None]]:
    """Return a function that starts `dask scheduler` or `dask worker`."""
    running: list[subprocess.Popen] = []

    def start_one(*arguments: object) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "dask", *map(str, arguments)], env=environment, cwd=ROOT,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip

    yield start_one
    for process in reversed(running):
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def empty(start) -> str:
    """Address of a scheduler without a worker."""
    port = free_port()
    start("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    return f"tcp://127.0.0.1:{port}"


def dedup(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dask_dedup", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_open_cluster_without_scheduler_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("dask_dedup.deploy._CONNECT_SECONDS", 1)
    address = f"tcp://127.0.0.1:{free_port()}"
    settings = load_settings(None, {"cluster.kind": address})
    refused = pytest.raises(ClusterError, match=re.escape(f"{address}: no Dask scheduler answers"))
    with refused, open_cluster(settings, tmp_path):
        pass


def test_open_cluster_without_worker_ends_with_the_scheduler_named(empty, tmp_path):
    settings = load_settings(None, {"cluster": {"kind": empty, "wait_minutes": 0.01}})
    refused = pytest.raises(
        ClusterError, match=rf"no worker came within 0\.01 minutes: the scheduler at {empty}"
    )
    with refused, open_cluster(settings, tmp_path):
        pass


def test_run_on_a_running_scheduler_gives_the_clusters_of_a_local_run(
    start, empty, clipart, tmp_path
):
    from dask_dedup import run as run_here

    for _ in range(2):
        start(
            "worker", empty, "--nthreads", 1, "--no-dashboard", "--memory-limit", "3GB",
            "--local-directory", tmp_path,
        )  # fmt: skip
    ran = dedup("run", clipart, tmp_path / "there", "--cluster", empty)
    assert ran.returncode == 0, ran.stderr
    run_here(clipart, tmp_path / "here")
    there, here = (
        pd.read_parquet(tmp_path / name / "clusters", columns=["row_id", "cluster_id"])
        for name in ("there", "here")
    )
    pd.testing.assert_frame_equal(there, here)
    left = [path.name for path in tmp_path.rglob(".dask-dedup-*")]
    assert left == []  # of the check that the workers see the folder


def test_check_sees_a_folder_that_workers_do_not_see_is_named(tmp_path):
    from dask_dedup.deploy import _check_sees

    class Elsewhere:
        """A client whose workers look at another machine's disk."""

        def run(self, function, path, on_error):
            return {"tcp://node7:1": FileNotFoundError(2, "No such file or directory", path)}

    with pytest.raises(ClusterError, match=r"tcp://node7:1 does not see the folder"):
        _check_sees(Elsewhere(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
