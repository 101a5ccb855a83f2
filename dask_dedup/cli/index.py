"""`dask-dedup build-index` and `dask-dedup search`."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from dask_dedup.cli.command_workers import following, workers_and_progress
from dask_dedup.cli.group import (
    PATH,
    chosen_settings,
    main,
    say,
    setting,
    worker_settings,
)
from dask_dedup.errors import InputError, OutputError
from dask_dedup.paths import AnyPath
from dask_dedup.report.count_text import count_text

__all__ = ["build", "search"]


@main.command("build-index", short_help="index the embeddings of a data set with faiss")
@click.argument("dataset", type=PATH)
@click.argument("index", type=PATH)
@click.option(
    "--factory",
    help="faiss's factory string, such as IVF65536,PQ4 [default: by the number of rows]",
)
@click.option("--model", type=PATH, help="compressor that is applied to the rows first")
@click.option(
    "--sample-rows",
    type=click.IntRange(0),
    default=0,
    help="rows to train on [default: 64 per list]",
)
@click.option(
    "--iterations",
    type=click.IntRange(0),
    default=0,
    help="iterations of k-means [default: faiss's own]",
)
@setting("seed", int)
@worker_settings
def build(
    dataset: AnyPath,
    index: AnyPath,
    factory: str | None,
    model: AnyPath | None,
    sample_rows: int,
    iterations: int,
    **options: Any,
) -> None:
    """Index the embeddings of DATASET, and write the faiss files to INDEX.

    Any faiss factory string will do. The index is trained once on a seeded sample over all parts;
    each group of files becomes one shard with global row ids. Rows without a usable embedding are
    left out and counted. The same command again continues where it was stopped.

    Exit codes: 0 done, 2 wrong input or settings, 130 interrupted, 143 terminated.
    """
    settings = chosen_settings(options, used=("seed", "read", "compute", "cluster"))
    from dask_dedup.data.dataset import read_dataset
    from dask_dedup.ivf.shards import open_model
    from dask_dedup.ivf.sizes import default_factory
    from dask_dedup.ivf.vector_index import build_index
    from dask_dedup.runtime.shares import threads_together

    console = Console(stderr=True)
    data = read_dataset(dataset, **settings.read.model_dump())
    if factory is None:
        factory = default_factory(data.rows, open_model(str(model)).dim_out if model else data.dim)
    say(
        console, f"{dataset}: {count_text(data.rows, 'row')}, dimension {data.dim}; index {factory}"
    )
    with workers_and_progress(console, settings, index) as (execute, progress):
        made = build_index(
            data,
            index,
            factory,
            model=model,
            sample_rows=sample_rows,
            iterations=iterations,
            seed=settings.seed,
            threads=settings.compute.threads,
            train_threads=threads_together(settings),
            execute=execute,
            progress=progress,
        )
    out = Console()
    say(out, f"rows indexed  {made.indexed:,} ({made.invalid:,} invalid ones left out)")
    say(out, f"shards        {len(made.shards):,}, {made.lists:,} inverted lists")
    say(out, f"bytes a row   {made.bytes_per_row} with its id of 8")
    say(out, f"overhead      {made.overhead_bytes / 1e6:.1f} MB: centroids, in each shard again")
    say(out, f"seconds       {made.train_seconds:.1f} to train, {made.add_seconds:.1f} to add")
    say(out, f"index in {index}")


@main.command("search", short_help="find the nearest rows of an index")
@click.argument("index", type=PATH)
@click.argument("queries", type=PATH)
@click.argument("out", type=PATH)
@click.option(
    "-k",
    "k",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="neighbours of each query",
)
@click.option(
    "--nprobe",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="inverted lists looked into",
)
@click.option("--dataset", type=PATH, help="data set that INDEX was built from")
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="threads of faiss"
)
def search(
    index: AnyPath,
    queries: AnyPath,
    out: AnyPath,
    k: int,
    nprobe: int,
    dataset: AnyPath | None,
    threads: int,
) -> None:
    """Find the nearest rows of INDEX to each of QUERIES, and write them to OUT, a parquet file.

    QUERIES is a .npy file of embeddings or a data set. OUT has query, rank (from 0), row_id and
    distance (squared L2 of unit vectors: a cosine of 1 - distance/2, up to quantization); with
    --dataset also the neighbours' url and caption.

    Exit codes: 0 done, 2 wrong input or settings.
    """
    from dask_dedup.data.dataset import read_dataset
    from dask_dedup.data.parts import read_npy_header
    from dask_dedup.ivf.neighbour_table import write_neighbours
    from dask_dedup.ivf.vector_index import open_index
    from dask_dedup.storage.listing import names_in

    console = Console(stderr=True)
    opened = open_index(index)
    data = None if dataset is None else read_dataset(dataset)
    if data is not None and data.fingerprint != opened.fingerprint:
        raise InputError(f"{dataset}: is not the data set that {index} was built from.")
    if names_in(out) is not None:
        raise OutputError(f"{out}: is a folder; the neighbours go to a parquet file.")
    if names_in(queries) is not None:
        files = [part.embeddings for part in read_dataset(queries).filled_parts]
    else:
        files = [read_npy_header(str(queries))]
    with following(console) as progress:
        rows = write_neighbours(opened, files, out, k, nprobe, data, threads, progress)
    found = count_text(rows, "neighbour")
    asked = count_text(sum(file.rows for file in files), "query", "queries")
    say(Console(), f"{found} of {asked} in {out}")
