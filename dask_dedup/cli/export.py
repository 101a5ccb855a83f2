"""`dask-dedup export`: take the clean data set, or what was dropped."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from dask_dedup.cli.command_workers import workers_and_progress
from dask_dedup.cli.group import (
    PATH,
    chosen_settings,
    main,
    open_console,
    overwriting,
    say,
    verbosity,
    worker_settings,
)
from dask_dedup.paths import AnyPath
from dask_dedup.report.count_text import count_text

__all__ = ["export"]

_FORMATS = ["input", "parquet", "csv", "ids", "img2dataset", "webdataset"]


@main.command(short_help="write the data set without its duplicates, for other tools")
@click.argument("out", type=PATH)
@click.argument("dest", type=PATH)
@click.option(
    "--what",
    type=click.Choice(["kept", "dropped", "all"]),
    default="kept",
    show_default=True,
    help="the rows that stay, those that are dropped, or all with the decision",
)
@click.option(
    "--format",
    type=click.Choice(_FORMATS),
    default="input",
    show_default=True,
    help="input: metadata and embeddings, a data set again; parquet, csv: metadata; ids: row ids "
    "as .npy; img2dataset: URLs and captions to download; webdataset: samples of --shards",
)
@click.option(
    "--columns", metavar="A,B", help="metadata columns that are written [default: all of OUT]"
)
@click.option(
    "--shard-rows",
    type=click.IntRange(1),
    help="rows of a file [default: a file for each of the input]",
)
@click.option(
    "--shards",
    metavar="PATTERN",
    help='webdataset: the tars of img2dataset, a folder or a name such as "p/{00000..00004}.tar"',
)
@click.option(
    "--key",
    metavar="COLUMN",
    help="webdataset: column with the keys of the samples, or {shard}{index}: counted as "
    "img2dataset does [default: key]",
)
@click.option(
    "--samples-per-shard",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="for --key {shard}{index}: img2dataset's number_sample_per_shard",
)
@click.option("--dataset", type=PATH, help="where the data set lies now [default: where it was]")
@worker_settings
@overwriting
@verbosity
def export(
    out: AnyPath,
    dest: AnyPath,
    what: str,
    format: str,
    columns: str | None,
    shard_rows: int | None,
    shards: str | None,
    key: str | None,
    samples_per_shard: int,
    dataset: AnyPath | None,
    overwrite: bool,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    r"""Write the rows of OUT, a finished run, that stay, to the folder DEST.

    \b
    dask-dedup export OUT clean                        a data set without duplicates
    dask-dedup export OUT gone --what dropped --format csv
    dask-dedup export OUT urls --format img2dataset
    dask-dedup export OUT tars --format webdataset --shards laion/ --key key

    Beside the metadata stand row_id, cluster_id, and duplicate_count: how many rows the cluster of
    a row has. (Where several rows of a cluster stay, each has that count, so the counts add up to
    more than all rows.) Dropped rows have witness_row_id and witness_similarity: the row that
    stays in their place, and the cosine of the two.

    The files are in a folder of DEST: metadata, img_emb and text_emb, or one named like the format;
    summary.json counts them. The same command again continues where it was stopped.

    Exit codes: 0 done, 2 wrong input or settings, or DEST holds something else, 130 interrupted,
    143 terminated.
    """
    console = open_console(verbose, quiet)
    settings = chosen_settings(options, used=("compute", "cluster"))
    from dask_dedup.results.export import export as write_export

    workers = workers_and_progress(console, settings, dest, stages=dest / "stages")
    with workers as (execute, progress):
        summary = write_export(
            out,
            dest,
            what=what,
            format=format,
            columns=None if columns is None else [c.strip() for c in columns.split(",")],
            shard_rows=shard_rows,
            shards=shards,
            key=key,
            samples_per_shard=samples_per_shard,
            dataset=dataset,
            overwrite=overwrite,
            execute=execute,
            progress=progress,
        )
    if not quiet:
        _print(summary, dest, Console())


def _print(summary: dict[str, Any], dest: AnyPath, console: Console) -> None:
    rows, files = summary["rows"], summary["files"]
    if summary["format"] == "webdataset":
        by = summary["samples_by_verdict"]
        say(console, f"{rows:,} of {summary['samples']:,} samples in {count_text(files, 'tar')}")
        for name in ("unmatched", "keyless", "ambiguous", "without_witness"):
            if by[name]:
                say(console, f"{name.replace('_', ' ')}: {count_text(by[name], 'sample')}")
    else:
        source = summary["source_rows"]
        say(
            console,
            f"{summary['what']}: {rows:,} of {source:,} rows in {count_text(files, 'file')}",
        )
    if summary.get("without_url"):
        say(console, f"left out, without URL: {summary['without_url']:,} rows")
    say(console, f"exported to {dest}")
