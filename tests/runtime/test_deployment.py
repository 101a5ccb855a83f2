"""Workers of a scheduler that runs already: real ones, of `dask scheduler` and `dask worker`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from distributed import Security

import dask_dedup
from dask_dedup.errors import ClusterError
from dask_dedup.runtime.deployment import _not_started, open_cluster
from dask_dedup.runtime.executor import NoProgress, compute_tasks
from dask_dedup.runtime.forkserver import worker_environment
from dask_dedup.settings.run_settings import load_settings

run_here = partial(dask_dedup.run, execute=compute_tasks)

ROOT = Path(__file__).parents[2]
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
    for _ in range(600):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.1)
    return f"tcp://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def small(tmp_path_factory, write_dataset):
    """A data set of 600 rows in three parts, with pairs and groups."""
    rng = np.random.default_rng(5)
    rows = np.repeat(rng.normal(size=(200, 24)), 3, axis=0) + rng.normal(size=(600, 24)) / 9
    parts = np.split(rng.permutation(rows).astype("f4"), [150, 400])
    return write_dataset(tmp_path_factory.mktemp("small") / "data", parts)


def dedup(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dask_dedup", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_open_cluster_without_scheduler_says_so(tmp_path):
    address = f"tcp://127.0.0.1:{free_port()}"
    settings = load_settings(None, {"cluster.kind": address})
    refused = pytest.raises(ClusterError, match=re.escape(f"{address}: no Dask scheduler answers"))
    with refused, open_cluster(settings, tmp_path, connect_seconds=1):
        pass


def test_open_cluster_where_something_else_listens_says_so(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        settings = load_settings(None, {"cluster.kind": address})
        refused = pytest.raises(ClusterError, match="no Dask scheduler answers")
        with refused, open_cluster(settings, tmp_path, connect_seconds=1):
            pass


def test_open_cluster_without_worker_ends_with_the_scheduler_named(empty, tmp_path):
    settings = load_settings(None, {"cluster": {"kind": empty, "wait_minutes": 0.01}})
    refused = pytest.raises(
        ClusterError, match=rf"no worker came within 0\.01 minutes: the scheduler at {empty}"
    )
    with refused, open_cluster(settings, tmp_path):
        pass


def test_run_on_a_running_scheduler_gives_the_clusters_of_a_local_run(
    start, empty, small, tmp_path
):
    for _ in range(2):
        start(
            "worker", empty, "--nthreads", 1, "--no-dashboard", "--memory-limit", "3GB",
            "--local-directory", tmp_path,
        )  # fmt: skip
    ran = dedup("run", small, tmp_path / "there", "--cluster", empty)
    assert ran.returncode == 0, ran.stderr
    run_here(small, tmp_path / "here")
    there, here = (
        pd.read_parquet(tmp_path / name / "clusters", columns=["row_id", "cluster_id"])
        for name in ("there", "here")
    )
    pd.testing.assert_frame_equal(there, here)
    assert 200 <= here["cluster_id"].nunique() < 600
    left = [path.name for path in tmp_path.rglob(".dask-dedup-*")]
    assert left == []  # of the check that the workers see the folder


def test_run_whose_workers_are_too_small_is_refused_with_their_figures(start, clipart, tmp_path):
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    start("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    start(
        "worker", address, "--nthreads", 1, "--no-dashboard", "--memory-limit", "400MB",
        "--local-directory", tmp_path / "dask",
    )  # fmt: skip
    ran = dedup("run", clipart, tmp_path / "out", "--cluster", address, "--memory", "8GB")
    assert ran.returncode == 2, ran.stderr
    # The join: 300 MB of libraries, 100 bytes for each of 2**20 candidates, less than half as much
    # again for what the heap keeps, and the records.
    assert "join: a task needs 478.7 MB" in ran.stderr
    assert "a worker has 400.0 MB" in ran.stderr
    assert not (tmp_path / "out").exists()


def test_run_on_a_scheduler_with_keys_of_the_user(start, small, tmp_path, monkeypatch):
    made = Security.temporary()
    (tmp_path / "cert.pem").write_text(made.tls_client_cert)
    (tmp_path / "key.pem").write_text(made.tls_client_key)
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TLS__CA_FILE", str(tmp_path / "cert.pem"))
    for role in ("CLIENT", "SCHEDULER", "WORKER"):
        for name in ("cert", "key"):
            variable = f"DASK_DISTRIBUTED__COMM__TLS__{role}__{name.upper()}"
            monkeypatch.setenv(variable, str(tmp_path / f"{name}.pem"))
    port = free_port()
    address = f"tls://127.0.0.1:{port}"
    scheduler = ["--host", "127.0.0.1", "--port", port, "--protocol", "tls", "--no-dashboard"]
    start("scheduler", *scheduler)
    for number in range(2):
        start(
            "worker", address, "--nthreads", 1, "--no-dashboard", "--memory-limit",
            f"{3 + number}GB", "--local-directory", tmp_path / "dask",
        )  # fmt: skip
    ran = dedup("run", small, tmp_path / "out", "--cluster", address, "--workers", 7)
    assert ran.returncode == 0, ran.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["worker_memory_bytes"] == 3_000_000_000  # of the smaller one
    assert summary["workers"] in (1, 2)  # one may have come later
    assert 0.2e9 < summary["worker_peak_bytes"] < 3e9
    assert "this machine's processes; the largest worker" in ran.stdout
    plain = dedup("run", small, tmp_path / "no", "--cluster", f"tcp://127.0.0.1:{port}")
    assert plain.returncode == 2, plain.stderr


class Wire(threading.Thread):
    """Carries connections to a port until it is cut: real sockets, as through a switch."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.ends: list[socket.socket] = []

    def run(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                near = self.listener.accept()[0]
                ends = near, socket.create_connection(("127.0.0.1", self.target))
                self.ends += ends
                for one, other in (ends, ends[::-1]):
                    threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    @staticmethod
    def carry(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)

    def cut(self, for_good: bool) -> None:
        if for_good:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
        for end in self.ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class CutIn(NoProgress):
    """Cuts the wire once the first task of a stage is done."""

    def __init__(self, stage: str, wire: Wire, for_good: bool) -> None:
        self.stage, self.wire, self.for_good = stage, wire, for_good
        self.now, self.cuts = "", 0

    def start(self, stage: str, rows: int) -> None:
        self.now = stage

    def advance(self, rows: int) -> None:
        if self.now == self.stage and not self.cuts:
            self.cuts += 1
            self.wire.cut(self.for_good)


@pytest.mark.parametrize("for_good", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_run_whose_connection_to_the_scheduler_is_lost(
    start, empty, clipart, clipart_clusters, tmp_path, caplog, for_good
):
    from dask_dedup import Settings

    start("worker", empty, "--nthreads", 1, "--no-dashboard", "--local-directory", tmp_path)
    wire = Wire(int(empty.rpartition(":")[2]))
    wire.start()
    settings = Settings.model_validate({"cells": {"cells_per_row": 4.0, "cells": 40}})
    there = load_settings(None, {"cluster.kind": f"tcp://127.0.0.1:{wire.port}"})
    out, progress = tmp_path / "there", CutIn("layout", wire, for_good)

    def run_there() -> None:
        with open_cluster(there, tmp_path, out, connect_seconds=3) as execute:
            run_here(clipart, out, settings, execute=execute, progress=progress)

    if for_good:
        with pytest.raises(ClusterError, match=r"lost and did not come back within 3 s"):
            run_there()
        assert not (out / "clusters").exists()
        run_here(clipart, out, settings)  # goes on by itself, here
    else:
        run_there()
        assert "is back: 4 tasks are given to it again" in caplog.text
        wire.cut(for_good=True)
    assert progress.cuts == 1
    pd.testing.assert_frame_equal(pd.read_parquet(out / "clusters"), clipart_clusters)


def test_check_sees_a_folder_that_workers_do_not_see_is_named(tmp_path):
    from dask_dedup.runtime.worker_checks import check_sees

    class Elsewhere:
        """A client whose workers look at another machine's disk."""

        def run(self, function, path, on_error):
            return {"tcp://node7:1": FileNotFoundError(2, "No such file or directory", path)}

    with pytest.raises(ClusterError, match=r"tcp://node7:1 does not see the folder"):
        check_sees(Elsewhere(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_local_cluster_leaves_the_environment_of_the_process_as_it_was(tmp_path):
    before = [os.environ.get(name) for name in worker_environment(1)]
    settings = load_settings(None, {"compute.workers": 1, "compute.memory": "1GB"})
    with open_cluster(settings, tmp_path) as execute:
        assert execute.workers()
    assert [os.environ.get(name) for name in worker_environment(1)] == before


@pytest.mark.parametrize(
    ("cause", "said"),
    [(MemoryError(), "MemoryError"), (OSError(24, "Too many open files"), "Too many open files")],
)
def test_workers_that_do_not_start_have_a_reason_where_dask_names_none(cause, said):
    error = RuntimeError("Cluster failed to start: ")
    error.__cause__ = cause
    assert str(_not_started(error)).startswith(f"worker processes cannot be started ({said}). ")
