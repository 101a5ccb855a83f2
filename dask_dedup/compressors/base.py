"""One interface for every compressor, and its files: plain tensors and a JSON header.

A model is a folder of two files. ``model.safetensors`` holds tensors, which are data and never
code; ``model.json`` says what they are, and the SHA-256 of the tensors' file, so that neither a
damaged file nor one of another model is taken for this one's.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from dask_dedup.errors import InputError, OutputError
from dask_dedup.paths import AnyPath, as_path, is_remote, words_of
from dask_dedup.storage.files import read_json, write_aside, write_json
from dask_dedup.storage.listing import has_files, list_files
from dask_dedup.storage.objects import exists, read_content, remove_tree
from dask_dedup.vectors.device import choose_device

__all__ = [
    "ByHeader",
    "Compressor",
    "ModelHeader",
    "check_model_path",
    "check_rows",
    "check_tensors",
    "digest_tensors",
    "find_model",
    "load_model",
    "model_digest",
    "save_model",
]

_FORMAT = "dask_dedup.compressor"
_FORMAT_VERSION = 1
_HEADER, _TENSORS = "model.json", "model.safetensors"
_CLASSES = {
    "pca": ("dask_dedup.compressors.pca_compressor", "PcaCompressor"),
    "mse": ("dask_dedup.compressors.network", "NetworkCompressor"),
    "snip": ("dask_dedup.compressors.network", "NetworkCompressor"),
}


class ModelHeader(BaseModel):
    """What a model's header says of it.

    Attributes
    ----------
    kind : str
        ``pca``, ``mse`` or ``snip``.
    dim_in, dim_out : int
        Dimension of the raw and of the compressed rows.
    modality : str
        ``image``, ``text`` or ``both``: what it was fitted on and is meant for.
    seed : int
    settings : dict
        Those of `NetworkSettings` it was fitted with.
    statistics : dict
        Of the fit: rows, losses, variance; ``curve`` is the learning curve, one dict an epoch.
    data : dict
        Path, rows and fingerprint of the data set it was fitted on.
    versions : dict
        Of this package, torch and numpy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["pca", "mse", "snip"]
    dim_in: int = Field(ge=1)
    dim_out: int = Field(ge=1)
    modality: Literal["image", "text", "both"]
    seed: int
    settings: dict[str, Any]
    statistics: dict[str, Any]
    data: dict[str, Any]
    versions: dict[str, str]


@runtime_checkable
class Compressor(Protocol):
    """A fitted compressor of any kind."""

    @property
    def header(self) -> ModelHeader:
        """What the header says."""

    @property
    def kind(self) -> str:
        """``pca``, ``mse`` or ``snip``."""

    @property
    def dim_in(self) -> int:
        """Dimension of the rows that it takes."""

    @property
    def dim_out(self) -> int:
        """Dimension of the rows that it gives."""

    def transform(self, rows: np.ndarray) -> np.ndarray:
        """Compress rows of any length.

        Parameters
        ----------
        rows : float16, float32 or float64 array, shape (n, dim_in)

        Returns
        -------
        float32 array, shape (n, dim_out)
            At unit length, so that squared L2 is 2 − 2 cosine; zero where the row is unusable:
            NaN, infinite or zero.
        """

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the tensors of the model's file."""


class ByHeader:
    """What every compressor knows from the ``header`` that it holds."""

    header: ModelHeader

    @property
    def kind(self) -> str:
        """``pca``, ``mse`` or ``snip``."""
        return self.header.kind

    @property
    def dim_in(self) -> int:
        """Dimension of the rows that it takes."""
        return self.header.dim_in

    @property
    def dim_out(self) -> int:
        """Dimension of the rows that it gives."""
        return self.header.dim_out


def check_model_path(path: AnyPath, overwrite: bool) -> None:
    """Raise OutputError where `save_model` would: call it before the work, not after.

    With ``overwrite`` an earlier model may be there, but nothing else.
    """
    if not exists(path):
        return
    if not overwrite:
        raise OutputError(f"{path}: exists. Choose another name, or replace it with --overwrite.")
    header = read_json(path / _HEADER) if has_files(path) else None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise OutputError(f"{path}: is no model of this tool; it is not overwritten.")


def save_model(model: Compressor, path: AnyPath | str, *, overwrite: bool = False) -> None:
    """Write a model's folder, complete or not at all.

    Raises
    ------
    OutputError
        The folder exists and ``overwrite`` is false, or it is something else; or it cannot be
        written.
    """
    path = as_path(path)
    check_model_path(path, overwrite)
    tensors = _pack(model)
    header = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        **model.header.model_dump(),
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
    }
    if is_remote(path):  # the header last: without it there is no model
        remove_tree(path)
        with write_aside(path / _TENSORS) as temporary:
            temporary.write_bytes(tensors)
        write_json(path / _HEADER, header)
        return
    aside, old = (path.parent / f".unfinished-{uuid.uuid4().hex[:12]}" for _ in range(2))
    try:
        aside.mkdir(parents=True)
        (aside / _TENSORS).write_bytes(tensors)
        write_json(aside / _HEADER, header, sealed=False)  # has a digest of its own
        if path.exists():
            path.rename(old)
        aside.rename(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def digest_tensors(model: Compressor) -> str:
    """SHA-256 of a model's tensors as its file has them."""
    return hashlib.sha256(_pack(model)).hexdigest()


def model_digest(path: str) -> str:
    """Hex digest of a model's files, by content.

    Raises
    ------
    InputError
        There is none.
    """
    digest = hashlib.sha256()
    folder = as_path(path)
    names = list_files(folder)
    for file in [folder] if names is None else [folder / name for name in sorted(names)]:
        try:
            digest.update(file.name.encode() + read_content(file))
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file or folder; expected a compressor.") from error
    return digest.hexdigest()[:16]


def _pack(model: Compressor) -> bytes:
    return save_tensors({name: np.ascontiguousarray(a) for name, a in model.tensors().items()})


def load_model(path: AnyPath | str, *, device: str = "cpu") -> Compressor:
    """Read a model that `save_model` wrote.

    Parameters
    ----------
    path : path
        The model's folder.
    device : str
        Where `transform` computes: ``cpu``, or, experimental, ``cuda`` or ``auto``.

    Raises
    ------
    SettingsError
        torch sees no such device.
    InputError
        The folder is missing, damaged, of another format, or its parts do not fit together.
    """
    path = as_path(path)
    header, digest = _read_header(path / _HEADER)
    where = path / _TENSORS
    try:
        content = read_content(where)
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({words_of(error)}).") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(
            f"{where}: damaged, or of another model: its SHA-256 is not the one that "
            f"{_HEADER} names. Copy both files again, or fit the model again."
        )
    try:
        tensors = load_tensors(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where}: not a safetensors file ({error}).") from error
    module, name = _CLASSES[header.kind]
    return getattr(import_module(module), name).from_tensors(
        header, tensors, str(where), choose_device(device)
    )


def check_tensors(
    tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], where: str
) -> None:
    """Raise InputError unless the tensors are those of a model: names, shapes, finite values."""
    if set(tensors) != set(shapes):
        raise InputError(
            f"{where}: expected the tensors {', '.join(sorted(shapes))}, "
            f"got {', '.join(sorted(tensors)) or 'none'}."
        )
    for name, shape in shapes.items():
        found = tensors[name]
        if found.shape != shape or found.dtype != np.float32:
            raise InputError(
                f"{where}: expected {name} to be float32 of shape {shape}, "
                f"got {found.dtype} of shape {found.shape}."
            )
        if not np.isfinite(found).all():
            raise InputError(f"{where}: {name} holds values that are NaN or infinite.")


def check_rows(rows: np.ndarray, header: ModelHeader) -> None:
    """Raise InputError unless rows are what a model takes."""
    if rows.ndim != 2 or rows.shape[1] != header.dim_in or rows.dtype.kind != "f":
        raise InputError(
            f"expected rows of floating point, shape (n, {header.dim_in}), which is what the "
            f"{header.kind} model was fitted on; got {rows.dtype} of shape {rows.shape}."
        )


def find_model(path: AnyPath | str) -> AnyPath:
    """Return the file with a model's tensors.

    Raises
    ------
    InputError
        There is none.
    """
    folder = as_path(path)
    for name in (_HEADER, _TENSORS):
        if name not in (list_files(folder) or ()):
            raise InputError(
                f"{folder / name}: no such file. A model is a folder with {_HEADER} and "
                f"{_TENSORS}, as `dask-dedup fit-compressor` writes it."
            )
    return folder / _TENSORS


def _read_header(path: AnyPath) -> tuple[ModelHeader, str]:
    find_model(path.parent)
    header = read_json(path)
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise InputError(f"{path}: not the header of a compressor (JSON, format {_FORMAT}).")
    content = dict(header)
    content.pop("format")
    version = content.pop("format_version", None)
    if version != _FORMAT_VERSION:
        raise InputError(
            f"{path}: format version {version}; this release reads version {_FORMAT_VERSION}."
        )
    digest = content.pop("tensors_sha256", None)
    try:
        return ModelHeader.model_validate(content), str(digest)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise InputError(f"{path}: damaged header ({problems}).") from error
