"""`dask-dedup sweep`: what a finished run would have found at other thresholds."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.table import Table

from dask_dedup.cli.group import PATH, main, say
from dask_dedup.cli.own_files import refuse_other_file, refuse_other_picture
from dask_dedup.errors import SettingsError
from dask_dedup.paths import AnyPath

__all__ = ["sweep"]


@main.command("sweep", short_help="count duplicates and clusters at other thresholds")
@click.argument("out", type=PATH)
@click.option(
    "--csv", "csv_path", type=PATH, help="write all thresholds to this file, new or of a sweep"
)
@click.option("--plot", "plot_path", type=PATH, help="draw them into this PNG")
@click.option(
    "--pairs", "pairs_path", type=PATH, help="labelled pairs of `sample`: --plot has precision, too"
)
@click.option("--json", "as_json", is_flag=True, help="print all thresholds as JSON")
def sweep(
    out: AnyPath,
    csv_path: AnyPath | None,
    plot_path: AnyPath | None,
    pairs_path: AnyPath | None,
    as_json: bool,
) -> None:
    """Count what the run into OUT would have found at some 200 thresholds, from its forest alone.

    Printed are round thresholds, and that of the run, marked *. `no edge` are the duplicates
    without an edge of the forest to the row that represents their cluster: at most so many are
    joined through other rows only. `dask-dedup relabel` makes a result at another threshold.
    """
    from dask_dedup.results.finished_run import open_finished
    from dask_dedup.results.sweep import round_thresholds
    from dask_dedup.results.sweep import sweep as count

    if pairs_path is not None and plot_path is None:
        raise SettingsError(
            "--pairs: draws the precision into the picture of --plot, which is not asked for; "
            "`dask-dedup precision` prints it."
        )
    if csv_path is not None:
        _refuse_other_csv(csv_path)
    if plot_path is not None:
        refuse_other_picture(plot_path)
    labelled = None
    if pairs_path is not None:
        from dask_dedup.results.precision import read_labelled

        labelled = read_labelled(pairs_path)
    counts = count(out)
    run = open_finished(out)
    own = float(run.summary["threshold"])
    if csv_path is not None:
        from dask_dedup.storage.files import write_aside

        with write_aside(csv_path) as temporary:
            counts.to_csv(temporary, index=False)
    if plot_path is not None:
        from dask_dedup.report.sweep_plot import plot_sweep

        precision = None
        if labelled is not None:
            from dask_dedup.results.precision import precision as estimate

            precision = estimate(labelled)
        plot_sweep(counts, own, plot_path, precision)
    if as_json:
        click.echo(json.dumps(counts.to_dict("records"), indent=2))
        return
    console = Console()
    table = Table(box=None, pad_edge=False)
    for name in ("threshold", "duplicates", "of rows", "no edge", "clusters", "of two+", "largest"):
        table.add_column(name, justify="right")
    shown = counts[counts["threshold"].isin({own, *round_thresholds(run.forest_range())})]
    for row in shown.itertuples():
        table.add_row(
            f"{'*' if row.threshold == own else ''}{row.threshold:g}",
            f"{row.duplicates:,}",
            f"{1 - row.kept_fraction:.1%}",
            f"{row.without_edge_to_representative:,}",
            f"{row.clusters:,}",
            f"{row.clusters_of_two_or_more:,}",
            f"{row.largest_cluster:,}",
        )
    console.print(table)
    for path in (csv_path, plot_path):
        if path is not None:
            console.print()
            say(console, f"{path}: {len(counts)} thresholds")


def _refuse_other_csv(path: AnyPath) -> None:
    """Raise SettingsError where a file is there that no sweep has written."""
    from dask_dedup.results.sweep import COLUMNS

    header = ",".join(COLUMNS).encode() + b"\n"
    refuse_other_file(path, lambda content: content.startswith(header), "no CSV of a sweep")
