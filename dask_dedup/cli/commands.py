"""The command `dask-dedup`: only this package prints, exits and configures logging."""

from dask_dedup.cli import (  # noqa: F401  each adds its commands
    apply,
    calibrate,
    cluster_script,
    compress,
    evaluate_paper,
    evaluate_pareto,
    evaluate_space,
    export,
    index,
    plan,
    run,
    status,
)
from dask_dedup.cli.group import main

__all__ = ["main"]
