"""`dask-dedup evaluate pareto`."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from dask_dedup.cli.command_workers import following, interruptible
from dask_dedup.cli.evaluate import evaluate, settings_of, show, workers_for_each
from dask_dedup.cli.group import (
    LOCAL_PATH,
    PATH,
    any_setting,
    chosen_settings,
    open_console,
    overwriting,
    say,
    setting,
    training_device,
    verbosity,
)
from dask_dedup.evaluate.evaluation_settings import ParetoSettings, load_table, read_toml
from dask_dedup.paths import AnyPath
from dask_dedup.report.count_text import count_text, data_text

__all__ = ["pareto"]


@evaluate.command(short_help="recall, speed and size of many indexes, and their Pareto front")
@click.argument("dataset", type=PATH)
@click.argument("out", type=LOCAL_PATH)
@settings_of(ParetoSettings)
@training_device
@setting("workers", int)
@setting("memory", str)
@setting("cluster", str)
@any_setting
@click.option(
    "--config",
    type=PATH,
    help="TOML file with a table [pareto]; options given here win",
)
@overwriting
@verbosity
def pareto(
    dataset: AnyPath,
    out: Path,
    device: str,
    config: AnyPath | None,
    overwrite: bool,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure searches over DATASET and write their Pareto front to OUT.

    Every --models is combined with every --factories and search setting: recall against an
    exhaustive search, queries per second, bytes per vector, times of training and building. OUT
    gets pareto.csv, pareto.json, pareto.png, truth/, and models/ that were fitted.

    A query is not its own result. A result is right at k when its true cosine is at least that of
    the k-th true neighbour, to --tie-epsilon. Queries are searched in one batch, already
    compressed. The same command again continues where it was stopped.

    Exit codes: 0 done, 2 wrong input or settings, or OUT holds something else, 130 interrupted,
    143 terminated.
    """
    console = open_console(verbose, quiet)
    given = {key: options.pop(key) for key in list(options) if "__" in key or key == "assignments"}
    shared = chosen_settings(given, used=("compute", "cluster"))
    settings = load_table(
        ParetoSettings, read_toml(config).get("pareto", {}), options, str(config or "settings")
    )
    from dask_dedup.data.dataset import read_dataset
    from dask_dedup.evaluate.pareto import measure_pareto, points_frame
    from dask_dedup.report.pareto_plot import plot_pareto

    data = read_dataset(dataset, modality=settings.modality)
    say(console, data_text(dataset, data.rows, len(data.parts), data.dim))
    products = float(data.rows) * settings.queries
    with interruptible(console), following(console) as progress:
        result = measure_pareto(
            data, out, settings, device=device, overwrite=overwrite,
            truth_execute=workers_for_each(shared, products, out), progress=progress,
        )  # fmt: skip
    points, k = points_frame(result), max(settings.ks)
    threads = count_text(settings.threads, "thread")
    title = f"{dataset.name}: {count_text(result['rows'], 'row')}, {threads}"
    plot_pareto(points, k, title, out / "pareto.png")
    if not quiet:
        _print_front(points, settings.ks, out)
    gc.freeze()


def _print_front(points: Any, ks: Sequence[int], out: AnyPath) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("model", "factory", "setting"):
        table.add_column(name)
    for name in (*(f"recall@{k}" for k in ks), "queries/s", "bytes", "train s", "build s"):
        table.add_column(name, justify="right")
    front = points[points["front"]].sort_values("queries_per_second", ascending=False)
    for point in front.to_dict("records"):
        table.add_row(
            point["model"],
            point["factory"],
            point["setting"],
            *(f"{point[f'recall@{k}']:.3f}" for k in ks),
            f"{point['queries_per_second']:,.0f}",
            f"{point['bytes_per_vector']:.1f}",
            f"{point['train_seconds']:.1f}",
            f"{point['build_seconds']:.1f}",
        )
    searches = count_text(len(points), "search", "searches")
    show(table, f"{searches}, {len(front):,} of them on the front; all in {out}")
