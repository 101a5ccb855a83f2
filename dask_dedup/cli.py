"""The command `dask-dedup`: the only place that prints, exits and configures logging."""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dask_dedup.config import Settings, load_settings
from dask_dedup.errors import DedupError, SettingsError
from dask_dedup.prefork import start_server

__all__ = ["main"]

_INTERRUPTED = 130  # what a shell gives for Ctrl-C


class _ConsoleHandler(logging.Handler):
    """Prints each message as one line, above a progress bar if there is one."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        _tell(self.console, self.format(record))


class _Commands(click.Group):
    """Turns the errors that are meant for people into one message and exit code 2."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except DedupError as error:
            click.echo(f"dask-dedup: {error}", err=True)
            context.exit(2)


def _setting(flag: str, key: str, kind: Any = None) -> Callable:
    """Return the option that sets ``key``: text and default are those of the settings."""
    *tables, name = key.split(".")
    model: Any = Settings
    for table in tables:
        model = model.model_fields[table].annotation
    field = model.model_fields[name]
    text = str(field.description)
    if field.default is not None and "[default" not in text:
        text += f" [default: {field.default}]"
    return click.option(flag, key.replace(".", "__"), type=kind, default=None, help=text)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dask_dedup", prog_name="dask-dedup")
def main() -> None:
    """Find the duplicates in image-text data sets, by their embeddings.

    Shell completion: eval "$(_DASK_DEDUP_COMPLETE=bash_source dask-dedup)"
    """


@main.command(short_help="find the duplicates of a data set")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@_setting("--threshold", "clusters.threshold", float)
@_setting("--search-threshold", "join.search_threshold", float)
@_setting("--visits", "cells.visits", float)
@_setting("--cells", "cells.cells", int)
@_setting("--dim", "compress.dim", int)
@_setting("--url-column", "read.url_column", str)
@_setting("--caption-column", "read.caption_column", str)
@_setting("--audit-queries", "audit.queries", int)
@_setting("--seed", "seed", int)
@_setting("--workers", "compute.workers", int)
@_setting("--threads", "compute.threads", int)
@_setting("--memory", "compute.memory", str)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="TOML file with settings; options given here win",
)
@click.option("--overwrite", is_flag=True, help="begin anew, whatever an earlier run left in OUT")
@click.option("--keep-stages", is_flag=True, help="keep the working files in OUT/stages")
@click.option("-v", "--verbose", is_flag=True, help="log what is done and why")
@click.option("-q", "--quiet", is_flag=True, help="print errors only")
def run(
    dataset: Path,
    out: Path,
    config: Path | None,
    overwrite: bool,
    keep_stages: bool,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Find the duplicates of DATASET and write everything about them to OUT.

    DATASET is a folder as clip-retrieval writes it: img_emb/*.npy (one row per image) and
    metadata/*.parquet (the same rows with URL and caption).

    OUT gets clusters/ (every row with its cluster and your columns), forest/ (the similarities
    that link them), invalid/ (rows without a usable embedding), histogram.csv and .png,
    settings.toml and summary.json. The same command again continues where it was stopped.

    Exit codes: 0 done, 2 wrong input or settings, 130 interrupted.
    """
    console = Console(stderr=True, quiet=quiet)
    _configure_logging(console, verbose, quiet)
    overrides = {key.replace("__", "."): value for key, value in options.items()}
    settings = load_settings(config, overrides)
    try:
        summary = _run(dataset, out, settings, overwrite, keep_stages, console)
    except KeyboardInterrupt:
        console.print("\ninterrupted; the same command continues where this stopped")
        os._exit(_INTERRUPTED)  # workers and their threads are gone with the cluster
    if not quiet:
        _print_summary(summary, out, Console())
    gc.freeze()  # else Python looks at every object again before it ends: most of a second


def _run(
    dataset: Path,
    out: Path,
    settings: Settings,
    overwrite: bool,
    keep_stages: bool,
    console: Console,
) -> dict[str, Any]:
    start_server(settings.compute.threads)  # imports for seconds, beside what follows
    from dask_dedup.io.dataset import read_dataset

    data = read_dataset(dataset, **settings.read.model_dump())

    # These load for seconds: a fault in the input should not have to wait for them.
    from dask_dedup.deploy import local_cluster, memory_per_worker, worker_count
    from dask_dedup.io.run_folder import RunFolder
    from dask_dedup.progress import choose_progress

    _tell(
        console, f"{dataset}: {data.rows:,} rows in {len(data.parts)} parts, dimension {data.dim}"
    )
    with RunFolder(out, settings.for_result(), data.fingerprint, overwrite) as folder:
        if folder.is_finished():
            _tell(console, f"{out}: finished before with these settings; nothing to do")
            return folder.read_summary()
        folder.begin()
        progress = choose_progress(console)
        # Seconds of imports, meanwhile the workers start.
        importing = Thread(target=import_module, args=("dask_dedup.pipeline",), daemon=True)
        importing.start()
        with local_cluster(settings.compute, folder.stages / "dask") as execute:
            workers, memory = worker_count(settings.compute), memory_per_worker(settings.compute)
            _tell(
                console,
                f"{workers} workers with {memory / 1e9:.1f} GB each; "
                f"dashboard at {execute.dashboard}",
            )
            importing.join()
            from dask_dedup.pipeline import run_stages

            try:
                return run_stages(data, folder, settings, execute, progress, keep_stages)
            finally:
                progress.close()


def _configure_logging(console: Console, verbose: bool, quiet: bool) -> None:
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    handler = _ConsoleHandler(console)
    logger = logging.getLogger("dask_dedup")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def _print_summary(summary: dict[str, Any], out: Path, console: Console) -> None:
    from dask_dedup.report.histogram import bin_sizes, read_histogram

    def line(name: str, value: str, note: str = "") -> None:
        table.add_row(name, value, note)

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    line("rows", f"{summary['rows']:,}")
    line("duplicates", f"{summary['duplicates']:,}", f"{summary['duplicate_fraction']:.1%} of rows")
    line("clusters", f"{summary['clusters']:,}", "single rows counted")
    line("of two or more", f"{summary['clusters_of_two_or_more']:,}")
    line("largest", f"{summary['largest_cluster']:,}", "rows")
    line("invalid rows", f"{summary['invalid_rows']:,}", "no usable embedding; kept")
    line("threshold", f"{summary['threshold']:g}", "cosine")
    audit = summary["audit"]
    if audit and audit["queries_with_pairs"]:
        line(
            "audit",
            f"{audit['all_united_share']:.2%}",
            f"{audit['all_united']:,} of {audit['queries_with_pairs']:,} sampled rows are with all "
            f"their true duplicates (95 %: {audit['all_united_low']:.2%} to "
            f"{audit['all_united_high']:.2%})",
        )
        line(
            "pair recall",
            f"{audit['pair_recall']:.2%}",
            f"{audit['united_pairs']:,} of {audit['true_pairs']:,} true pairs",
        )
    elif audit:
        line("audit", "–", f"none of {audit['queries']:,} sampled rows has a duplicate")
    line(
        "time",
        f"{summary['wall_seconds']:.1f} s",
        ", ".join(f"{stage['name']} {stage['seconds']:.1f}" for stage in summary["stages"]),
    )
    line("peak memory", f"{summary['peak_memory_bytes'] / 1e9:.2f} GB", "all processes")
    console.print()
    console.print(table)

    bins = bin_sizes(read_histogram(out / "histogram.csv"))
    if bins:
        sizes = Table(box=None, pad_edge=False)
        sizes.add_column("cluster size", justify="right")
        sizes.add_column("clusters", justify="right")
        sizes.add_column("rows", justify="right")
        sizes.add_column("")
        most = max(rows for _, _, rows in bins)
        for label, clusters, rows in bins:
            sizes.add_row(
                label, f"{clusters:,}", f"{rows:,}", "█" * max(1, round(30 * rows / most))
            )
        console.print()
        console.print(sizes)
    console.print()
    _tell(console, f"results in {out}: clusters/*.parquet has every row with its cluster")


def _tell(console: Console, text: str) -> None:
    """Print one line as it is: a path may hold what rich takes for markup, and must not wrap."""
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


@main.command("plan", short_help="tell what a run will cost, without running it")
@click.argument("dataset", type=click.Path(path_type=Path), required=False)
@click.option("--rows", type=float, help="plan for so many rows (2.1e9, say) instead of a DATASET")
@click.option("--parts", type=int, help="with --rows: files [default: one per million rows]")
@click.option("--dtype", default="float16", show_default=True, help="with --rows: of the values")
@click.option("--dim", type=int, help="with --rows: of the embeddings [768]; else as in `run`")
@click.option("--nodes", type=int, default=1, show_default=True, help="machines")
@click.option("--cores", type=int, help="cores of each machine [default: this one's]")
@click.option("--disk-rate", help="bytes a second of the storage, such as 2GB [default: cached]")
@click.option("--duplicates", type=float, default=0.3, show_default=True, help="share expected")
@click.option("--pairs-per-row", type=float, default=12.0, show_default=True, help="verified")
@_setting("--threshold", "clusters.threshold", float)
@_setting("--search-threshold", "join.search_threshold", float)
@_setting("--visits", "cells.visits", float)
@_setting("--cells", "cells.cells", int)
@_setting("--url-column", "read.url_column", str)
@_setting("--caption-column", "read.caption_column", str)
@_setting("--audit-queries", "audit.queries", int)
@_setting("--seed", "seed", int)
@_setting("--workers", "compute.workers", int)
@_setting("--threads", "compute.threads", int)
@_setting("--memory", "compute.memory", str)
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@click.option("--calibrate", is_flag=True, help="measure this machine first, and remember it")
@click.option("--calibrate-seconds", type=float, default=1.0, hidden=True)
def plan_run(dataset: Path | None, config: Path | None, **options: Any) -> None:
    """Tell what a run over DATASET, or over so many --rows, will cost: time, disk, memory.

    Nothing is run. Times rest on what `--calibrate` measured on this machine, else on shipped
    rates; without --disk-rate all files count as cached in memory. The thresholds play no part:
    say with --duplicates and --pairs-per-row what they let through.

    Exit codes: 0 done, 2 wrong input or settings, or a task that does not fit into --memory (with
    a DATASET also into this machine's).
    """
    own = {key: options.pop(key) for key in list(options) if "__" not in key and key != "seed"}
    rows, calibrate = own["rows"], own["calibrate"]
    if (dataset is None) == (rows is None) and not (calibrate and dataset is None):
        raise SettingsError("plan: expected either a DATASET or --rows.")
    for key in ("nodes", "cores"):
        if own[key] is not None and own[key] < 1:
            raise SettingsError(f"{key}: expected at least 1, got {own[key]}.")
    if dataset is not None:
        options["compress__dim"] = own["dim"]
    overrides = {key.replace("__", "."): value for key, value in options.items()}
    settings = load_settings(config, overrides)
    from dask_dedup.calibrate import measure_rates
    from dask_dedup.deploy import memory_per_worker, worker_count
    from dask_dedup.plan import describe, plan, refuse
    from dask_dedup.report.plan_table import plan_tables
    from dask_dedup.workload import (
        Machine,
        Rates,
        load_rates,
        parse_rate,
        rates_path,
        save_rates,
    )

    path = rates_path()
    if calibrate:
        save_rates(measure_rates(Path.cwd(), own["calibrate_seconds"]), path)
        _tell(Console(stderr=True), f"{path}: rates of this machine, just measured")
        if dataset is None and rows is None:
            return
    work = _workload(dataset, settings, own)
    compute, workers = settings.compute, worker_count(settings.compute)
    if own["cores"] is not None and compute.workers is None:
        workers = max(1, own["cores"] // compute.threads)
    machine = Machine(workers * own["nodes"], compute.threads, parse_rate(own["disk_rate"]))
    measured = load_rates(path)
    planned = plan(work, machine, measured or Rates())
    origin = f"measured, {path}" if measured else "shipped; --calibrate measures this machine's"
    if own["as_json"]:
        click.echo(json.dumps({**describe(planned), "rates": origin}, indent=2))
    else:
        console = Console()
        for table in plan_tables(describe(planned)):
            console.print(table)
            console.print()
        _tell(console, f"rates: {origin}")
    if compute.memory is not None or dataset is not None:
        refuse(planned, memory_per_worker(compute))


def _workload(dataset: Path | None, settings: Settings, own: dict[str, Any]) -> Any:
    """Return what is to be planned for: a data set's headers, or the numbers given."""
    from dask_dedup.workload import numbers_workload

    facts: dict[str, Any] = {
        "rows": own["rows"],
        "dim": 768 if own["dim"] is None else own["dim"],
        "dtype": own["dtype"],
        "parts": own["parts"],
    }
    if dataset is not None:
        from dask_dedup.io.dataset import read_dataset

        data = read_dataset(dataset, **settings.read.model_dump())
        files = {part.metadata_path for part in data.parts}
        facts = {
            "rows": data.rows,
            "dim": data.dim,
            "dtype": data.parts[0].embeddings.dtype,
            "parts": len(data.filled_parts),
            "metadata_bytes": sum(os.path.getsize(file) for file in files) / data.rows,
        }
    shares = {key: own[key] for key in ("duplicates", "pairs_per_row")}
    return numbers_workload(settings, **facts, **shares)


if __name__ == "__main__":
    sys.exit(main())
