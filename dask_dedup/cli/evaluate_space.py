"""`dask-dedup evaluate zeroshot` and `evaluate retrieval`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.table import Table

from dask_dedup.cli.evaluate import evaluate, settings_of, show
from dask_dedup.cli.group import LOCAL_PATH, PATH, open_console, training_device, verbosity
from dask_dedup.errors import SettingsError
from dask_dedup.evaluate.evaluation_settings import SpaceSettings, load_table
from dask_dedup.paths import AnyPath
from dask_dedup.report.count_text import count_text

__all__ = ["retrieval", "zeroshot"]

_PERCENT = ("top", "mean_top", "recall@", "split", "tied")

_ROWS = (
    click.option("--row-column", default="row", show_default=True, help="column with the row id"),
    click.option(
        "--filter", "filters", multiple=True, metavar="COLUMN=VALUE",
        help="take only rows of this value, such as split=test; may be repeated",
    ),
    click.option(
        "--out", type=LOCAL_PATH,
        help="folder that gets the table as CSV and JSON, and models/ that were fitted",
    ),
    training_device,
    click.option("--json", "as_json", is_flag=True, help="print JSON"),
)  # fmt: skip


def _row_options(command: Callable) -> Callable:
    for option in reversed(_ROWS):
        command = option(command)
    return command


@evaluate.command(short_help="zero-shot classification, before and after compression")
@click.argument("dataset", type=PATH)
@click.argument("classes", type=PATH)
@click.argument("labels", type=PATH)
@_row_options
@click.option(
    "--label-column", default="class_id", show_default=True,
    help="column with the class: its position in CLASSES; negative or missing for none",
)  # fmt: skip
@click.option(
    "--by", metavar="COLUMN",
    help="also each value of this column alone, against the classes that it has in LABELS",
)  # fmt: skip
@settings_of(SpaceSettings)
@verbosity
def zeroshot(
    dataset: AnyPath,
    classes: AnyPath,
    labels: AnyPath,
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
    the mean over classes, "tied" the share of rows that a tie decides, "split1" top-1 with ties in
    random order. Models named by kind and
    dimension are fitted on all of DATASET: to keep test rows out, fit on another folder with
    `fit-compressor` and name the model.

    Exit codes: 0 done, 2 wrong input or settings.
    """
    open_console(verbose, quiet)
    settings = load_table(SpaceSettings, {}, options, "settings")
    from dask_dedup.data.dataset import read_dataset
    from dask_dedup.evaluate.row_table import read_classes, read_row_labels
    from dask_dedup.evaluate.space import measure_zeroshot

    data, texts = read_dataset(dataset), read_classes(classes)
    rows = read_row_labels(
        labels, row_column=row_column, label_column=label_column, filters=filters, by=by,
        rows=data.rows, classes=len(texts),
    )  # fmt: skip
    with _models_folder(out, "zeroshot") as folder:
        found = measure_zeroshot(data, texts, rows, settings, folder, device=device)
        tops = ("top1", "top5", "mean_top1", "mean_top5")
        shown = ("group", "rows", "classes", *tops, "split1", "tied")
        _give_table(found, shown, out, "zeroshot", as_json)


@evaluate.command(short_help="retrieval between images and texts, before and after compression")
@click.argument("dataset", type=PATH)
@click.option(
    "--table", type=PATH,
    help="parquet file with the row ids of the pool [default: a seeded sample of --rows]",
)  # fmt: skip
@_row_options
@settings_of(SpaceSettings)
@verbosity
def retrieval(
    dataset: AnyPath,
    table: AnyPath | None,
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
    pairs that a tie concerns, "split@1" recall@1 with ties in random order. Models named by kind
    and dimension are fitted on all of DATASET: to keep test rows out, fit on another folder with
    `fit-compressor` and name the model.

    Exit codes: 0 done, 2 wrong input or settings.
    """
    open_console(verbose, quiet)
    settings = load_table(SpaceSettings, {}, options, "settings")
    from dask_dedup.data.dataset import read_dataset
    from dask_dedup.evaluate.row_table import read_row_ids
    from dask_dedup.evaluate.space import choose_rows, measure_retrieval

    data = read_dataset(dataset)
    if table is not None:
        rows = read_row_ids(table, row_column=row_column, filters=filters, rows=data.rows)
    elif filters:
        raise SettingsError("filter: needs --table, whose columns it looks at.")
    else:
        rows = choose_rows(data, settings)
    with _models_folder(out, "retrieval") as folder:
        found = measure_retrieval(data, rows, settings, folder, device=device)
        recalls = ("recall@1", "recall@5", "recall@10")
        shown = ("direction", "pairs", *recalls, "median_rank", "split@1", "tied")
        _give_table(found, shown, out, "retrieval", as_json)


@contextmanager
def _models_folder(out: Path | None, name: str) -> Iterator[Path]:
    """Claim OUT; give the folder for models that are fitted: in it, or for the time being."""
    if out is None:
        with TemporaryDirectory(prefix="dask-dedup-") as made:
            yield Path(made)
        return
    from dask_dedup.storage.claim import Claim
    from dask_dedup.storage.foreign_content import refuse_other_content

    own = (f"{name}.csv", f"{name}.json", "models")
    with Claim(out, partial(refuse_other_content, out, own)):
        yield out / "models"


def _give_table(
    found: list[dict[str, Any]], shown: Sequence[str], out: Path | None, name: str, as_json: bool
) -> None:
    """Print measures, shares in per cent, and write them where that is wanted."""
    if out is not None:
        import pandas as pd

        from dask_dedup.storage.files import write_aside, write_json

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
    show(
        table,
        f"{name}.csv and {name}.json in {out}" if out else count_text(len(found), "measurement"),
    )
