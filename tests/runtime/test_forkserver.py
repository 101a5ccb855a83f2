"""Processes that the command starts: where they look for modules, and what they need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

MODULES = ["click", "dask", "distributed", "json", "multiprocessing", "numba", "numpy", "pandas"]
MODULES += ["pickle", "psutil", "pyarrow", "rich", "signal", "subprocess", "torch", "typing"]


@pytest.mark.parametrize("how", ["dask-dedup", "python -m dask_dedup"])
def test_run_inside_a_data_set_runs_none_of_its_files(write_dataset, tmp_path, how):
    rows = np.random.default_rng(0).normal(size=(60, 16)).astype("f4")
    write_dataset(tmp_path / "data", [rows, rows[:17]])
    marker = tmp_path / "marker"
    for name in MODULES:
        (tmp_path / "data" / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').write({name!r})")
    script = Path(sys.executable).with_name("dask-dedup")
    if how == "dask-dedup" and not script.exists():
        pytest.skip("the command is not installed beside this Python")
    start = [str(script)] if how == "dask-dedup" else [sys.executable, "-m", "dask_dedup"]
    ran = subprocess.run(
        [*start, "run", ".", "../out", "--workers", "1"],
        cwd=tmp_path / "data", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not marker.exists(), marker.read_text()
    assert ran.returncode == 0, ran.stderr
    clusters = pd.read_parquet(tmp_path / "out" / "clusters", columns=["cluster_id"])
    assert clusters["cluster_id"].tolist() == [*range(60), *range(17)]


SHARED = """
mount -t tmpfs $1 tmpfs /dev/shm; shift
"$@"; echo "ended with $?"
"""


def test_run_where_dev_shm_takes_no_file_says_so(clipart, tmp_path):
    space = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c"]
    if subprocess.run([*space, "mount -t tmpfs tmpfs /dev/shm"], check=False).returncode:
        pytest.skip("no file systems of one's own here")
    command = [sys.executable, "-m", "dask_dedup", "run", str(clipart), str(tmp_path / "out")]
    ran = subprocess.run(
        [*space, SHARED, "script", "-oro", *command], capture_output=True, text=True, check=False
    )
    assert ran.stdout == "ended with 2\n", ran.stderr
    assert "locks of the system, which are files in /dev/shm" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_run_of_too_few_addresses_is_refused_in_one_line(clipart, tmp_path):
    command = [sys.executable, "-m", "dask_dedup", "run", str(clipart), str(tmp_path / "out")]
    ran = subprocess.run(
        ["bash", "-c", 'ulimit -v 1500000; exec "$@"', "-", *command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert line.startswith("dask-dedup: ulimit -v leaves 1,536 MB of addresses to each process")
    assert not (tmp_path / "out").exists()
