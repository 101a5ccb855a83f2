"""Which device computes, and what is asked of it."""

import pytest
import torch

from dask_dedup import CapacityError, SettingsError
from dask_dedup.vectors.device import check_float32_products, choose_device, says_when_full


def test_choose_device_auto_takes_a_gpu_if_there_is_one():
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == "cpu"


def test_check_float32_products_refuses_a_device_that_rounds():
    check_float32_products(torch.device("cpu"), 3e-6)
    with pytest.raises(SettingsError, match="expected at most 1e-10"):
        check_float32_products(torch.device("cpu"), 1e-10)


@pytest.mark.gpu
def test_check_float32_products_refuses_tensor_float_32():
    check_float32_products(torch.device("cuda"), 3e-6)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with pytest.raises(SettingsError, match="TensorFloat-32 is switched on"):
            check_float32_products(torch.device("cuda"), 3e-6)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_says_when_full_tells_what_to_do(error):
    @says_when_full
    def fill():
        raise error

    with pytest.raises(CapacityError, match=r"the GPU's memory is full \(CUDA .*--workers"):
        fill()


def test_says_when_full_leaves_other_errors_and_results_alone():
    @says_when_full
    def divide(number, by=1.0):
        if by < 0:
            raise RuntimeError("the sign")
        return number / by

    assert divide(3, by=2) == 1.5
    with pytest.raises(ZeroDivisionError):
        divide(1, by=0)
    with pytest.raises(RuntimeError, match=r"^the sign$"):
        divide(1, by=-1)


@pytest.mark.gpu
def test_says_when_full_on_a_gpu():
    @says_when_full
    def fill():
        return torch.empty(1 << 50, dtype=torch.uint8, device="cuda")

    with pytest.raises(CapacityError, match="the GPU's memory is full"):
        fill()
