"""The whole job on a real SLURM of one machine; jobs are cancelled in the middle of each stage."""

from __future__ import annotations

import importlib
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from dask_dedup import Settings
from dask_dedup.runtime.executor import NoProgress, compute_tasks

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(900),
    # Connections to workers whose job was cancelled.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
STAGES = ["fit", "layout", "join", "forest", "witnesses", "clusters"]
ROWS = 100_000


def free_ports(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("slurm")
    for path in (folder, *folder.parents[:3]):  # munge's own user reads its key in here
        if path != Path("/tmp"):
            path.chmod(0o755)
    before = os.environ.get("SLURM_CONF")
    try:
        started = subprocess.run(
            [HERE / "start.sh", folder, *free_ports(2)], stdout=subprocess.PIPE, text=True,
            check=True,
        )  # fmt: skip
        os.environ["SLURM_CONF"] = started.stdout.strip()
        yield
    finally:
        subprocess.run([HERE / "stop.sh", folder], check=False)
        if before is None:
            os.environ.pop("SLURM_CONF", None)
        else:
            os.environ["SLURM_CONF"] = before


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, object]:
    return {
        "kind": "slurm",
        "memory": "2GB",
        "walltime": "00:20:00",
        "minimum_jobs": 2,
        "interface": "lo",
        "wait_minutes": 2,
        "log_directory": str(tmp_path / "logs"),
        "environment": {"PYTHONPATH": str(ROOT)},
    }


def as_options(cluster: dict[str, object]) -> list[str]:
    options = []
    for key, value in cluster.items():
        if isinstance(value, dict):
            value = "{" + ", ".join(f'{name} = "{text}"' for name, text in value.items()) + "}"
        options += ["--set", f"cluster.{key}={value}"]
    return options


def dedup(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dask_dedup", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


def clusters_of(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "clusters", columns=["row_id", "cluster_id"])


class KeysSeen(threading.Thread):
    """Looks into the folder of logs as long as a run goes on."""

    def __init__(self, logs: Path) -> None:
        super().__init__(daemon=True)
        self.logs, self.modes, self.is_over = logs, set[tuple[str, int]](), False

    def run(self) -> None:
        while not self.is_over:
            for path in self.logs.glob(".dask-dedup-keys-*/**/*"):
                with suppress(FileNotFoundError):
                    self.modes.add((path.suffixes[-1], stat.S_IMODE(path.stat().st_mode)))
                    self.modes.add(("folder", stat.S_IMODE(path.parent.stat().st_mode)))
            time.sleep(0.05)


def test_run_on_slurm_gives_the_clusters_of_a_local_run(slurm, clipart, tmp_path, cluster):
    hostile = tmp_path / "here"  # jobs start in the folder that they are submitted from
    hostile.mkdir()
    for name in ("dask", "json", "numpy", "torch"):
        (hostile / f"{name}.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    keys = KeysSeen(tmp_path / "logs")
    keys.start()
    ran = dedup("run", clipart, tmp_path / "slurm", *as_options(cluster), cwd=hostile)
    keys.is_over = True
    assert ran.returncode == 0, ran.stderr
    assert not (tmp_path / "marker").exists()
    assert {mode for _, mode in keys.modes} == {0o600, 0o700}, keys.modes
    assert {what for what, mode in keys.modes if mode == 0o700} == {"folder"}
    assert not list((tmp_path / "logs").glob(".*"))  # no key is left
    assert "--tls-key" in ran.stderr or "tls://" in "".join(
        log.read_text() for log in (tmp_path / "logs").iterdir()
    )
    here = dedup("run", clipart, tmp_path / "local", "--workers", 1)
    assert here.returncode == 0, here.stderr
    pd.testing.assert_frame_equal(clusters_of(tmp_path / "slurm"), clusters_of(tmp_path / "local"))


def test_run_with_a_partition_that_is_not_there_says_what_sbatch_says(
    slurm, clipart, tmp_path, cluster
):
    ran = dedup("run", clipart, tmp_path / "out", *as_options({**cluster, "queue": "nowhere"}))
    assert ran.returncode == 2
    assert "SLURM rejects the job" in ran.stderr
    assert "invalid partition" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_run_without_any_worker_says_what_squeue_says_and_stops(slurm, clipart, tmp_path, cluster):
    waiting = {**cluster, "job_extra_directives": '["--begin=now+1hour"]', "wait_minutes": 0.15}
    ran = dedup("run", clipart, tmp_path / "out", *as_options(waiting))
    assert ran.returncode == 2, ran.stderr
    assert "waiting for workers, 0 of 2" in ran.stderr
    assert "no worker came within 0.15 minutes" in ran.stderr
    assert "PENDING (BeginTime)" in ran.stderr
    assert "Traceback" not in ran.stderr


class CancelInEachStage(NoProgress):
    """Cancels the job of a worker that computes, once in each stage, and follows what comes."""

    def __init__(self, execute) -> None:
        self.execute = execute
        self.stage = ""
        self.cancelled: dict[str, str] = {}
        self.in_time: dict[str, bool] = {}
        self.recovered: dict[str, float] = {}
        self.threads: list[threading.Thread] = []

    def start(self, stage: str, rows: int) -> None:
        for thread in self.threads:  # the job before has been replaced
            thread.join()
        self.stage = stage
        if stage == "report":  # over too soon
            return
        self.threads.append(threading.Thread(target=self._cancel, args=(stage,)))
        self.threads[-1].start()

    def finish(self) -> None:
        self.stage = ""

    def _cancel(self, stage: str) -> None:
        while True:
            busy = [worker for worker, keys in self.execute.client.processing().items() if keys]
            if busy:
                break
            if self.stage != stage:
                return
        known = self.execute.workers()
        name = str(known[busy[0]]["name"])
        job_id = str(
            next(job.job_id for key, job in self.execute.client.cluster.workers.items()
                 if name == str(key) or name.startswith(f"{key}-"))
        )  # fmt: skip
        # At once, as a node fails: SIGTERM would let the worker say good-bye.
        subprocess.run(["scancel", "--signal=KILL", "--full", job_id], check=True)
        while busy[0] in self.execute.workers():
            time.sleep(0.02)
        self.in_time[stage] = self.stage == stage
        self.cancelled[stage] = job_id
        began = time.monotonic()
        while len(self.execute.workers()) < 2:
            time.sleep(0.05)
        self.recovered[stage] = time.monotonic() - began


def test_jobs_cancelled_in_each_stage_are_replaced_and_the_clusters_are_the_same(
    slurm, tmp_path, cluster, capsys, monkeypatch
):
    import dask_dedup
    from dask_dedup.pipeline.worker_imports import PRELOAD
    from dask_dedup.runtime.deployment import open_cluster

    monkeypatch.syspath_prepend(ROOT / "examples" / "benchmarks")
    synthetic = importlib.import_module("synthetic")
    synthetic.generate(tmp_path / "data", ROWS, 64, seed=0)

    settings = Settings.model_validate({"cluster": cluster})
    with open_cluster(settings, tmp_path / "dask", tmp_path / "out", preload=PRELOAD) as execute:
        while len(execute.workers()) < 2:
            time.sleep(0.1)
        progress = CancelInEachStage(execute)
        dask_dedup.run(
            tmp_path / "data", tmp_path / "out", settings, execute=execute, progress=progress
        )
        for thread in progress.threads:
            thread.join()
    dask_dedup.run(tmp_path / "data", tmp_path / "local", execute=compute_tasks)
    same = clusters_of(tmp_path / "out").equals(clusters_of(tmp_path / "local"))
    with capsys.disabled():
        print(f"\n{'stage':<10}{'job cancelled':>14}{'recovered in (s)':>18}{'same clusters':>15}")
        for stage in STAGES:
            print(
                f"{stage:<10}{progress.cancelled.get(stage, '-'):>14}"
                f"{progress.recovered.get(stage, float('nan')):>18.1f}{'yes' if same else 'NO':>15}"
            )
    assert same
    assert list(progress.cancelled) == STAGES
    assert progress.in_time == dict.fromkeys(STAGES, True)
