"""`dask-dedup run`: find the duplicates of a data set."""

from __future__ import annotations

import gc
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dask_dedup.cli.command_workers import interruptible
from dask_dedup.cli.group import (
    PATH,
    any_setting,
    chosen_settings,
    configure_logging,
    flag,
    input_settings,
    keep_settings,
    main,
    say,
    setting,
    switch,
    verbosity,
)
from dask_dedup.cli.help_groups import GroupedCommand
from dask_dedup.cli.terminal import seconds_so_far
from dask_dedup.errors import UnreadableError
from dask_dedup.paths import AnyPath
from dask_dedup.report.count_text import count_text
from dask_dedup.settings.encoders import ENCODERS
from dask_dedup.storage.objects import exists
from dask_dedup.storage.run_folder import PAGE

__all__ = ["print_summary", "run"]

_STAGES_TOLD = 2  # in the line of the time, which is to fit into 80 columns
_HELP: dict[str, Any] = {
    "cls": GroupedCommand,
    "option_groups": {
        "What is compared": (
            "modality", "metadata", "image-embeddings", "text-embeddings", "embedding-column",
            "url-column", "caption-column", "columns", "drop-columns", "skip-bad-parts",
        ),
        "Threshold, and which rows stay": (
            "threshold", "encoder", "search-threshold", "linkage", "keep", "protect",
            "max-per-cluster", "merge", "decisions",
        ),
        "Recall and cost": ("cells-per-row", "cells", "dim", "audit-queries", "seed"),
        "Machine": ("workers", "threads", "memory", "work", "device", "cluster", "dashboard"),
        "The paper's finder": (
            "finder", "model", "factory", "nprobe", "k", "tolerance", "verify",
        ),
        "The page": ("report", "images", "thumbnails", "load-urls"),
        "Settings and output": (
            "config", "set", "overwrite", "keep-stages", "break-lock", "verbose", "quiet", "help",
        ),
    },
}  # fmt: skip


@main.command(short_help="find the duplicates of a data set", **_HELP)
@click.argument("dataset", type=PATH, metavar="DATA")
@click.argument("out", type=PATH)
@setting("threshold", float)
@setting("search_threshold", float)
@setting("linkage")
@keep_settings
@setting("encoder", click.Choice([*ENCODERS]))
@setting("cells_per_row", float)
@setting("cells", int)
@setting("dim", int)
@setting("finder")
@setting("model", str)
@setting("factory", str)
@setting("nprobe", int)
@setting("k", int)
@setting("tolerance", float)
@switch("verify")
@input_settings
@setting("audit_queries", int)
@switch("report")
@setting("images", str)
@setting("thumbnails", int)
@flag("load_urls")
@setting("seed", int)
@setting("workers", int)
@setting("threads", int)
@setting("work", str)
@setting("memory", str)
@setting("cluster", str)
@switch("dashboard")
@setting("device")
@any_setting
@click.option(
    "--config",
    type=PATH,
    help="TOML file with settings; options given here win",
)
@click.option("--overwrite", is_flag=True, help="begin anew, whatever an earlier run left in OUT")
@click.option(
    "--break-lock",
    is_flag=True,
    help="take over the lock of OUT, a URL, from a run that has died on another machine",
)
@click.option("--keep-stages", is_flag=True, help="keep the working files, in OUT/stages or --work")
@verbosity
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
    """Find the duplicates of DATA and write everything about them to OUT.

    DATA is a folder as clip-retrieval writes it: img_emb/*.npy (one row per image) and
    metadata/*.parquet (the same rows with URL and caption). It may also be one .npy file, one
    .parquet file with a column of embeddings, or a folder of either; .npy files without metadata
    have rows that are known by their position. Other names: --metadata and --image-embeddings take
    patterns. DATA and OUT may be URLs, such as s3://bucket/folder.

    OUT gets clusters/ (every row with its cluster and your columns), forest/ (the similarities
    that link them), invalid/ (rows without a usable embedding), report/index.html (the page
    that shows it all), histogram.csv and .png, settings.toml, summary.json and log.txt. The same
    command again continues where it was stopped; `dask-dedup status OUT` reports its progress. What
    the run will cost is printed first, and the run is refused if it does not fit into the workers'
    memory or onto the disk.

    Exit codes: 0 done, 2 wrong input or settings, 130 interrupted, 143 terminated.
    """
    console = Console(stderr=True, quiet=quiet)
    say_line = configure_logging(console, verbose, quiet)
    settings = chosen_settings(options, config)
    from dask_dedup.pipeline.run import run as run_all
    from dask_dedup.report.progress import choose_progress

    try:
        with interruptible(console):
            result = run_all(
                dataset,
                out,
                settings,
                overwrite=overwrite,
                break_lock=break_lock,
                keep_stages=keep_stages,
                progress=choose_progress(console, say_line),
                say=say_line,
            )
    except UnreadableError as error:
        hint = "" if settings.read.skip_bad_parts else " --skip-bad-parts goes on without it."
        raise UnreadableError(f"{error}{hint}", error.path) from error
    if not quiet:
        print_summary(result, out, Console(), seconds_so_far() if result.is_new else None)
    gc.freeze()  # else Python looks at every object again before it ends: most of a second


def _are_far(summary: Mapping[str, Any]) -> bool:
    return bool(summary.get("dropped_by_cap") or summary.get("dropped_by_decision"))


def print_summary(
    summary: Mapping[str, Any], out: AnyPath, console: Console, seconds: float | None = None
) -> None:
    """Print what a run has found; ``seconds`` it took, by default those of its stages."""
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
            f"{linked['share']:.1%}: below {summary['threshold']:g} to their cluster's first row",
        )
    if "dropped" in summary:  # not of earlier versions
        why = {
            "star": f"a kept row is at {summary['threshold']:g} or above; but for"
            if _are_far(summary)
            else f"each at {summary['threshold']:g} or above to a row that stays",
            "components": "all of a cluster but one, however unlike they are",
        }
        line(
            "dropped", f"{summary['dropped']:,}", f"{summary['linkage']}: {why[summary['linkage']]}"
        )
        for name, label, reason in (
            ("dropped_by_cap", "  by the cap", "by --max-per-cluster"),
            ("dropped_by_decision", "  by decision", "by decision"),
        ):
            if summary.get(name):
                line(label, f"{summary[name]:,}", f"{reason}; no row like it stays")
        line("kept", f"{summary['kept']:,}", "is_kept in clusters/")
        if "protected" in summary:
            line("  protected", f"{summary['protected']:,}", "rows of clusters of two or more")
        if summary.get("decisions"):
            counts = [f"{count:,} {word}" for word, count in summary["decisions"].items()]
            line("decisions", f"{sum(summary['decisions'].values()):,}", ", ".join(counts))
    line("clusters", f"{summary['clusters']:,}", "single rows counted")
    line("of two or more", f"{summary['clusters_of_two_or_more']:,}")
    line("largest", f"{summary['largest_cluster']:,}", "rows")
    line("invalid rows", f"{summary['invalid_rows']:,}", "no usable embedding; kept")
    if summary.get("bad_files"):
        rows = sum({bad["path"]: bad["rows"] for bad in summary["bad_files"]}.values())
        files = count_text(len(summary["bad_files"]), "bad file")
        line("quarantined", f"{rows:,}", f"rows of {files}")
    line("threshold", f"{summary['threshold']:g}", "cosine")
    audit = summary["audit"]
    if audit and audit["queries_with_pairs"]:
        line(
            "audit",
            f"{audit['all_united_share']:.2%}",
            f"{audit['all_united']:,} of {audit['queries_with_pairs']:,} samples have all "
            f"their duplicates",
        )
        line("", "", f"95 %: {audit['all_united_low']:.2%} to {audit['all_united_high']:.2%}")
        line(
            "pair recall",
            f"{audit['pair_recall']:.2%}",
            f"{audit['united_pairs']:,} of {audit['true_pairs']:,} true pairs",
        )
    elif audit:
        line("audit", "–", f"none of {audit['queries']:,} sampled rows has a duplicate")
    line(
        "time",
        f"{seconds or summary['wall_seconds']:.1f} s",
        _stage_times(summary["stages"], seconds or summary["wall_seconds"]),
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
    say(console, f"results in {out}: clusters/*.parquet has every row with its cluster")
    for step in _next_steps(out):
        say(console, step)


def _stage_times(stages: Sequence[Mapping[str, Any]], seconds: float) -> str:
    """Return the seconds of the longest stages, in their order, and of all else."""
    longest = sorted(stages, key=lambda stage: -stage["seconds"])[:_STAGES_TOLD]
    times = [f"{one['name']} {_seconds(one['seconds'])}" for one in stages if one in longest]
    rest = max(seconds - sum(stage["seconds"] for stage in longest), 0.0)
    return ", ".join([*times, f"all else {_seconds(rest)}"])


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds < 1000 else f"{seconds:.0f}"


def _next_steps(out: AnyPath) -> list[str]:
    """Return what one does with a result, each in a line."""
    program = "dask-dedup" if shutil.which("dask-dedup") else sys.argv[0]
    page = out / PAGE
    return [
        *([f"page: {page}"] if exists(page) else []),
        f"without duplicates: {program} export {shlex.quote(str(out))} DEST",
    ]
