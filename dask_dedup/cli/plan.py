"""`dask-dedup plan`: what a run will cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from dask_dedup.cli.group import (
    PATH,
    any_setting,
    chosen_settings,
    input_settings,
    main,
    say,
    setting,
)
from dask_dedup.errors import SettingsError
from dask_dedup.paths import AnyPath
from dask_dedup.runtime.shares import memory_per_worker, worker_count
from dask_dedup.settings.run_settings import Settings

__all__ = ["plan"]


@main.command("plan", short_help="say what a run will cost, without running it")
@click.argument("dataset", type=PATH, required=False)
@click.option("--rows", type=float, help="plan for so many rows (2.1e9, say) instead of a DATASET")
@click.option("--parts", type=int, help="with --rows: files [default: one per million rows]")
@click.option(
    "--dtype", default="float16", show_default=True, help="with --rows: dtype of the embeddings"
)
@click.option(
    "--dim",
    type=int,
    help="with --rows: dimension of the embeddings [default: 768]; else the PCA's, as in `run`",
)
@click.option("--nodes", type=int, default=1, show_default=True, help="number of machines")
@click.option("--cores", type=int, help="cores of each machine [default: this one's]")
@click.option(
    "--disk-rate",
    help="bytes that the storage reads a second, such as 2GB [default: all is cached]",
)
@click.option(
    "--duplicates",
    type=float,
    help="expected share of duplicates [default: 0.3, or that of --like]",
)
@click.option(
    "--pairs-per-row", type=float, help="verified pairs per row [default: 12, or those of --like]"
)
@click.option(
    "--like",
    type=PATH,
    help="folder of a finished run: scale the time of each stage by what it took there",
)
@setting("threshold", float)
@setting("search_threshold", float)
@setting("cells_per_row", float)
@setting("cells", int)
@input_settings
@setting("audit_queries", int)
@setting("seed", int)
@setting("workers", int)
@setting("threads", int)
@setting("memory", str)
@any_setting
@click.option("--config", type=PATH, help="TOML file with settings")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@click.option("--calibrate", is_flag=True, help="measure this machine first, and remember it")
@click.option("--calibrate-seconds", type=float, default=1.0, hidden=True)
def plan(dataset: AnyPath | None, config: AnyPath | None, **options: Any) -> None:
    """Say what a run over DATASET, or over so many --rows, will cost: time, disk, memory.

    Nothing is run. Times follow from what `--calibrate` measured on this machine, or else from
    shipped rates; they are best with `--like` and a smaller run on the same machine. Without
    --disk-rate all files count as cached in memory. The thresholds are not used: state the
    expected result with --duplicates and --pairs-per-row.

    Exit codes: 0 done, 2 wrong input or settings, or a task that does not fit into --memory (with
    a DATASET also into this machine's).
    """
    shared = ("seed", "assignments")
    own = {key: options.pop(key) for key in list(options) if "__" not in key and key not in shared}
    rows, calibrate = own["rows"], own["calibrate"]
    if (dataset is None) == (rows is None) and not (calibrate and dataset is None):
        raise SettingsError("plan: expected either a DATASET or --rows.")
    for key in ("nodes", "cores"):
        if own[key] is not None and own[key] < 1:
            raise SettingsError(f"{key}: expected at least 1, got {own[key]}.")
    if dataset is not None:
        options["projection__dim"] = own["dim"]
    settings = chosen_settings(options, config)
    from dask_dedup.planning.core_rates import measure_together
    from dask_dedup.planning.cost_model import describe, refuse
    from dask_dedup.planning.preflight import plan_run
    from dask_dedup.planning.scaled_plan import read_run, shares_of
    from dask_dedup.planning.workload import load_rates, parse_rate, rates_path, save_rates
    from dask_dedup.report.plan_table import plan_tables

    path = rates_path()
    if calibrate:
        save_rates(
            measure_together(Path.cwd(), worker_count(settings.compute), own["calibrate_seconds"]),
            path,
        )
        say(Console(stderr=True), f"{path}: rates of this machine, just measured")
        if dataset is None and rows is None:
            return
    run = None if own["like"] is None else read_run(own["like"])
    for key, share in shares_of(run).items():
        own[key] = share if own[key] is None else own[key]
    compute, workers = settings.compute, worker_count(settings.compute)
    if own["cores"] is not None and compute.workers is None:
        workers = max(1, own["cores"] // compute.threads)
    data = _planned_data(dataset, settings, own)
    disk_bytes = parse_rate(own["disk_rate"])
    planned = plan_run(data, settings, workers * own["nodes"], disk_bytes=disk_bytes, like=run)
    is_measured = load_rates(path) is not None
    origin = f"measured, {path}" if is_measured else "shipped; --calibrate measures this machine's"
    if run is not None:
        origin += f"; scaled by the times of {own['like']}"
    if own["as_json"]:
        click.echo(json.dumps({**describe(planned), "rates": origin}, indent=2))
    else:
        console = Console()
        for table in plan_tables(describe(planned)):
            console.print(table)
            console.print()
        say(console, f"rates: {origin}")
    if compute.memory is not None or dataset is not None:
        refuse(planned, memory_per_worker(compute))


def _planned_data(
    dataset: AnyPath | None, settings: Settings, own: dict[str, Any]
) -> dict[str, Any]:
    """Return what is to be planned for: a data set's headers, or the numbers given."""
    data: dict[str, Any] = {
        "rows": own["rows"],
        "dim": 768 if own["dim"] is None else own["dim"],
        "dtype": own["dtype"],
        "parts": own["parts"],
    }
    if dataset is not None:
        from dask_dedup.data.dataset import read_dataset
        from dask_dedup.planning.preflight import describe_dataset

        data = describe_dataset(read_dataset(dataset, **settings.read.model_dump(), texts=False))
    return {**data, **{key: own[key] for key in ("duplicates", "pairs_per_row")}}
