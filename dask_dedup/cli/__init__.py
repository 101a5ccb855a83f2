"""The command `dask-dedup`: the only place that prints, exits and configures logging."""

from dask_dedup.cli import compress, evaluate_pareto, evaluate_space, plan, run  # noqa: F401  each adds its commands
from dask_dedup.cli.group import main

__all__ = ["main"]
