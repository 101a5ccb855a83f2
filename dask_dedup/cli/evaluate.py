"""`dask-dedup evaluate`: how good a search, a compressor or a labelling is."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dask_dedup.cli.group import configure_logging, main, setting, tell
from dask_dedup.config import load_settings
from dask_dedup.errors import OutputError, SettingsError
from dask_dedup.evaluate.settings import ParetoSettings, SpaceSettings, load_table, read_toml

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


def _settings_of(model: type[ParetoSettings | SpaceSettings]) -> Callable:
    """Return what adds an option for each setting, with its text and default."""

    def add(command: Callable) -> Callable:
        for name, field in reversed(model.model_fields.items()):
            flag = f"--{name.replace('_', '-')}"
            default = field.default
            text = " ".join(str(field.description).split())
            if isinstance(default, tuple):
                kind = int if default and isinstance(default[0], int) else str
                shown = " ".join(map(str, default)) or "none"
                command = _several(flag, name, f"{text} [default: {shown}]", kind)(command)
            else:
                command = click.option(
                    flag, name, type=type(default), default=None,
                    help=f"{text} [default: {default}]",
                )(command)  # fmt: skip
        return command

    return add


@evaluate.command(short_help="recall, speed and size of many indexes, and their Pareto front")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@_settings_of(ParetoSettings)
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


_ROWS = (
    click.option("--row-column", default="row", show_default=True, help="column with the row id"),
    click.option(
        "--filter", "filters", multiple=True, metavar="COLUMN=VALUE",
        help="take only rows of this value, such as split=test; may be repeated",
    ),
    click.option(
        "--out", type=click.Path(path_type=Path),
        help="folder that gets the table as CSV and JSON, and models/ that were fitted",
    ),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
        help="to train networks on",
    ),
    click.option("--json", "as_json", is_flag=True, help="print JSON"),
)  # fmt: skip


def _row_options(command: Callable) -> Callable:
    for option in reversed(_ROWS):
        command = option(command)
    return command


@evaluate.command(short_help="zero-shot classification, before and after compression")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.argument("classes", type=click.Path(path_type=Path))
@click.argument("labels", type=click.Path(path_type=Path))
@_row_options
@click.option(
    "--label-column", default="class_id", show_default=True,
    help="column with the class: its position in CLASSES; negative or missing for none",
)  # fmt: skip
@click.option(
    "--by", metavar="COLUMN",
    help="also each value of this column alone, against the classes that it has in LABELS",
)  # fmt: skip
@_settings_of(SpaceSettings)
@_common
def zeroshot(
    dataset: Path,
    classes: Path,
    labels: Path,
    row_column: str,
    filters: Sequence[str],
    out: Path | None,
    device: str,
    as_json: bool,
    label_column: str,
    by: str | None,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Classify the images of DATASET by the nearest class text, before and after compression.

    CLASSES is a .npy file with one text embedding a class, LABELS a parquet file with the row id
    and class of the rows to classify. With --factories the images are also quantized and decoded;
    class texts never are.

    A row counts at k when fewer than k classes are strictly more similar than its own. "mean" is
    the mean over classes, "tied" the share of rows that a tie decides. Models named by kind and
    dimension are fitted on all of DATASET: to keep test rows out, fit on another folder with
    `fit-compressor` and name the model.

    Exit codes: 0 done, 2 wrong input or settings.
    """
    console = Console(stderr=True, quiet=quiet)
    configure_logging(console, verbose, quiet)
    settings = load_table(SpaceSettings, {}, options, "settings")
    from dask_dedup.evaluate.row_table import read_classes, read_row_labels
    from dask_dedup.evaluate.space import measure_zeroshot
    from dask_dedup.io.dataset import read_dataset

    data, texts = read_dataset(dataset), read_classes(classes)
    rows = read_row_labels(
        labels, row_column=row_column, label_column=label_column, filters=filters, by=by,
        rows=data.rows, classes=len(texts),
    )  # fmt: skip
    with _models_folder(out, "zeroshot") as folder:
        found = measure_zeroshot(data, texts, rows, settings, folder, device=device)
    shown = ("group", "rows", "classes", "top1", "top5", "mean_top1", "mean_top5", "tied")
    _give_table(found, shown, out, "zeroshot", as_json)


@evaluate.command(short_help="retrieval between images and texts, before and after compression")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--table", type=click.Path(path_type=Path),
    help="parquet file with the row ids of the pool [default: a seeded sample of --rows]",
)  # fmt: skip
@_row_options
@_settings_of(SpaceSettings)
@_common
def retrieval(
    dataset: Path,
    table: Path | None,
    row_column: str,
    filters: Sequence[str],
    out: Path | None,
    device: str,
    as_json: bool,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Find each row's text by its image and the reverse, before and after compression.

    DATASET has img_emb and text_emb in one space. With --factories the side that is searched is
    also quantized and decoded; the queries never are.

    A pair counts at k when fewer than k others are strictly more similar; "tied" is the share of
    pairs that a tie decides. Models named by kind and dimension are fitted on all of DATASET: to
    keep test rows out, fit on another folder with `fit-compressor` and name the model.

    Exit codes: 0 done, 2 wrong input or settings.
    """
    console = Console(stderr=True, quiet=quiet)
    configure_logging(console, verbose, quiet)
    settings = load_table(SpaceSettings, {}, options, "settings")
    from dask_dedup.evaluate.row_table import read_row_ids
    from dask_dedup.evaluate.space import choose_rows, measure_retrieval
    from dask_dedup.io.dataset import read_dataset

    data = read_dataset(dataset)
    if table is not None:
        rows = read_row_ids(table, row_column=row_column, filters=filters, rows=data.rows)
    elif filters:
        raise SettingsError("filter: needs --table, whose columns it looks at.")
    else:
        rows = choose_rows(data, settings)
    with _models_folder(out, "retrieval") as folder:
        found = measure_retrieval(data, rows, settings, folder, device=device)
    shown = ("direction", "pairs", "recall@1", "recall@5", "recall@10", "median_rank", "tied")
    _give_table(found, shown, out, "retrieval", as_json)


@contextmanager
def _models_folder(out: Path | None, name: str) -> Iterator[Path]:
    """Give the folder for models that are fitted: in OUT, or for the time being."""
    if out is None:
        with TemporaryDirectory(prefix="dask-dedup-") as made:
            yield Path(made)
        return
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; the output needs a folder.")
    foreign = [p.name for p in out.iterdir()] if out.is_dir() else []
    foreign = [n for n in foreign if n not in (f"{name}.csv", f"{name}.json", "models")]
    if foreign:
        raise OutputError(
            f"{out}: holds files of something else ({', '.join(sorted(foreign)[:3])}). Choose an "
            f"empty folder or a new one."
        )
    yield out / "models"


_PERCENT = ("top", "mean_top", "recall@", "tied")


def _give_table(
    found: list[dict[str, Any]], shown: Sequence[str], out: Path | None, name: str, as_json: bool
) -> None:
    """Print measures, shares in per cent, and write them where that is wanted."""
    if out is not None:
        import pandas as pd

        from dask_dedup.io.store import write_aside, write_json

        with write_aside(out / f"{name}.csv") as temporary:
            pd.DataFrame(found).to_csv(temporary, index=False)
        write_json(out / f"{name}.json", found)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("model", "factory"):
        table.add_column(column)
    for column in ("bytes", *shown):
        table.add_column(column, justify="left" if column in ("group", "direction") else "right")
    for row in found:
        cells = [row["model"], row["factory"] or "–", f"{row['bytes_per_vector']:,}"]
        for column in shown:
            value = row[column]
            if column.startswith(_PERCENT):
                cells.append(f"{100 * value:.1f} %")
            else:
                cells.append(value if isinstance(value, str) else f"{value:,.6g}")
        table.add_row(*cells)
    _show(table, f"{name}.csv and {name}.json in {out}" if out else f"{len(found)} measurements")


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
