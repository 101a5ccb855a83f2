"""Which GPU a worker's model is on: one model a worker, one worker a GPU."""

from __future__ import annotations

from dataclasses import replace

from dask_dedup.runtime.gpus import worker_number
from dask_dedup.verbatim.model import Model

__all__ = ["count_gpus", "on_own_gpu"]


def count_gpus(device: str) -> int:
    """Return how many GPUs of this machine may be used: none with ``cpu``.

    Raises
    ------
    SettingsError
        The device is ``cuda``, and torch sees none.
    """
    if device == "cpu":  # without the import of torch
        return 0
    import torch

    from dask_dedup.vectors.device import choose_device

    return torch.cuda.device_count() if choose_device(device) == "cuda" else 0


def on_own_gpu(model: Model, count: int | None = None, number: int | None = None) -> Model:
    """Return a model with the device of the worker that this is called in.

    Workers that this command has started are numbered, and take the GPUs in turn. One that was
    started otherwise takes the first that it sees.

    Parameters
    ----------
    model : Model
    count : int, optional
        GPUs of this machine; by default, those that torch sees.
    number : int, optional
        Of the worker; by default, of that which this is called in.
    """
    count = count_gpus(model.device) if count is None else count
    if not count:
        return replace(model, device="cpu")
    number = worker_number() if number is None else number
    return replace(model, device=f"cuda:{number % count}")
