"""`dask-dedup run`: find the duplicates of a data set."""

from __future__ import annotations

import gc
import os
from dataclasses import replace
from threading import Thread
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dask_dedup.cli.group import (
    PLACE,
    any_setting,
    chosen_settings,
    configure_logging,
    input_settings,
    main,
    setting,
    switch,
    tell,
)
from dask_dedup.cli.terminal import end_code, end_word
from dask_dedup.errors import UnreadableError
from dask_dedup.paths import AnyPath
from dask_dedup.runtime.forkserver import start_server, stop_server
from dask_dedup.runtime.limits import check_floor, memory_limit
from dask_dedup.runtime.shares import memory_per_worker
from dask_dedup.settings.run_settings import Settings

__all__ = ["run"]


@main.command(short_help="find the duplicates of a data set")
@click.argument("dataset", type=PLACE)
@click.argument("out", type=PLACE)
@setting("--threshold", "clusters.threshold", float)
@setting("--search-threshold", "join.search_threshold", float)
@setting("--visits", "cells.visits", float)
@setting("--cells", "cells.cells", int)
@setting("--dim", "compress.dim", int)
@setting("--finder", "finder", click.Choice(["join", "adc"]))
@setting("--model", "adc.model", str)
@setting("--factory", "adc.factory", str)
@setting("--nprobe", "adc.nprobe", int)
@setting("--k", "adc.k", int)
@setting("--tolerance", "adc.tolerance", float)
@switch("--verify/--no-verify", "adc.verify")
@input_settings
@setting("--audit-queries", "audit.queries", int)
@setting("--seed", "seed", int)
@setting("--workers", "compute.workers", int)
@setting("--threads", "compute.threads", int)
@setting("--work", "compute.work", str)
@setting("--memory", "compute.memory", str)
@setting("--cluster", "cluster.kind", str)
@switch("--dashboard/--no-dashboard", "cluster.dashboard")
@setting("--device", "compute.device", click.Choice(["auto", "cpu", "cuda"]))
@any_setting
@click.option(
    "--config",
    type=PLACE,
    help="TOML file with settings; options given here win",
)
@click.option("--overwrite", is_flag=True, help="begin anew, whatever an earlier run left in OUT")
@click.option(
    "--break-lock",
    is_flag=True,
    help="take OUT, a URL, from a run that has died on another machine",
)
@click.option("--keep-stages", is_flag=True, help="keep the working files, in OUT/stages or --work")
@click.option("-v", "--verbose", is_flag=True, help="log what is done and why")
@click.option("-q", "--quiet", is_flag=True, help="print errors only")
def run(
    dataset: AnyPath,
    out: AnyPath,
    config: AnyPath | None,
    overwrite: bool,
    break_lock: bool,
    keep_stages: bool,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Find the duplicates of DATASET and write everything about them to OUT.

    DATASET is a folder as clip-retrieval writes it: img_emb/*.npy (one row per image) and
    metadata/*.parquet (the same rows with URL and caption). With --modality text the captions'
    embeddings, text_emb/*.npy, are compared instead. Other names: --metadata and
    --image-embeddings take patterns; --embedding-column is for embeddings in a column of the
    parquet files. DATASET and OUT may be URLs, such as s3://bucket/folder.

    OUT gets clusters/ (every row with its cluster and your columns), forest/ (the similarities
    that link them), invalid/ (rows without a usable embedding), histogram.csv and .png,
    settings.toml and summary.json. The same command again continues where it was stopped;
    `dask-dedup status OUT` tells how far it is. What the run will cost is printed first, and the
    run is refused if it does not fit into the workers' memory or onto the disk.

    Exit codes: 0 done, 2 wrong input or settings, 130 interrupted, 143 terminated.
    """
    console = Console(stderr=True, quiet=quiet)
    configure_logging(console, verbose, quiet)
    settings = chosen_settings(options, config)
    try:
        summary = _run(dataset, out, settings, overwrite, break_lock, keep_stages, console)
    except UnreadableError as error:
        hint = "" if settings.read.skip_bad_parts else " --skip-bad-parts goes on without it."
        raise UnreadableError(f"{error}{hint}", error.path) from error
    except KeyboardInterrupt as stop:
        console.print(f"\n{end_word(stop)}; the same command continues where this stopped")
        stop_server()
        os._exit(end_code(stop))  # workers and their threads are gone with the cluster
    if not quiet:
        _print_summary(summary, out, Console())
    gc.freeze()  # else Python looks at every object again before it ends: most of a second


def _run(
    dataset: AnyPath,
    out: AnyPath,
    settings: Settings,
    overwrite: bool,
    break_lock: bool,
    keep_stages: bool,
    console: Console,
) -> dict[str, Any]:
    if settings.cluster.kind == "local":
        start_server()  # unless it runs already; imports for seconds, beside what follows
    from dask_dedup.pipeline.unreadable_parts import open_dataset, result_settings

    data = open_dataset(dataset, out, settings)

    # These load for seconds: a fault in the input should not have to wait for them.
    from dask_dedup.cli.progress import choose_progress
    from dask_dedup.pipeline.relabel import find_kept
    from dask_dedup.runtime.deployment import open_cluster
    from dask_dedup.storage.objects import scratch_beside
    from dask_dedup.storage.run_folder import RunFolder

    tell(console, f"{dataset}: {data.rows:,} rows in {len(data.parts)} parts, dimension {data.dim}")
    work = settings.compute.work
    is_foreign = "://" in settings.cluster.kind  # only a scheduler that runs knows its workers
    with RunFolder(
        out,
        result_settings(data, settings),
        data.fingerprint,
        overwrite,
        work,
        break_lock,
        (data.path, data.sketch),
    ) as folder:
        if folder.is_finished():
            tell(console, f"{out}: finished before with these settings; nothing to do")
            return folder.read_summary()
        kept = find_kept(folder, settings)
        if kept is not None:
            tell(
                console,
                f"the forest in {out}, searched from {kept['search_threshold']:g} up, answers "
                f"threshold {settings.clusters.threshold:g}: only the clusters are made anew",
            )

        def begin(workers: int | None = None, memory: int | None = None) -> None:
            planned = None
            if settings.cluster.kind == "local":
                check_floor(memory_per_worker(settings.compute), memory_limit())
            if kept is None and settings.finder == "join":
                planned = _plan(data, settings, out, console, workers, memory)
            folder.begin(kept)
            if planned is not None:
                write_json(folder.stages / PLAN, planned)

        from dask_dedup.pipeline.status import PLAN
        from dask_dedup.storage.files import write_json

        if not is_foreign:
            begin()
        progress = choose_progress(console)
        # Seconds of imports, meanwhile the workers start.
        importing = Thread(target=_import_pipeline, args=(settings.finder,), daemon=True)
        importing.start()
        with (
            scratch_beside(folder.stages) as scratch,
            open_cluster(settings, scratch, folder.stages) as execute,
        ):
            workers = len(execute.workers())
            memory = execute.memory_bytes or memory_per_worker(settings.compute)
            seen = f"; dashboard at {execute.dashboard}" if execute.dashboard else ""
            tell(console, f"{workers} workers with {memory / 1e9:.1f} GB each{seen}")
            if is_foreign:
                begin(workers, memory)
            importing.join()
            from dask_dedup.pipeline.job import Job
            from dask_dedup.pipeline.run import run_stages

            def facts() -> dict[str, Any]:
                known = {"workers": workers} if is_foreign else {}
                return {**known, "worker_peak_bytes": execute.peak_bytes()}

            job = Job(data, folder, settings, execute, progress, memory)
            if settings.cluster.kind != "local":
                job = replace(job, facts=facts)
            try:
                return run_stages(job, keep_stages)
            finally:
                progress.close()


def _plan(
    data: Any,
    settings: Settings,
    out: AnyPath,
    console: Console,
    workers: int | None,
    memory: int | None,
) -> dict[str, Any]:
    """Tell what the run will cost, and refuse what does not fit; return the plan as numbers."""
    from dask_dedup.planning.cost_model import describe
    from dask_dedup.planning.preflight import check_room, plan_run
    from dask_dedup.report.plan_table import plan_lines

    planned = plan_run(data, settings, workers)
    free = check_room(planned, data, settings, out, memory)
    told = describe(planned)
    for line in plan_lines(told, memory or memory_per_worker(settings.compute), free):
        tell(console, line)
    return told


def _import_pipeline(finder: str) -> None:
    from dask_dedup.pipeline.run import choose_finder

    choose_finder(finder)


def _print_summary(summary: dict[str, Any], out: AnyPath, console: Console) -> None:
    from dask_dedup.report.histogram import bin_sizes, read_histogram

    def line(name: str, value: str, note: str = "") -> None:
        table.add_row(name, value, note)

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    line("rows", f"{summary['rows']:,}")
    line(
        "duplicates",
        f"{summary['duplicates']:,}",
        f"{summary['duplicate_fraction']:.1%} of the valid rows",
    )
    linked = summary.get("linked_through_others")  # not of earlier versions
    if linked and linked["rows"]:
        line(
            "through others",
            f"{linked['rows']:,}",
            f"{linked['share']:.1%} of the duplicates are below the threshold to the row that "
            f"would stay, {linked['below_0.8']:,} below 0.8, the least {linked['lowest']:.2f}",
        )
    line("clusters", f"{summary['clusters']:,}", "single rows counted")
    line("of two or more", f"{summary['clusters_of_two_or_more']:,}")
    line("largest", f"{summary['largest_cluster']:,}", "rows")
    line("invalid rows", f"{summary['invalid_rows']:,}", "no usable embedding; kept")
    if summary.get("bad_files"):
        rows = sum({bad["path"]: bad["rows"] for bad in summary["bad_files"]}.values())
        line("set aside", f"{rows:,}", f"rows of {len(summary['bad_files'])} bad files")
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
    whose, largest = "all processes", summary.get("worker_peak_bytes")
    if largest is not None:
        whose = f"this machine's processes; the largest worker {largest / 1e9:.2f} GB"
    line("peak memory", f"{summary['peak_memory_bytes'] / 1e9:.2f} GB", whose)
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
    tell(console, f"results in {out}: clusters/*.parquet has every row with its cluster")
