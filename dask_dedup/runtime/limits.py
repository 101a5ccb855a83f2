"""What this process may use of the machine: limits of its container, batch job or service count.

Every control group from the process's own up to the top limits it. `dask.system` and
`distributed.system` (2026.8) know less: of memory the group at the top, which is a container's own,
while SLURM and systemd put a process deeper into the tree; of cores that one or the process's own,
none between, and those of version 1 under two of the names it is mounted by. Measured inside a
group of 700 MB and one core of version 1: they say 25.3 GB and 2 cores, these functions 700 MB and
1. So Dask gives the cores that the process is bound to, and the groups are read here.
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from dask_dedup.errors import CapacityError

__all__ = [
    "DRIVER_BYTES",
    "OWN_BYTES",
    "WORKER_BYTES",
    "check_address_space",
    "check_floor",
    "cpu_count",
    "memory_limit",
]

#: Resident memory of the command's process over a run of 10,248 rows (peak: 311 MB).
DRIVER_BYTES = 320_000_000
#: Of a worker with its imports, before it does anything (measured: 290 MB) ...
WORKER_BYTES = 300_000_000
#: ... and what of it the workers of one machine, forks of one process, do not share (42 MB).
OWN_BYTES = 50_000_000
_LEAST_BYTES = WORKER_BYTES + OWN_BYTES  # of a worker, with the smallest tasks

_ADDRESS_BYTES = 3_000_000_000  # that the command maps with its libraries, used or not

_MEMORY = ("memory.max", "memory.high", "memory.limit_in_bytes", "memory.soft_limit_in_bytes")


def memory_limit(proc: Path = Path("/proc/self")) -> int:
    """Return the bytes of memory that all processes of this one's group may use together."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for group in _groups(proc, "memory"):
        limits += [value for name in _MEMORY for value in _numbers(group / name)[:1]]
    return min(limit for limit in limits if limit > 0)


def cpu_count(proc: Path = Path("/proc/self")) -> int:
    """Return the cores that this process may use; a quota of parts of a core is rounded up."""
    from dask.system import cpu_count as dask_cpu_count  # a tenth of a second

    counts = [dask_cpu_count()]
    for group in _groups(proc, "cpu"):
        quota = _numbers(group / "cpu.max")
        if not quota:
            quota = _numbers(group / "cpu.cfs_quota_us") + _numbers(group / "cpu.cfs_period_us")
        if len(quota) == 2 and min(quota) > 0:
            counts.append(math.ceil(quota[0] / quota[1]))
    return min(counts)


def check_floor(worker_bytes: int, limit_bytes: int | None = None) -> None:
    """Refuse workers whose memory their libraries fill: they would be killed and started anew.

    Parameters
    ----------
    worker_bytes : int
        What each may use.
    limit_bytes : int, optional
        What there is for all, if that is known.

    Raises
    ------
    CapacityError
    """
    if worker_bytes < _LEAST_BYTES:
        limit = "Start them with more."
        if limit_bytes is not None:
            limit = (
                f"Give each more, with --memory or fewer --workers. There are "
                f"{limit_bytes / 1e6:,.0f} MB for all processes, by the machine or by the limit of "
                f"its container or batch job."
            )
        raise CapacityError(
            f"a worker has {worker_bytes / 1e6:,.0f} MB, of which its libraries alone take "
            f"{WORKER_BYTES / 1e6:,.0f}; it needs {_LEAST_BYTES / 1e6:,.0f} at least. {limit}"
        )


def check_address_space(limit_bytes: int | None = None) -> None:
    """Refuse a limit of addresses (``ulimit -v``) that the libraries alone exceed.

    They would fail in a place of their own, some in the workers, and say nothing of the limit.

    Parameters
    ----------
    limit_bytes : int, optional
        By default that of this process.

    Raises
    ------
    CapacityError
    """
    if limit_bytes is None:
        limit_bytes = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 <= limit_bytes < _ADDRESS_BYTES:
        raise CapacityError(
            f"ulimit -v leaves {limit_bytes / 1e6:,.0f} MB of addresses to each process, and "
            f"libraries map {_ADDRESS_BYTES / 1e6:,.0f}, used or not. Lift it (ulimit -v "
            f"unlimited); --memory limits what workers use."
        )


def _groups(proc: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups of a process, from its own to the topmost one.

    Parameters
    ----------
    proc : Path
        Its folder in /proc.
    controller : str
        Of version 1; of version 2 there is one tree for all.
    """
    try:
        groups = (proc / "cgroup").read_text(errors="surrogateescape").splitlines()
        mounts = (proc / "mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return  # not Linux
    paths = {}  # "4:memory:/a/b", "0::/a/b"
    for line in groups:
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    for line in mounts:  # "32 25 0:28 ROOT MOUNT rw,relatime - TYPE SOURCE rw,memory"
        left, _, right = line.partition(" - ")
        root, mount = left.split(" ")[3:5]
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2":
            path = paths.get("", "/")
        elif kind == "cgroup" and controller in options.split(","):
            path = paths.get(controller, "/")
        else:
            continue
        # Where the tree is mounted from a group on, paths begin above it.
        inside = path.removeprefix(root.rstrip("/")).strip("/") if path.startswith(root) else ""
        group = Path(mount, inside)
        yield from (group, *group.parents[: len(Path(inside).parts)])


def _numbers(file: Path) -> list[int]:
    """Return the numbers in a file; none where one is missing or the word "max"."""
    try:
        return [int(word) for word in file.read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        return []
