"""Find the duplicates in image-text data sets of a thousand or of two billion rows.

The chain, each function on what the one before returned::

    read_dataset → fit_pca → build_cells → join_cells → spanning_forest → label_components
    → join_clusters

or all of it, with resume, audit and report, by `run`. Beside it, embeddings are made smaller::

    read_dataset → fit_compressor → save_model, compress_dataset
"""

import os
import sys

# `python -m dask_dedup` looks for modules in the current folder first: that of a data set, perhaps.
if (
    sys.argv[:1] == ["-m"]
    and not sys.flags.safe_path
    and sys.path[0] == os.getcwd() != os.path.dirname(os.path.dirname(__file__))
):
    del sys.path[0]

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dask_dedup.kernel_cache import choose_cache

choose_cache()

if TYPE_CHECKING:
    from dask_dedup.clusters import join_clusters
    from dask_dedup.compress.apply import compress_dataset
    from dask_dedup.compress.base import Compressor, load_model, save_model
    from dask_dedup.compress.fit import fit_pca
    from dask_dedup.compress.fit_model import fit_compressor
    from dask_dedup.compress.settings import NetworkSettings
    from dask_dedup.config import Settings, load_settings
    from dask_dedup.errors import (
        CapacityError,
        ClusterError,
        ColumnError,
        DamagedError,
        DedupError,
        InputError,
        OutputError,
        SettingsError,
        StoreError,
    )
    from dask_dedup.graph.components import label_components, read_forest, spanning_forest
    from dask_dedup.index.build import build_cells
    from dask_dedup.io.dataset import Dataset, read_dataset
    from dask_dedup.pipeline import run
    from dask_dedup.search.join import join_cells
    from dask_dedup.vector_index import build_index, open_index, search_index

_HOMES = {
    "CapacityError": "errors",
    "ClusterError": "errors",
    "ColumnError": "errors",
    "Compressor": "compress.base",
    "DamagedError": "errors",
    "Dataset": "io.dataset",
    "DedupError": "errors",
    "InputError": "errors",
    "NetworkSettings": "compress.settings",
    "OutputError": "errors",
    "Settings": "config",
    "SettingsError": "errors",
    "StoreError": "errors",
    "build_cells": "index.build",
    "build_index": "vector_index",
    "compress_dataset": "compress.apply",
    "fit_compressor": "compress.fit_model",
    "fit_pca": "compress.fit",
    "join_cells": "search.join",
    "join_clusters": "clusters",
    "label_components": "graph.components",
    "load_model": "compress.base",
    "load_settings": "config",
    "open_index": "vector_index",
    "read_dataset": "io.dataset",
    "read_forest": "graph.components",
    "run": "pipeline",
    "save_model": "compress.base",
    "search_index": "vector_index",
    "spanning_forest": "graph.components",
}

__all__ = [
    "CapacityError",
    "ClusterError",
    "ColumnError",
    "Compressor",
    "DamagedError",
    "Dataset",
    "DedupError",
    "InputError",
    "NetworkSettings",
    "OutputError",
    "Settings",
    "SettingsError",
    "StoreError",
    "build_cells",
    "build_index",
    "compress_dataset",
    "fit_compressor",
    "fit_pca",
    "join_cells",
    "join_clusters",
    "label_components",
    "load_model",
    "load_settings",
    "open_index",
    "read_dataset",
    "read_forest",
    "run",
    "save_model",
    "search_index",
    "spanning_forest",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `import dask_dedup` loads nothing else."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dask_dedup' has no attribute {name!r}")
    return getattr(import_module(f"dask_dedup.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
