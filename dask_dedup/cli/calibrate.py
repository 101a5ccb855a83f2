"""`dask-dedup calibrate`: the tolerance for a data set and an index."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from dask_dedup.cli.command_workers import workers_and_progress
from dask_dedup.cli.group import (
    PATH,
    chosen_settings,
    input_settings,
    main,
    open_console,
    overwriting,
    say,
    setting,
    switch,
    worker_settings,
)
from dask_dedup.paths import AnyPath
from dask_dedup.report.count_text import count_text

__all__ = ["calibrate"]


@main.command("calibrate", short_help="choose the tolerance of search by quantized distances")
@click.argument("dataset", type=PATH)
@click.argument("out", type=PATH)
@setting("threshold", float)
@setting("model", str)
@setting("factory", str)
@setting("nprobe", int)
@setting("recall", float)
@setting("precision", float)
@setting("queries", int)
@switch("verify")
@input_settings
@setting("seed", int)
@worker_settings
@click.option("--config", type=PATH, help="TOML file with settings")
@overwriting
def calibrate(
    dataset: AnyPath, out: AnyPath, config: AnyPath | None, overwrite: bool, **options: Any
) -> None:
    """Measure what search by quantized distances finds in DATASET, and choose its tolerance T.

    The true pairs of sampled rows are found by brute force, and the same rows are searched in an
    index. OUT gets curves.csv and .png (precision and recall over T, and over a fixed threshold),
    adc.toml (for `run --config`; with the T for --verify or for --no-verify) and summary.json.

    Exit codes: 0 done, 2 wrong input or settings, 130 interrupted, 143 terminated.
    """
    console = open_console(verbose=False, quiet=False)
    settings = chosen_settings(options, config)
    from dask_dedup.data.dataset import read_dataset
    from dask_dedup.pipeline.tolerance_table import calibrate as measure

    data = read_dataset(dataset, **settings.read.model_dump())
    with workers_and_progress(console, settings, out) as (execute, progress):
        summary = measure(
            data, out, settings, overwrite=overwrite, execute=execute, progress=progress
        )
    printed = Console()
    say(
        printed,
        f"{count_text(summary['queries'], 'sampled row')} with "
        f"{count_text(summary['true_pairs'], 'true pair')}",
    )
    for rule, one in summary["chosen"].items():
        reached = "" if one["is_reached"] else "  (what was asked for is out of reach)"
        say(
            printed,
            f"{rule:<11} T {one['tolerance']:.4g}: recall {one['recall']:.2%}, "
            f"precision {one['precision']:.2%}{reached}",
        )
    say(printed, f"curves and settings in {out}")
