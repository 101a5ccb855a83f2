"""`dask-dedup evaluate`: how good a search, a compressor or a labelling is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dask_dedup.cli.command_workers import following, interruptible, lazy_workers
from dask_dedup.cli.group import (
    LOCAL_PATH,
    PATH,
    chosen_settings,
    main,
    open_console,
    overwriting,
    say,
    verbosity,
    worker_settings,
)
from dask_dedup.errors import SettingsError
from dask_dedup.evaluate.evaluation_settings import ParetoSettings, SpaceSettings
from dask_dedup.paths import AnyPath
from dask_dedup.report.count_text import count_text, data_text

__all__ = ["evaluate"]

_FILE_WIDTH = 160  # of a table that goes into a file or a pipe
_SMALL_ROWS = 200_000  # times queries / 1000: compared in this process, for want of work


@main.group(short_help="measure searches, compressors and labellings against the truth")
def evaluate() -> None:
    """Measure searches, compressors and labellings against the truth."""


def several(flag: str, name: str, text: str, kind: Any = str) -> Callable:
    """Return an option that takes several values in one string, or is repeated."""

    def split(context: click.Context, option: click.Parameter, values: Sequence[str]) -> tuple:
        found = [word for value in values for word in value.split()]
        try:
            return tuple(kind(word) for word in found)
        except ValueError as error:
            raise click.BadParameter(f"expected numbers, got {' '.join(found)!r}") from error

    return click.option(
        flag, name, multiple=True, callback=split, help=f"{text}; several in quotes, or repeated"
    )


def workers_for(settings: Any, products: float, out: AnyPath) -> AbstractContextManager[Any]:
    """Give workers for much work, and this process for little: they take seconds to start."""
    from dask_dedup.evaluate.evaluation_folder import one_by_one

    is_little = products <= _SMALL_ROWS * 1000
    return nullcontext(one_by_one) if is_little else lazy_workers(settings, out)


def workers_for_each(settings: Any, products: float, out: AnyPath) -> Callable:
    """Return an `Execute` whose workers live for one call, not while times are taken."""

    def execute(tasks: Sequence[Any], on_result: Any) -> list[Any]:
        with workers_for(settings, products, out) as run:
            return run(tasks, on_result)

    return execute


@evaluate.command(short_help="find true neighbours and pairs by exhaustive search")
@click.argument("dataset", type=PATH)
@click.argument("out", type=LOCAL_PATH)
@click.option("--queries", default="1000", show_default=True, help="rows of the sample, or all")
@click.option("-k", "k", type=int, default=10, show_default=True, help="neighbours of each query")
@click.option("--threshold", type=float, help="keep all pairs of this cosine or above, too")
@click.option(
    "--modality", type=click.Choice(["image", "text"]), default="image", show_default=True,
    help="embeddings that are compared",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="seed of the sample")
@worker_settings
@overwriting
@verbosity
def truth(
    dataset: AnyPath,
    out: Path,
    queries: str,
    k: int,
    threshold: float | None,
    modality: str,
    seed: int,
    overwrite: bool,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Find the true neighbours of a sample of DATASET's rows, or of all, and write them to OUT.

    OUT gets neighbours/*.parquet (query, row_id, rank, similarity), with --threshold also
    pairs/*.parquet, and summary.json. The same command again does nothing; with another data set or
    other settings it is refused.

    Exit codes: 0 done, 2 wrong input or settings, or OUT holds something else, 130 interrupted,
    143 terminated.
    """
    console = open_console(verbose, quiet)
    if queries != "all" and not queries.isdigit():
        raise SettingsError(f"queries: expected a number of rows or all, got {queries!r}.")
    settings = chosen_settings(options, used=("compute", "cluster"))
    from dask_dedup.data.dataset import read_dataset
    from dask_dedup.evaluate.truth import TruthSettings, find_truth

    wanted = TruthSettings(None if queries == "all" else int(queries), k, threshold, modality, seed)
    data = read_dataset(dataset, modality=modality)
    say(console, data_text(dataset, data.rows, len(data.parts), data.dim))
    products = float(data.rows) * (wanted.queries or data.rows)
    with (
        interruptible(console),
        following(console) as progress,
        workers_for(settings, products, out) as execute,
    ):
        summary = find_truth(
            data, out, wanted, threads=settings.compute.threads, overwrite=overwrite,
            execute=execute, progress=progress,
        )  # fmt: skip
    if not quiet:
        table = table_of_two()
        table.add_row("queries", f"{summary['queries']:,} of {summary['rows']:,} rows")
        if summary["unusable_queries"]:
            table.add_row("unusable", f"{summary['unusable_queries']:,} of the queries")
        table.add_row("neighbours", f"{summary['neighbours']:,}")
        if summary["pairs"] is not None:
            table.add_row("pairs", f"{summary['pairs']:,} at cosine {threshold:g} or above")
        table.add_row("time", f"{summary['seconds']:.1f} s")
        show(table, f"truth in {out}")


@evaluate.command(short_help="exact components beside a one-pass labelling of the same edges")
@click.argument("source", type=PATH)
@click.option("--threshold", type=float, help="cosine [default: that of SOURCE]")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@verbosity
def components(
    source: AnyPath, threshold: float | None, as_json: bool, verbose: bool, quiet: bool
) -> None:
    """Compare exact components with a one-pass labelling of the edges in SOURCE.

    SOURCE is the output of `evaluate truth --queries all --threshold ...`, or a parquet file with
    src, dst and similarity: all pairs. The output of a run is refused: it keeps a forest, at most
    one edge a row, of which one pass misses more than of all pairs.

    The one-pass labelling is a reconstruction of what the authors of the paper describe instead
    of connected components; their code for it was never released. It gives each row's label to
    those of its duplicates that have none yet, and so never unites two groups.

    Exit codes: 0 done, 2 wrong input.
    """
    console = open_console(verbose, quiet)
    from dask_dedup.evaluate.components import choose_threshold, compare_components, read_edges

    edges = read_edges(source)
    found = compare_components(edges.edges, choose_threshold(threshold, edges))
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("", style="bold")
    table.add_column("exact", justify="right")
    table.add_column("one pass", justify="right")
    table.add_row("clusters", f"{found.clusters:,}", f"{found.one_pass_clusters:,}")
    table.add_row("duplicates", f"{found.duplicates:,}", f"{found.one_pass_duplicates:,}")
    table.add_row(
        "largest cluster", f"{found.largest_cluster:,}", f"{found.largest_one_pass_cluster:,}"
    )
    show(
        table,
        f"{count_text(found.edges, 'edge')} at cosine {found.threshold:g} or above between "
        f"{count_text(found.rows, 'row')}: the one pass leaves "
        f"{count_text(found.split_clusters, 'cluster')} in pieces "
        f"({count_text(found.rows_in_split_clusters, 'row')}, "
        f"{count_text(found.most_pieces, 'piece')} at most) and misses "
        f"{count_text(found.missed_unions, 'union')}",
    )
    if found.is_forest:
        say(
            console,
            "these edges hold no cycle: if they are a forest and not all pairs, one pass over all "
            "pairs misses fewer unions",
        )


def settings_of(model: type[ParetoSettings | SpaceSettings]) -> Callable:
    """Return what adds an option for each setting, with its text and default."""

    def add(command: Callable) -> Callable:
        for name, field in reversed(model.model_fields.items()):
            flag = f"--{name.replace('_', '-')}"
            default = field.default
            text = " ".join(str(field.description).split())
            if isinstance(default, tuple):
                kind = int if default and isinstance(default[0], int) else str
                shown = " ".join(map(str, default)) or "none"
                command = several(flag, name, f"{text} [default: {shown}]", kind)(command)
            else:
                command = click.option(
                    flag, name, type=type(default), default=None,
                    help=f"{text} [default: {default}]",
                )(command)  # fmt: skip
        return command

    return add


def table_of_two() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    return table


def show(table: Table, note: str) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    console.print()
    console.print(table)
    console.print()
    say(console, note)
