"""Kernels compiled before the first run that needs them: numba keeps them for all later ones.

Compiling takes most of a first run of ten thousand rows. A small data set is made up and run from
end to end, once for each type of embeddings, so what is compiled is what a run calls.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["COMPILE_SECONDS", "are_compiled", "warm_up"]

#: What a first run of the example takes longer, as it compiles: measured on two cores.
COMPILE_SECONDS = 20

_ROWS, _DIM = 4000, 96
_DTYPES = ("f2", "f4", "f8")
#: Modules of which each run calls kernels, and that do not load torch.
_OF_EACH_RUN = ("dask_dedup.vectors.equal_rows", "dask_dedup.graph.forest")


def warm_up() -> None:
    """Compile the kernels of a run and keep them for later ones; computes.

    Takes half a minute on one core where none is there, and seconds where all are.
    """
    from dask_dedup.pipeline.run import run
    from dask_dedup.runtime.executor import NoProgress, compute_tasks

    rows = made_up_rows()
    with tempfile.TemporaryDirectory() as folder:
        for dtype in _DTYPES:
            path = Path(folder, f"{dtype}.npy")
            np.save(path, rows.astype(dtype))
            run(
                path,
                Path(folder, dtype),
                {"cells.cells": 12, "audit.queries": 50, "clusters.threshold": 0.9},
                execute=compute_tasks,
                progress=NoProgress(),
                say=_say_nothing,
            )


def are_compiled(modules: Sequence[str] = _OF_EACH_RUN) -> bool:
    """Return whether numba will find most kernels of some modules, which are imported for it.

    What it finds is not opened: that it was compiled for another processor is seen only later.
    """
    found = [
        _is_kept(value)
        for name in modules
        for value in vars(import_module(name)).values()
        if hasattr(value, "py_func") and hasattr(value, "stats")
    ]
    return 2 * sum(found) >= len(found)


def made_up_rows() -> np.ndarray:
    """Return rows that come to every kernel: copies, near-copies, chains, a dense group, no row.

    Returns
    -------
    float64 array, shape (4000, 96)
    """
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(_ROWS, _DIM))
    rows[100:200] = rows[:100]
    rows[200:500] = rows[0] + 0.001 * rng.normal(size=(300, _DIM))
    rows[500:900] = rows[900:1300] + 0.2 * rng.normal(size=(400, _DIM))
    for i in range(
        1300, 3100
    ):  # each like the one before it; first one long chain, then short ones
        if i < 2700 or i % 5:
            rows[i] = 0.95 * rows[i - 1] + 0.3 * rng.normal(size=_DIM)
    rows[-1] = 0
    return rows


def _is_kept(kernel: Any) -> bool:
    """Return whether a kernel was compiled since its source was written last."""
    function, folder = kernel.py_func, kernel.stats.cache_path
    module = function.__module__.rpartition(".")[2]
    name = f"{module}.{function.__qualname__}-{function.__code__.co_firstlineno}."
    written = os.stat(function.__code__.co_filename).st_mtime
    try:
        with os.scandir(folder) as entries:
            return any(
                entry.name.startswith(name) and entry.stat().st_mtime >= written
                for entry in entries
                if entry.name.endswith(".nbi")
            )
    except OSError:
        return False


def _say_nothing(_: str) -> None:
    pass
