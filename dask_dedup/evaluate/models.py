"""Compressors for the evaluation: named on the command line, fitted or loaded, and applied.

A model is ``raw`` (the embeddings at unit length), a folder that `dask-dedup fit-compressor` wrote,
or ``pca:64``, ``mse:64``, ``snip:64``: fitted here, on the data set's own seeded sample, and kept.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from dask_dedup.compressors.base import load_model, save_model
from dask_dedup.compressors.fit import fit_compressor
from dask_dedup.data.dataset import Dataset
from dask_dedup.data.parts import Part, read_rows
from dask_dedup.errors import InputError, SettingsError
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.storage.files import read_json, write_aside
from dask_dedup.storage.listing import has_files
from dask_dedup.vectors.unit import prepare_block

__all__ = [
    "Model",
    "NamedModel",
    "check_model_names",
    "model_identity",
    "open_model",
    "transform_rows",
    "write_rows",
]

logger = logging.getLogger(__name__)

_FITTED = re.compile(r"(pca|mse|snip):([1-9][0-9]*)")
_BLOCK_ROWS = 8192


class Model(Protocol):
    """What the evaluation needs of a `Compressor`."""

    @property
    def dim_in(self) -> int:
        """Dimension of the rows that it takes."""

    @property
    def dim_out(self) -> int:
        """Dimension of the rows that it returns."""

    def transform(self, rows: np.ndarray) -> np.ndarray:
        """Compress rows: float32, shape (n, dim_in) to (n, dim_out)."""


@dataclass(frozen=True)
class _Raw:
    """Rows at unit length, not compressed."""

    dim_in: int

    @property
    def dim_out(self) -> int:
        return self.dim_in

    def transform(self, rows: np.ndarray) -> np.ndarray:
        return rows


@dataclass(frozen=True)
class NamedModel:
    """A model and its name in tables: ``raw``, ``pca-64``, or its folder's name."""

    name: str
    model: Model


def model_name(spec: str) -> str:
    """Return the name of a model in tables and in files."""
    return spec.replace(":", "-") if _FITTED.fullmatch(spec) else Path(spec).name


def check_model_names(specs: Sequence[str]) -> None:
    """Raise SettingsError where two models would have one name, or a file cannot be one."""
    names = [model_name(spec) for spec in specs]
    for spec, name in zip(specs, names, strict=True):
        if names.count(name) > 1:
            raise SettingsError(f"models: {name!r} is named more than once; rename a folder.")
        known = spec == "raw" or _FITTED.fullmatch(spec)
        if not known and not has_files(as_path(spec)):
            raise SettingsError(
                f"models: expected raw, pca:DIM, mse:DIM, snip:DIM or a model's folder, "
                f"got {spec!r}."
            )


def model_identity(spec: str) -> str:
    """Return what identifies a model: its spec, and a folder's tensors' digest."""
    known = spec == "raw" or _FITTED.fullmatch(spec)
    header = None if known else read_json(as_path(spec) / "model.json")
    digest = header.get("tensors_sha256") if isinstance(header, dict) else None
    return f"{spec} {str(digest)[:16]}" if digest else spec


def open_model(
    spec: str, dataset: Dataset, folder: AnyPath, *, modality: str, seed: int, device: str = "cpu"
) -> NamedModel:
    """Load a model, or fit it and keep it under ``folder``.

    Parameters
    ----------
    spec : str
        ``raw``, ``kind:dim``, or a folder.
    dataset : Dataset
        What a model is fitted on.
    folder : AnyPath
        Models that were fitted, one folder each; what is there already is loaded.
    modality : str
        ``image``, ``text`` or ``both``: what is fitted on.
    seed : int
    device : str
        Where a network is trained; models compute on the CPU.

    Raises
    ------
    InputError
        The model takes rows of another dimension, or its folder is damaged.
    SettingsError
        The spec is none, or asks for more dimensions than there are.
    """
    dim = dataset.dim
    if spec == "raw":
        return NamedModel("raw", _Raw(dim))
    fitted = _FITTED.fullmatch(spec)
    path = folder / model_name(spec) if fitted else as_path(spec)
    if fitted and not path.is_dir():
        logger.info("fitting %s", model_name(spec))
        save_model(
            fit_compressor(
                dataset, fitted[1], int(fitted[2]), modality=modality, seed=seed, device=device
            ),
            path,
        )
    model = load_model(path)
    if model.dim_in != dim:
        raise InputError(
            f"{path}: takes embeddings of dimension {model.dim_in}, but {dataset.path} has {dim}."
        )
    return NamedModel(model_name(spec), model)


def transform_rows(model: Model, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compress a block of stored rows.

    Parameters
    ----------
    stored : float16, float32 or float64 array, shape (n, dim_in)

    Returns
    -------
    rows : float32 array, shape (n, dim_out)
        Zero where the stored row is unusable.
    usable : bool array, shape (n,)
    """
    block = prepare_block(stored)
    usable = block.reason == 0
    rows = np.zeros((len(stored), model.dim_out), np.float32)
    if usable.any():
        rows[usable] = model.transform(block.units().numpy())
    return rows, usable


def write_rows(model: Model, parts: Sequence[Part], path: AnyPath) -> dict[str, float]:
    """Compress all rows into one file, and note which are usable in another beside it.

    Memory is that of a block; the file takes 4 bytes a value.

    Parameters
    ----------
    path : AnyPath
        Gets a float32 ``.npy`` of shape (rows, dim_out), row by ``row_id``; ``path`` with the
        suffix ``.usable.npy`` the ids of usable rows (int64).

    Returns
    -------
    dict
        "rows", "usable", and "seconds" inside the model, with one thread.
    """
    torch.set_num_threads(1)
    rows = parts[-1].row_stop
    usable_ids = []
    seconds = 0.0
    with write_aside(path) as temporary:
        written = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.float32, shape=(rows, model.dim_out)
        )
        for part in parts:
            for start in range(0, part.rows, _BLOCK_ROWS):
                stop = min(start + _BLOCK_ROWS, part.rows)
                stored = read_rows(part.embeddings, start, stop)
                began = time.perf_counter()
                small, usable = transform_rows(model, stored)
                seconds += time.perf_counter() - began
                written[part.row_start + start : part.row_start + stop] = small
                usable_ids.append(part.row_start + start + np.flatnonzero(usable))
        written.flush()
        del written
    ids = np.concatenate(usable_ids)
    with write_aside(path.with_suffix(".usable.npy")) as temporary, open(temporary, "wb") as file:
        np.save(file, ids)
    return {"rows": rows, "usable": len(ids), "seconds": seconds}
