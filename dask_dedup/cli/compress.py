"""`dask-dedup fit-compressor` and `dask-dedup compress`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dask_dedup.cli.command_workers import following, interruptible, workers_and_progress
from dask_dedup.cli.group import (
    PATH,
    chosen_settings,
    main,
    open_console,
    overwriting,
    say,
    training_device,
    verbosity,
    worker_settings,
)
from dask_dedup.compressors.network_settings import NetworkSettings, load_network_settings
from dask_dedup.paths import AnyPath
from dask_dedup.report.count_text import count_text, data_text

__all__ = ["compress", "fit_compressor"]

_MODALITIES = click.Choice(["image", "text", "both"])


def _network(flag: str, name: str, kind: Any = None) -> Callable:
    """Return the option that sets ``name``: text and default are those of the settings."""
    field = NetworkSettings.model_fields[name]
    text = f"{field.description} [default: {field.default}]"
    if kind is bool:
        return click.option(flag, name, is_flag=True, default=None, help=str(field.description))
    return click.option(flag, name, type=kind, default=None, help=text)


@main.command("fit-compressor", short_help="fit a model that makes embeddings smaller")
@click.argument("dataset", type=PATH)
@click.argument("model", type=PATH)
@click.option(
    "--kind",
    type=click.Choice(["pca", "mse", "snip"]),
    default="snip",
    show_default=True,
    help="pca: linear; mse: least error of reconstruction; snip: keeps similarities",
)
@click.option(
    "--dim", type=int, default=128, show_default=True, help="dimension of the compressed rows"
)
@click.option(
    "--modality",
    type=_MODALITIES,
    default="image",
    show_default=True,
    help="embeddings to fit on: img_emb, text_emb, or both with one model",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="seed of the fit"
)
@training_device
@_network("--sample-rows", "sample_rows", int)
@_network("--validation-share", "validation_share", float)
@_network("--epochs", "epochs", int)
@_network("--patience", "patience", int)
@_network("--batch", "batch", int)
@_network("--lr", "learning_rate", float)
@_network("--width", "width", int)
@_network("--depth", "depth", int)
@_network("--start", "start", click.Choice(["pca", "random"]))
@_network("--temperature", "temperature", float)
@_network("--hard", "hard", bool)
@_network("--clip-weight", "clip_weight", float)
@_network("--threads", "threads", int)
@click.option("--overwrite", is_flag=True, help="replace an earlier model")
@verbosity
def fit_compressor(
    dataset: AnyPath,
    model: AnyPath,
    kind: str,
    dim: int,
    modality: str,
    seed: int,
    device: str,
    overwrite: bool,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Fit a compressor on a seeded sample of DATASET and write it to the folder MODEL.

    MODEL gets model.safetensors (tensors, no code), model.json (what they are, how they were
    fitted), and for networks the learning curve: curve.csv and curve.png.

    Exit codes: 0 done, 2 wrong input or settings, or MODEL exists, 130 interrupted, 143
    terminated.
    """
    console = open_console(verbose, quiet)
    settings = load_network_settings(options)
    from dask_dedup.data.dataset import read_dataset

    data = read_dataset(dataset, modality="text" if modality == "text" else "image")

    from dask_dedup.compressors import base
    from dask_dedup.compressors import fit as fit_model

    base.check_model_path(model, overwrite)
    say(console, data_text(dataset, data.rows, len(data.parts), data.dim))
    began = time.perf_counter()
    with interruptible(console, "nothing was written"), following(console) as progress:
        fitted = fit_model.fit_compressor(
            data,
            kind,
            dim,
            modality=modality,
            settings=settings,
            seed=seed,
            device=device,
            progress=progress,
        )
    seconds = time.perf_counter() - began
    base.save_model(fitted, model, overwrite=overwrite)
    statistics = fitted.header.statistics
    if "curve" in statistics:
        from dask_dedup.report.learning_curve import plot_curve, write_curve_csv

        title = f"{kind}, {data.dim} to {dim} dimensions, {modality}"
        write_curve_csv(statistics["curve"], model / "curve.csv")
        plot_curve(statistics["curve"], statistics["best_epoch"], title, model / "curve.png")
    if not quiet:
        _print_fit(fitted, model, seconds, Console())


@main.command(short_help="make the embeddings of a data set smaller")
@click.argument("dataset", type=PATH)
@click.argument("model", type=PATH)
@click.argument("out", type=PATH)
@click.option(
    "--modality",
    type=_MODALITIES,
    help="embeddings to compress [default: what MODEL was fitted on]",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="dtype of the values that are written",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="where to compute; cuda and auto (a GPU if there is one) are experimental",
)
@worker_settings
@overwriting
@verbosity
def compress(
    dataset: AnyPath,
    model: AnyPath,
    out: AnyPath,
    modality: str | None,
    dtype: str,
    device: str,
    overwrite: bool,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Compress the embeddings of DATASET with MODEL into OUT, which is a data set again.

    OUT gets img_emb/, text_emb/ or both, with the files' names, metadata/ (linked where the disk
    allows it), a copy of the model, and summary.json. Rows are at unit length; an unusable one is
    zero. Cosines, and the thresholds of `run` with them, are then those of the compressed rows.
    The same command again continues where it was stopped.

    Exit codes: 0 done, 2 wrong input or settings, or OUT holds something else, 130 interrupted,
    143 terminated.
    """
    console = open_console(verbose, quiet)
    settings = chosen_settings(options, used=("compute", "cluster"))
    summary = _compress(dataset, model, out, modality, dtype, device, overwrite, settings, console)
    if not quiet:
        for name, count in summary["zero_rows"].items():
            say(
                Console(),
                f"{name}: {count_text(summary['rows'], 'row')}, {count:,} of them without values",
            )
        say(Console(), f"compressed data set in {out}")


def _compress(
    dataset: AnyPath,
    model: AnyPath,
    out: AnyPath,
    modality: str | None,
    dtype: str,
    device: str,
    overwrite: bool,
    settings: Any,
    console: Console,
) -> dict[str, Any]:
    from dask_dedup.compressors.apply import compress_dataset
    from dask_dedup.compressors.base import load_model
    from dask_dedup.data.dataset import read_dataset

    fitted = load_model(model)
    modality = modality or fitted.header.modality
    data = read_dataset(dataset, modality="text" if modality == "text" else "image")
    say(
        console,
        f"{dataset}: {count_text(data.rows, 'row')} in {count_text(len(data.parts), 'part')}; "
        f"{fitted.kind} from {fitted.dim_in} to {fitted.dim_out} dimensions",
    )
    workers = workers_and_progress(console, settings, out, stages=out / "stages")
    with workers as (execute, progress):
        return compress_dataset(
            data,
            fitted,
            out,
            modality=modality,
            dtype=dtype,
            device=device,
            threads=settings.compute.threads,
            overwrite=overwrite,
            execute=execute,
            progress=progress,
        )


def _print_fit(fitted: Any, model: AnyPath, seconds: float, console: Console) -> None:
    header, statistics = fitted.header, fitted.header.statistics
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("model", f"{header.kind}, {header.dim_in} to {header.dim_out} dimensions")
    table.add_row("modality", header.modality)
    table.add_row("sampled rows", f"{statistics['sampled_rows']:,} usable ones")
    if "curve" in statistics:
        last = len(statistics["curve"]) - 1
        early = ", stopped early" if statistics["stopped_early"] else ""
        table.add_row("epochs", f"best {statistics['best_epoch']} of {last}{early}")
        table.add_row("validation loss", f"{statistics['validation_loss']:.4f}")
    else:
        table.add_row("squared length kept", f"{statistics['length_share']:.1%}")
    table.add_row("time", f"{seconds:.1f} s")
    console.print()
    console.print(table)
    console.print()
    say(console, f"model in {model}")
