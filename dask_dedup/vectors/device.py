"""Where torch computes: on the CPU; on a GPU experimentally, as none has run it yet."""

from __future__ import annotations

import torch

from dask_dedup.errors import SettingsError

__all__ = ["choose_device"]


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
