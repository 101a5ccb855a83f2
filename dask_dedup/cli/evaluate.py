"""`dask-dedup evaluate`: how good a search, a compressor or a labelling is."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dask_dedup.cli.group import configure_logging, main, setting, tell
from dask_dedup.config import load_settings
from dask_dedup.errors import SettingsError

__all__ = ["evaluate"]

_FILE_WIDTH = 160  # of a table that goes into a file or a pipe
_INTERRUPTED = 130  # what a shell gives for Ctrl-C
_SMALL_ROWS = 200_000  # times queries / 1000: compared in this process, for want of work


@main.group(short_help="measure searches, compressors and labellings against the truth")
def evaluate() -> None:
    """Measure searches, compressors and labellings against the truth."""


def _several(flag: str, name: str, text: str, kind: Any = str) -> Callable:
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


def _common(command: Callable) -> Callable:
    """Add the options that every evaluation has."""
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="print errors only"),
        click.option("-v", "--verbose", is_flag=True, help="log what is done and why"),
    ):
        command = option(command)
    return command


@contextmanager
def _interruptible(console: Console) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        console.print("\ninterrupted; the same command continues where this stopped")
        os._exit(_INTERRUPTED)


@contextmanager
def _executor(compute: Any, scratch: Path, products: float) -> Iterator[Any]:
    """Give workers for much work, and this process for little: they take seconds to start."""
    from dask_dedup.evaluate.folder import one_by_one

    if products <= _SMALL_ROWS * 1000:
        yield one_by_one
        return
    from dask_dedup.deploy import local_cluster

    with local_cluster(compute, scratch) as execute:
        yield execute


@evaluate.command(short_help="find true neighbours and pairs by exhaustive search")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--queries", default="1000", show_default=True, help="rows of the sample, or all")
@click.option("-k", "k", type=int, default=10, show_default=True, help="neighbours of each query")
@click.option("--threshold", type=float, help="keep all pairs of this cosine or above, too")
@click.option(
    "--modality", type=click.Choice(["image", "text"]), default="image", show_default=True,
    help="embeddings that are compared",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="of the sample")
@setting("--workers", "compute.workers", int)
@setting("--threads", "compute.threads", int)
@setting("--memory", "compute.memory", str)
@click.option("--overwrite", is_flag=True, help="begin anew, whatever an earlier one left in OUT")
@_common
def truth(
    dataset: Path,
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

    Exit codes: 0 done, 2 wrong input or settings, or OUT holds something else, 130 interrupted.
    """
    console = Console(stderr=True, quiet=quiet)
    configure_logging(console, verbose, quiet)
    if queries != "all" and not queries.isdigit():
        raise SettingsError(f"queries: expected a number of rows or all, got {queries!r}.")
    compute = load_settings(None, _dotted(options)).compute
    from dask_dedup.evaluate.truth import TruthSettings, find_truth
    from dask_dedup.io.dataset import read_dataset
    from dask_dedup.progress import choose_progress

    wanted = TruthSettings(None if queries == "all" else int(queries), k, threshold, modality, seed)
    data = read_dataset(dataset, modality=modality)
    tell(console, f"{dataset}: {data.rows:,} rows in {len(data.parts)} parts, dimension {data.dim}")
    progress = choose_progress(console)
    products = float(data.rows) * (wanted.queries or data.rows)
    with _interruptible(console), _executor(compute, out / "dask", products) as execute:
        try:
            summary = find_truth(
                data, out, wanted, threads=compute.threads, overwrite=overwrite,
                execute=execute, progress=progress,
            )  # fmt: skip
        finally:
            progress.close()
    if not quiet:
        table = _facts()
        table.add_row("queries", f"{summary['queries']:,} of {summary['rows']:,} rows")
        if summary["unusable_queries"]:
            table.add_row("unusable", f"{summary['unusable_queries']:,} of the queries")
        table.add_row("neighbours", f"{summary['neighbours']:,}")
        if summary["pairs"] is not None:
            table.add_row("pairs", f"{summary['pairs']:,} at cosine {threshold:g} or above")
        table.add_row("time", f"{summary['seconds']:.1f} s")
        _show(table, f"truth in {out}")


@evaluate.command(short_help="exact components beside a one-pass labelling of the same edges")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--threshold", type=float, help="cosine [default: that of the run]")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@_common
def components(
    source: Path, threshold: float | None, as_json: bool, verbose: bool, quiet: bool
) -> None:
    """Compare exact components with a one-pass labelling of the edges in SOURCE.

    SOURCE is the output of a run (of which there is the forest), of `evaluate truth --queries all
    --threshold ...` (all pairs), or a parquet file with src, dst and similarity.

    The one-pass labelling is a reconstruction of what the authors of the paper describe in place
    of connected components; their code for it was never released. It gives each row's label to
    those of its duplicates that have none yet, and so never unites two groups.

    Exit codes: 0 done, 2 wrong input.
    """
    configure_logging(Console(stderr=True, quiet=quiet), verbose, quiet)
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
    _show(
        table,
        f"{found.edges:,} edges at cosine {found.threshold:g} or above between {found.rows:,} "
        f"rows: the one pass leaves {found.split_clusters:,} clusters in pieces "
        f"({found.rows_in_split_clusters:,} rows, {found.most_pieces:,} pieces at most) and misses "
        f"{found.missed_unions:,} unions",
    )


def _pareto_options(command: Callable) -> Callable:
    """Add the options that are settings of `ParetoSettings`, with its texts and defaults."""
    from dask_dedup.evaluate.settings import ParetoSettings

    for name, field in reversed(ParetoSettings.model_fields.items()):
        flag = f"--{name.replace('_', '-')}"
        default = field.default
        text = f"{' '.join(str(field.description).split())}"
        if isinstance(default, tuple):
            kind = str if isinstance(default[0], str) else int
            shown = " ".join(map(str, default))
            command = _several(flag, name, f"{text} [default: {shown}]", kind)(command)
        else:
            command = click.option(
                flag, name, type=type(default), default=None, help=f"{text} [default: {default}]"
            )(command)
    return command


@evaluate.command(short_help="recall, speed and size of many indexes, and their Pareto front")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@_pareto_options
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
    help="to train networks on",
)  # fmt: skip
@setting("--workers", "compute.workers", int)
@setting("--memory", "compute.memory", str)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="TOML file with a table [pareto]; options given here win",
)
@click.option("--overwrite", is_flag=True, help="begin anew, whatever an earlier one left in OUT")
@_common
def pareto(
    dataset: Path,
    out: Path,
    device: str,
    config: Path | None,
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

    Exit codes: 0 done, 2 wrong input or settings, or OUT holds something else, 130 interrupted.
    """
    console = Console(stderr=True, quiet=quiet)
    configure_logging(console, verbose, quiet)
    shares = {key: options.pop(key) for key in list(options) if "__" in key}
    compute = load_settings(None, _dotted(shares)).compute
    from dask_dedup.evaluate.settings import ParetoSettings, load_table, read_toml

    settings = load_table(
        ParetoSettings, read_toml(config).get("pareto", {}), options, str(config or "settings")
    )
    from dask_dedup.evaluate.pareto import measure_pareto, points_frame
    from dask_dedup.io.dataset import read_dataset
    from dask_dedup.progress import choose_progress
    from dask_dedup.report.pareto_plot import plot_pareto

    data = read_dataset(dataset, modality=settings.modality)
    tell(console, f"{dataset}: {data.rows:,} rows in {len(data.parts)} parts, dimension {data.dim}")
    progress = choose_progress(console)
    products = float(data.rows) * settings.queries

    def execute(tasks: Sequence[Any], on_result: Any) -> list[Any]:
        """Start workers for the truth alone: they are gone when times are taken."""
        if not tasks:
            return []
        with _executor(compute, out / "dask", products) as run:
            return run(tasks, on_result)

    with _interruptible(console):
        try:
            result = measure_pareto(
                data, out, settings, device=device, overwrite=overwrite,
                truth_execute=execute, progress=progress,
            )  # fmt: skip
        finally:
            progress.close()
    points, k = points_frame(result), max(settings.ks)
    title = f"{dataset.name}: {result['rows']:,} rows, {settings.threads} thread(s)"
    plot_pareto(points, k, title, out / "pareto.png")
    if not quiet:
        _print_front(points, settings.ks, out)
    gc.freeze()


def _print_front(points: Any, ks: Sequence[int], out: Path) -> None:
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
    _show(table, f"{len(points):,} searches, {len(front):,} of them on the front; all in {out}")


def _dotted(options: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in options.items()}


def _facts() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    return table


def _show(table: Table, note: str) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    console.print()
    console.print(table)
    console.print()
    tell(console, note)
