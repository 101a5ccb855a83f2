"""The command `dask-dedup`: only this package prints, exits and configures logging."""

from dask_dedup.cli import (  # noqa: F401  each adds its commands
    calibrate,
    cluster_script,
    compress,
    evaluate_paper,
    evaluate_pareto,
    evaluate_space,
    index,
    plan,
    precision,
    relabel,
    run,
    status,
    sweep,
)
from dask_dedup.cli.group import main

__all__ = ["main"]
