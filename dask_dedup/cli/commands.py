"""The list of the commands of `dask-dedup`: a new one is a file in `cli/` and a line here."""

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
    precision,
    relabel,
    report,
    run,
    show,
    status,
    sweep,
    verbatim,
    warm_up,
)
from dask_dedup.cli.group import main

__all__ = ["main"]
