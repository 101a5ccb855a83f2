"""Find the duplicates in image-text data sets of a thousand or of two billion rows.

The chain, each function on what the one before returned::

    read_dataset → fit_pca → build_cells → join_cells → spanning_forest → label_components
    → join_clusters

where the forest, or the labels, of many edges do not fit into a worker, by way of files::

    join_cells → write_forest → write_labels → join_clusters

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

from dask_dedup.runtime.kernel_cache import choose_cache

choose_cache()

if TYPE_CHECKING:
    from dask_dedup.cells.build import build_cells
    from dask_dedup.cells.join import join_cells
    from dask_dedup.compressors.apply import compress_dataset
    from dask_dedup.compressors.base import Compressor, load_model, save_model
    from dask_dedup.compressors.fit import fit_compressor
    from dask_dedup.compressors.network_settings import NetworkSettings
    from dask_dedup.data.dataset import Dataset, read_dataset
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
    from dask_dedup.graph.on_disk import write_forest, write_labels
    from dask_dedup.ivf.vector_index import build_index, open_index, search_index
    from dask_dedup.pipeline.run import run
    from dask_dedup.results.clusters import join_clusters
    from dask_dedup.settings.run_settings import Settings, load_settings
    from dask_dedup.vectors.fit_pca import fit_pca

_HOMES = {
    "CapacityError": "errors",
    "ClusterError": "errors",
    "ColumnError": "errors",
    "Compressor": "compressors.base",
    "DamagedError": "errors",
    "Dataset": "data.dataset",
    "DedupError": "errors",
    "InputError": "errors",
    "NetworkSettings": "compressors.network_settings",
    "OutputError": "errors",
    "Settings": "settings.run_settings",
    "SettingsError": "errors",
    "StoreError": "errors",
    "build_cells": "cells.build",
    "build_index": "ivf.vector_index",
    "compress_dataset": "compressors.apply",
    "fit_compressor": "compressors.fit",
    "fit_pca": "vectors.fit_pca",
    "join_cells": "cells.join",
    "join_clusters": "results.clusters",
    "label_components": "graph.components",
    "load_model": "compressors.base",
    "load_settings": "settings.run_settings",
    "open_index": "ivf.vector_index",
    "read_dataset": "data.dataset",
    "read_forest": "graph.components",
    "run": "pipeline.run",
    "save_model": "compressors.base",
    "search_index": "ivf.vector_index",
    "spanning_forest": "graph.components",
    "write_forest": "graph.on_disk",
    "write_labels": "graph.on_disk",
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
    "write_forest",
    "write_labels",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `import dask_dedup` loads nothing else."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dask_dedup' has no attribute {name!r}")
    return getattr(import_module(f"dask_dedup.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
