"""Copy-detection encoders of the user's own: a TorchScript or an ONNX file, or a callable.

Two pictures are copies where the cosine of their descriptors is at least a threshold: 0.75 for
SSCD's ``disc_mixup`` models, where its README tells a precision of 90 % on DISC. Pictures are
prepared as SSCD's are: a side of 288 pixels, and the mean and deviation of ImageNet (that the
middle of the picture is cut out is ours).

A TorchScript file holds a network in PyTorch's own small language, which its interpreter runs; no
Python of it is run, and nothing is unpickled by Python.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from dask_dedup.errors import InputError, SettingsError

__all__ = ["COPY_COSINE", "ENCODER_SIDE", "Encode", "encode_pictures", "load_encoder"]

COPY_COSINE = 0.75
ENCODER_SIDE = 288

#: Takes float32 pictures, shape (n, 3, side, side), normalised; returns descriptors, (n, dim).
Encode = Callable[[np.ndarray], np.ndarray]

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
_BATCH = 32


def encode_pictures(pictures: np.ndarray, encode: Encode) -> np.ndarray:
    """Return the descriptors of pictures, of length 1.

    Parameters
    ----------
    pictures : float array, shape (n, side, side, 3), in [0, 1]
    encode : callable

    Returns
    -------
    float32 array, shape (n, dim)

    Raises
    ------
    InputError
        The encoder fails, or gives something else than a finite row for each picture.
    """
    rows = []
    for start in range(0, len(pictures), _BATCH):
        some = (pictures[start : start + _BATCH] - _MEAN) / _DEVIATION
        given = np.ascontiguousarray(some.transpose(0, 3, 1, 2), np.float32)
        try:
            found = np.asarray(encode(given), np.float32)
        except Exception as error:  # of a stranger's network
            line = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(
                f"the encoder fails on pictures of {given.shape}: {line[-1]}"
            ) from error
        if found.ndim != 2 or len(found) != len(given) or not np.isfinite(found).all():
            raise InputError(
                f"the encoder gives {found.dtype} of shape {found.shape} for {len(given)} "
                f"pictures; expected a finite row of numbers for each."
            )
        rows.append(found)
    found = np.concatenate(rows)
    lengths = np.linalg.norm(found.astype(np.float64), axis=1, keepdims=True)
    return (found / np.maximum(lengths, 1e-12)).astype(np.float32)


@lru_cache(maxsize=1)
def load_encoder(path: str) -> Encode:
    """Load an encoder from a file; a process keeps the last one.

    Raises
    ------
    InputError
        It cannot be loaded.
    SettingsError
        onnxruntime is not installed, or the file's ending is none of ``.onnx``, ``.pt``, ``.ts``,
        ``.torchscript``.
    """
    ending = Path(path).suffix.lower()
    if ending == ".onnx":
        return _load_onnx(path)
    if ending in (".pt", ".ts", ".torchscript", ".pth"):
        return _load_torchscript(path)
    raise SettingsError(
        f"{path}: expected a TorchScript file (.pt, .ts, .torchscript) or an ONNX file (.onnx)."
    )


def _load_torchscript(path: str) -> Encode:
    import torch

    try:
        with warnings.catch_warnings():
            # torch asks whoever makes such files for another format; those that are there stay.
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(path, map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path}: is no TorchScript file that can be loaded.") from error

    def encode(pictures: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(pictures)))

    return encode


def _threads() -> int:
    """Return the threads that this worker may use; 0: not said."""
    words = os.environ.get("OMP_NUM_THREADS", "")
    return int(words) if words.isdecimal() else 0


def _load_onnx(path: str) -> Encode:
    try:
        import onnxruntime
    except ImportError as error:
        raise SettingsError(
            f"{path}: ONNX files need onnxruntime: pip install onnxruntime"
        ) from error
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _threads()  # by itself it takes all cores
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of its own kinds
        raise InputError(f"{path}: is no ONNX file that can be loaded.") from error
    given = session.get_inputs()[0]
    size = given.shape[0] if given.shape else None
    batch = size if isinstance(size, int) else _BATCH  # many files take one picture at a time

    def encode(pictures: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(pictures), batch):
            some = pictures[start : start + batch]
            rest = np.zeros(
                (batch - len(some) if batch == size else 0, *some.shape[1:]), some.dtype
            )
            found.append(session.run(None, {given.name: np.concatenate([some, rest])})[0])
            found[-1] = found[-1][: len(some)]
        return np.concatenate(found)

    return encode
