"""Which device a model gets: of a machine without a GPU, and of several workers' GPUs."""

from __future__ import annotations

import pytest
import torch

from dask_dedup.errors import SettingsError
from dask_dedup.verbatim.model import Model
from dask_dedup.verbatim.model_device import count_gpus, on_own_gpu

_NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a CUDA device")


def test_model_for_the_processor_stays_there() -> None:
    assert count_gpus("cpu") == 0
    assert on_own_gpu(Model("m")).device == "cpu"


@_NO_GPU
def test_model_without_a_gpu() -> None:
    assert count_gpus("auto") == 0
    assert on_own_gpu(Model("m", device="auto")).device == "cpu"
    for refused in (lambda: count_gpus("cuda"), lambda: on_own_gpu(Model("m", device="cuda"))):
        with pytest.raises(SettingsError, match="torch sees no CUDA device"):
            refused()


@pytest.mark.parametrize(
    ("number", "count", "expected"), [(0, 1, "cuda:0"), (3, 4, "cuda:3"), (5, 4, "cuda:1")]
)
def test_workers_take_the_gpus_in_turn(number: int, count: int, expected: str) -> None:
    model = on_own_gpu(Model("m", device="cuda"), count, number)
    assert (model.name, model.device) == ("m", expected)


@pytest.mark.gpu
def test_model_with_a_gpu() -> None:
    assert count_gpus("cuda") == torch.cuda.device_count()
    assert on_own_gpu(Model("m", device="auto")).device == "cuda:0"
