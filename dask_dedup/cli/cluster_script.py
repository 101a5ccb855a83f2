"""`dask-dedup cluster-script`: what would be submitted to SLURM."""

from __future__ import annotations

from typing import Any

import click

from dask_dedup.cli.group import PATH, any_setting, chosen_settings, main, setting
from dask_dedup.paths import AnyPath

__all__ = ["cluster_script"]


@main.command("cluster-script", short_help="print the job script for SLURM, without submitting it")
@click.option("--config", type=PATH, help="TOML file with settings")
@setting("threads", int)
@setting("memory", str)
@any_setting
def cluster_script(config: AnyPath | None, **options: Any) -> None:
    """Print the script of one SLURM job as `run --cluster slurm` submits it.

    It starts the workers of [cluster]; instead of the scheduler's address, which is known when a
    run starts, it names tcp://DRIVER:PORT. SLURM need not be installed.

    Exit codes: 0 done, 2 wrong settings.
    """
    settings = chosen_settings({**options, "cluster__kind": "slurm"}, config)
    from dask_dedup.pipeline.worker_imports import PRELOAD
    from dask_dedup.runtime.slurm import job_script

    click.echo(job_script(settings, PRELOAD), nl=False)
