"""Where torch computes: on the CPU; on a GPU experimentally."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from dask_dedup.errors import CapacityError, SettingsError

__all__ = ["check_float32_products", "choose_device", "says_when_full"]

P = ParamSpec("P")
R = TypeVar("R")

# Beside torch's own error: what CUDA says where it, or a library of it, finds no memory.
_FULL = ("out of memory", "ALLOC_FAILED")


def choose_device(name: str) -> str:
    """Return ``cpu`` or ``cuda`` for ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    SettingsError
        torch sees no such device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise SettingsError(f"device: expected auto, cpu or cuda, got {name!r}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device: torch sees no CUDA device. Use auto or cpu.")
    return name


def check_float32_products(device: torch.device, largest_error: float) -> None:
    """Refuse a device that rounds the factors of float32 products, as TensorFloat-32 does.

    Parameters
    ----------
    device : torch.device
    largest_error : float
        That a product of two unit rows may have.

    Raises
    ------
    SettingsError
    """
    rows = torch.randn(256, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows /= torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    moved = rows.float().to(device)
    error = float((torch.mm(moved, moved.T).double().cpu() - torch.mm(rows, rows.T)).abs().max())
    if error > largest_error:
        raise SettingsError(
            f"device: products of float32 on {device} are wrong by up to {error:.0e}, expected at "
            f"most {largest_error:.0e}. TensorFloat-32 is switched on, perhaps by "
            f"NVIDIA_TF32_OVERRIDE or TORCH_ALLOW_TF32_CUBLAS_OVERRIDE: unset it, or use cpu."
        )


def says_when_full(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function raise CapacityError where a GPU's memory is full."""

    @wraps(function)
    def saying(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            full = isinstance(error, torch.cuda.OutOfMemoryError)
            if not full and not any(words in str(error) for words in _FULL):
                raise
            line = str(error).strip().splitlines()[0]
            raise CapacityError(
                f"device: the GPU's memory is full ({line}). All workers of a machine share its "
                f"GPU: start fewer with --workers, end what else computes there, or use cpu."
            ) from None

    return saying
