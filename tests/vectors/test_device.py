"""Which device computes, and what is asked of it."""

import pytest
import torch

from dask_dedup import SettingsError
from dask_dedup.vectors.device import check_float32_products, choose_device


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
