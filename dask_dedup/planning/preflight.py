"""The plan of a run over a data set that exists: made, and checked against the machine."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dask_dedup.data.dataset import Dataset
from dask_dedup.data.spans import cut_spans, packed_spans
from dask_dedup.errors import CapacityError
from dask_dedup.paths import AnyPath, is_remote
from dask_dedup.planning.cost_model import Plan, plan, refuse
from dask_dedup.planning.scaled_plan import MeasuredRun, scale_plan
from dask_dedup.planning.workload import Machine, Rates, load_rates, numbers_workload, rates_path
from dask_dedup.report.count_text import count_text
from dask_dedup.report.plan_table import size_text
from dask_dedup.runtime.limits import DRIVER_BYTES, OWN_BYTES, WORKER_BYTES, memory_limit
from dask_dedup.runtime.shares import memory_per_worker, worker_count
from dask_dedup.settings.run_settings import Settings
from dask_dedup.storage.objects import size_of
from dask_dedup.storage.run_folder import work_folder

__all__ = ["check_fits", "check_machine", "describe_dataset", "plan_run"]

_STORE_THREADS = 16  # sizes of thousands of files, mostly waiting


def describe_dataset(data: Dataset) -> dict[str, Any]:
    """Return what `dask_dedup.planning.workload.numbers_workload` asks of a data set."""
    files = {part.metadata_path for part in data.parts if part.metadata_path}
    with ThreadPoolExecutor(_STORE_THREADS) as pool:
        return {
            "rows": data.rows,
            "dim": data.dim,
            "dtype": data.parts[0].embeddings.dtype,
            "parts": len(data.filled_parts),
            "metadata_bytes": sum(pool.map(size_of, files)) / data.rows,
            "packed_rows": sum(span.rows for span in packed_spans(cut_spans(data.parts))),
        }


def plan_run(
    numbers: Mapping[str, Any],
    settings: Settings,
    workers: int | None = None,
    *,
    disk_bytes: float | None = None,
    like: MeasuredRun | None = None,
) -> Plan:
    """Plan a run, from this machine's rates if they were measured.

    Parameters
    ----------
    numbers : mapping
        What `dask_dedup.planning.workload.numbers_workload` asks: see `describe_dataset`.
    settings : Settings
    workers : int, optional
        How many there are, where it is not this machine that decides.
    disk_bytes : float, optional
        Bytes a second of the storage; None means that everything is cached.
    like : MeasuredRun, optional
        A finished run, by which the time of each stage is scaled.

    Raises
    ------
    SettingsError
        A number is out of range.
    """
    compute, rates = settings.compute, load_rates(rates_path()) or Rates()
    machine = Machine(workers or worker_count(compute), compute.threads, disk_bytes)
    planned = plan(numbers_workload(settings, **numbers), machine, rates)
    return planned if like is None else scale_plan(planned, like, rates)


def check_fits(
    planned: Plan, data: Dataset, settings: Settings, out: AnyPath, memory_bytes: int | None = None
) -> int | None:
    """Refuse a run that does not fit into its workers or onto its disk; return the free bytes.

    None where the working files are in an object store, which has no such limit.

    Parameters
    ----------
    planned : Plan
    data : Dataset
    settings : Settings
    out : AnyPath
    memory_bytes : int, optional
        What each worker has, where it is not this machine that decides.

    Raises
    ------
    CapacityError
        With what is needed and what there is.
    """
    refuse(planned, memory_bytes or memory_per_worker(settings.compute))
    if settings.cluster.kind == "local" and memory_bytes is None:
        check_machine(planned, memory_limit())
    stages = work_folder(out, settings.compute.work)
    results = planned.result_bytes
    if is_remote(stages):
        return None
    needed = planned.working_bytes + results  # written there first, then published
    free = shutil.disk_usage(_existing(stages)).free
    present = sum(file.stat().st_size for file in stages.rglob("*") if file.is_file())
    if needed > free + present:  # a run that was stopped has some of it already
        raise CapacityError(
            f"{stages}: the run needs {size_text(needed)} on this disk, {size_text(free)} are "
            f"free: {size_text(planned.working_bytes)} of working files, removed in the end, and "
            f"the results. Make room, choose another folder with --work, or compare less with "
            f"--cells-per-row."
        )
    if not is_remote(out) and shutil.disk_usage(_existing(out)).free < results:
        raise CapacityError(f"{out}: the results need {size_text(results)}, more than is free.")
    return free


def check_machine(planned: Plan, limit_bytes: int) -> None:
    """Refuse workers that do not fit into a machine, or into its container, all together.

    Counted are the command's own process, the libraries, which the workers share, and the largest
    task in every worker.

    Raises
    ------
    CapacityError
    """
    workers = planned.machine.workers
    tasks = workers * (planned.memory_bytes - WORKER_BYTES + OWN_BYTES)
    needed = DRIVER_BYTES + WORKER_BYTES + tasks
    if needed > limit_bytes:
        advice = "Use fewer --workers." if workers > 1 else "It needs a larger machine or limit."
        raise CapacityError(
            f"{count_text(workers, 'worker')} may need {size_text(needed)} together: "
            f"{size_text(DRIVER_BYTES)} for the command itself, {size_text(WORKER_BYTES)} for "
            f"libraries, the rest for tasks. There are {size_text(limit_bytes)}, by the machine or "
            f"by the limit of its container or batch job. {advice}"
        )


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
