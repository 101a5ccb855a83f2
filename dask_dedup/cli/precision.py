"""`dask-dedup sample` and `precision`: pairs to look at, and what they say of the threshold."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.table import Table

from dask_dedup.cli.group import PATH, main, say
from dask_dedup.cli.own_files import refuse_other_picture
from dask_dedup.errors import SettingsError
from dask_dedup.paths import AnyPath
from dask_dedup.report.count_text import count_text
from dask_dedup.storage.objects import exists

__all__ = ["precision", "sample"]


@main.command("sample", short_help="write pairs of a finished run to look at and label")
@click.argument("out", type=PATH)
@click.argument("pairs_csv", type=PATH)
@click.option("-n", "--pairs", type=int, default=200, show_default=True, help="how many pairs")
@click.option("--seed", type=int, default=0, show_default=True, help="of the choice")
@click.option(
    "--images",
    help='local pictures of the page, such as "images/{key}.jpg" [default: images beside the data]',
)
@click.option("--overwrite", is_flag=True, help="replace PAIRS_CSV and the labels in it")
def sample(
    out: AnyPath, pairs_csv: AnyPath, pairs: int, seed: int, images: str | None, overwrite: bool
) -> None:
    """Write pairs of rows that the run into OUT has linked, to PAIRS_CSV.

    As many of each similarity, from the search threshold to 1, with URLs and captions. Beside it a
    page of the same name, .html, shows one pair after the other: y and n label them, and it saves
    PAIRS_CSV. Or write yes or no into the column label; nothing where you are not sure.
    `dask-dedup precision PAIRS_CSV` then reports the precision at each threshold.
    """
    import numpy as np

    from dask_dedup.report.label_page import write_label_page
    from dask_dedup.results.pair_sample import sample_pairs, small_pictures, write_pairs

    page = pairs_csv.with_name(f"{pairs_csv.name.removesuffix('.csv')}.html")
    for path in (pairs_csv, page):
        if exists(path) and not overwrite:
            raise SettingsError(
                f"{path}: is there already, perhaps with labels. Name another file, or replace it "
                f"with --overwrite."
            )
    found = sample_pairs(out, pairs, seed)
    pictures = small_pictures(out, np.concatenate([found["src"], found["dst"]]), images)
    write_pairs(found, pairs_csv)
    write_label_page(found, pictures, pairs_csv.name, page)
    say(
        Console(),
        f"{pairs_csv}: {count_text(len(found), 'pair')} in "
        f"{count_text(found['bin'].nunique(), 'bin')} of similarity; label them in {page} (y and "
        f"n), or in its column label (yes and no), then: dask-dedup precision {pairs_csv}",
    )


@main.command("precision", short_help="report the precision at each threshold from labelled pairs")
@click.argument("pairs_csv", type=PATH)
@click.option("--target", type=click.FloatRange(0, 1), help="precision wanted, such as 0.9")
@click.option("--plot", "plot_path", type=PATH, help="draw it into this PNG")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def precision(
    pairs_csv: AnyPath, target: float | None, plot_path: AnyPath | None, as_json: bool
) -> None:
    """Tell the precision of each threshold, with its 95 % interval, from labelled pairs.

    PAIRS_CSV is of `dask-dedup sample`, with yes or no in the column label. Precision is the share
    of true duplicates among the forest's edges at or above a threshold: of the links that make the
    clusters, not of all pairs inside them.
    """
    from dask_dedup.results.precision import precision as estimate
    from dask_dedup.results.precision import read_labelled, threshold_for

    if plot_path is not None:
        refuse_other_picture(plot_path)
    labelled = read_labelled(pairs_csv)
    estimates = estimate(labelled)
    wanted = None if target is None else threshold_for(estimates, target)
    if plot_path is not None:
        from dask_dedup.report.precision_plot import plot_precision

        plot_precision(estimates, plot_path, target)
    if as_json:
        rows = estimates.astype(object).where(estimates.notna(), None).to_dict("records")
        click.echo(json.dumps({"thresholds": rows, **(wanted._asdict() if wanted else {})}))
        return
    console = Console()
    table = Table(box=None, pad_edge=False)
    for name in ("threshold", "precision", "95 %", "edges", "labelled"):
        table.add_column(name, justify="right")
    for row in estimates.itertuples():
        is_known = row.precision == row.precision
        table.add_row(
            f"{row.threshold:g}",
            f"{row.precision:.1%}" if is_known else "?",
            f"{row.low:.1%} to {row.high:.1%}" if is_known else "no label in some bin",
            f"{row.edges:,}",
            f"{row.labelled:,}",
        )
    console.print(table)
    if wanted is not None:
        console.print()
        for name, threshold in (("estimated", wanted.estimated), ("95 % sure", wanted.sure)):
            text = "at no threshold of these" if threshold is None else f"from {threshold:g} up"
            say(console, f"precision of {target:.1%}, {name}: {text}")
