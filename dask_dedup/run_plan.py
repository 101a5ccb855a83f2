"""The plan of a run over a data set that is there: told, checked against the machine, kept."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from dask_dedup.config import Settings, memory_per_worker, worker_count
from dask_dedup.errors import CapacityError
from dask_dedup.io.dataset import Dataset
from dask_dedup.plan import Plan, plan, refuse
from dask_dedup.report.plan_table import size_text
from dask_dedup.workload import Machine, Rates, load_rates, numbers_workload, rates_path

__all__ = ["check_room", "dataset_facts", "plan_run"]


def dataset_facts(data: Dataset) -> dict[str, Any]:
    """Return what `dask_dedup.workload.numbers_workload` asks of a data set."""
    files = {part.metadata_path for part in data.parts}
    return {
        "rows": data.rows,
        "dim": data.dim,
        "dtype": data.parts[0].embeddings.dtype,
        "parts": len(data.filled_parts),
        "metadata_bytes": sum(os.path.getsize(file) for file in files) / data.rows,
    }


def plan_run(data: Dataset, settings: Settings) -> Plan:
    """Plan a run with the finder join on this machine, from its rates if they were measured."""
    compute = settings.compute
    return plan(
        numbers_workload(settings, **dataset_facts(data)),
        Machine(worker_count(compute), compute.threads),
        load_rates(rates_path()) or Rates(),
    )


def check_room(planned: Plan, settings: Settings, out: Path) -> int:
    """Refuse a run that does not fit into its workers or onto its disk; return the free bytes.

    Raises
    ------
    CapacityError
        With what is needed and what there is.
    """
    refuse(planned, memory_per_worker(settings.compute))
    place = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    there = sum(file.stat().st_size for file in (out / "stages").rglob("*") if file.is_file())
    needed = planned.working_bytes + planned.stages[-1].bytes_written
    if needed > free + there:  # a run that was stopped has some of it already
        raise CapacityError(
            f"{out}: the run needs {size_text(needed)} on this disk, {size_text(free)} are free: "
            f"{size_text(planned.working_bytes)} of working files, removed in the end, and the "
            f"results. Make room, choose another OUT, or compare less with --visits."
        )
    return free
