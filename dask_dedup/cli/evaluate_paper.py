"""`dask-dedup evaluate paper`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from dask_dedup.cli.command_workers import following, interruptible
from dask_dedup.cli.evaluate import evaluate, workers_for_each
from dask_dedup.cli.group import (
    LOCAL_PATH,
    PATH,
    chosen_settings,
    open_console,
    overwriting,
    say,
    training_device,
    verbosity,
    worker_settings,
)
from dask_dedup.cli.paper_duplicates import find_duplicates
from dask_dedup.evaluate.evaluation_settings import read_toml
from dask_dedup.paths import AnyPath
from dask_dedup.report.count_text import count_text, data_text

__all__ = ["paper"]


@evaluate.command(short_help="the paper's curves and tables, by one configuration")
@click.argument("dataset", type=PATH)
@click.argument("out", type=LOCAL_PATH)
@click.option(
    "--config", required=True, type=PATH,
    help="TOML file with any of the tables pareto, components, zeroshot, retrieval, duplicates",
)  # fmt: skip
@click.option(
    "--space", type=PATH,
    help="data set with text_emb, for zeroshot and retrieval [default: DATASET, if it has them]",
)  # fmt: skip
@training_device
@worker_settings
@overwriting
@verbosity
def paper(
    dataset: AnyPath,
    out: Path,
    config: AnyPath,
    space: AnyPath | None,
    device: str,
    overwrite: bool,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Make all evaluations of a configuration for DATASET, and sum them up in OUT/index.md.

    examples/paper/paper.toml is the paper's comparison. All pairs are found by exhaustive search,
    which takes time with the square of the rows. The same command again continues where it was
    stopped.

    Exit codes: 0 done, 2 wrong input or settings, or OUT holds something else, 130 interrupted,
    143 terminated.
    """
    console = open_console(verbose, quiet)
    shared = chosen_settings(options, used=("compute", "cluster"))
    from dask_dedup.data.dataset import read_dataset
    from dask_dedup.evaluate.paper import load_paper, measure_paper
    from dask_dedup.evaluate.pareto import points_frame
    from dask_dedup.report.paper_page import write_page
    from dask_dedup.report.pareto_plot import plot_pareto

    settings = load_paper(read_toml(config), str(config))
    data = read_dataset(dataset)
    joint = None
    if space is not None:
        joint = read_dataset(space)
    elif all(part.text_embeddings is not None for part in data.filled_parts):
        joint = data
    say(console, data_text(dataset, data.rows, len(data.parts), data.dim))
    with interruptible(console), following(console) as progress:
        result = measure_paper(
            data,
            out,
            settings,
            space=joint,
            find_duplicates=partial(find_duplicates, dataset, shared, console),
            device=device,
            overwrite=overwrite,
            execute=workers_for_each(shared, float(data.rows) ** 2, out),
            progress=progress,
        )
    if "pareto" in result:
        threads = result["pareto"]["settings"]["threads"]
        title = f"{dataset.name}: {count_text(data.rows, 'row')}, {count_text(threads, 'thread')}"
        plot_pareto(
            points_frame(result["pareto"]), max(result["pareto"]["settings"]["ks"]), title,
            out / "pareto" / "pareto.png",
        )  # fmt: skip
    write_page(result, out / "index.md")
    if not quiet:
        for name in result["left out"]:
            say(Console(), f"{name}: not evaluated, for want of text embeddings or of a table")
        say(Console(), f"tables and plots in {out}: begin with index.md")
