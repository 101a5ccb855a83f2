"""Limits of control groups: trees of files as Linux shows them, and a real group if it may be."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from dask_dedup.errors import CapacityError
from dask_dedup.runtime.limits import check_address_space, check_floor, cpu_count, memory_limit

TOTAL = psutil.virtual_memory().total
CORES = len(os.sched_getaffinity(0))


def process(folder: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """Write what /proc says of a process, and the files of its groups; return the process."""
    proc = folder / "self"
    proc.mkdir()
    (proc / "cgroup").write_text(groups)
    (proc / "mountinfo").write_text(mounts.replace("@", str(folder)))
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return proc


V1 = (
    "31 24 0:27 {root} @/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
    "32 24 0:28 {root} @/cpu rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "33 24 0:29 / @/other rw - tmpfs tmpfs rw,memory\n"
)
V2 = "31 24 0:27 {root} @/tree rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def test_limits_v1_of_the_group_and_of_those_above_count(tmp_path):
    proc = process(
        tmp_path,
        "4:memory:/slurm/job_7\n3:cpu,cpuacct:/slurm/job_7\n1:name=systemd:/x\n",
        V1.format(root="/"),
        {
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/slurm/memory.limit_in_bytes": "700000000\n",
            "memory/slurm/job_7/memory.limit_in_bytes": "900000000\n",
            "memory/slurm/job_7/memory.soft_limit_in_bytes": "9223372036854771712\n",
            "cpu/slurm/cpu.cfs_quota_us": "-1\n",
            "cpu/slurm/job_7/cpu.cfs_quota_us": "30000\n",
            "cpu/slurm/job_7/cpu.cfs_period_us": "100000\n",
        },
    )
    assert memory_limit(proc) == 700_000_000
    assert cpu_count(proc) == 1  # three tenths of a core


def test_limits_v1_inside_a_container_whose_tree_is_mounted_from_its_group_on(tmp_path):
    proc = process(
        tmp_path,
        "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
        V1.format(root="/docker/abc"),
        {"memory/memory.limit_in_bytes": "500000000\n", "cpu/cpu.cfs_quota_us": "-1\n"},
    )
    assert memory_limit(proc) == 500_000_000
    assert cpu_count(proc) == CORES


def test_limits_v2_of_the_group_and_of_those_above_count(tmp_path):
    proc = process(
        tmp_path,
        "0::/user.slice/run.scope\n",
        V2.format(root="/"),
        {
            "tree/user.slice/memory.max": "800000000\n",
            "tree/user.slice/run.scope/memory.max": "max\n",
            "tree/user.slice/run.scope/memory.high": "600000000\n",
            "tree/user.slice/cpu.max": "max 100000\n",
            "tree/user.slice/run.scope/cpu.max": "100000 100000\n",
        },
    )
    assert memory_limit(proc) == 600_000_000
    assert cpu_count(proc) == 1


def test_limits_without_groups_are_those_of_the_machine(tmp_path):
    proc = process(tmp_path, "0::/\n", V2.format(root="/"), {"tree/memory.max": "max\n"})
    for nothing in (proc, tmp_path / "no-proc"):
        assert memory_limit(nothing) == TOTAL
        assert cpu_count(nothing) == CORES


def test_check_floor_says_what_libraries_take_and_what_there_is():
    check_floor(350_000_000)
    with pytest.raises(CapacityError, match=r"a worker has 125 MB, of which its libraries alone"):
        check_floor(125_000_000)
    with pytest.raises(CapacityError, match=r"There are 500 MB for all processes, by the machine"):
        check_floor(125_000_000, 500_000_000)


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of 500 MB, of either version."""
    tops = [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")]
    top = next((top for top in tops if (top / "cgroup.procs").exists()), None)
    made = None if top is None else top / f"dask-dedup-test-{uuid.uuid4().hex}"
    try:
        if made is None:
            pytest.skip("no control groups here")
        made.mkdir()
        names = ("memory.limit_in_bytes", "memory.max")
        limit = next((made / name for name in names if (made / name).exists()), None)
        if limit is None:
            pytest.skip("the control group has no limit of memory")
        limit.write_text("500000000")
        yield made
    except OSError as error:
        pytest.skip(f"no control group of one's own: {error}")
    finally:
        for _ in range(300):  # until the last process of it is gone
            if made is None or not made.exists():
                break
            with suppress(OSError):
                made.rmdir()
            time.sleep(0.1)


@pytest.mark.parametrize("option", [(), ("--workers", "1", "--memory", "2GB")])
def test_run_in_a_container_of_500_mb_is_refused_with_figures(group, clipart, tmp_path, option):
    script = 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"'
    command = [sys.executable, "-m", "dask_dedup", "run", str(clipart), str(tmp_path / "a" / "out")]
    ran = subprocess.run(
        ["bash", "-c", script, "script", str(group), *command, *option],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 2, ran
    assert "500" in ran.stderr
    assert "by the limit of its container or batch job" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []  # not even a folder


def test_check_address_space_names_the_limit_and_what_libraries_map():
    with pytest.raises(CapacityError, match=r"ulimit -v leaves 1,536 MB .* map 3,000, used or not"):
        check_address_space(1_500_000 * 1024)
    check_address_space(resource.RLIM_INFINITY)
    check_address_space(3_000_000_000)
