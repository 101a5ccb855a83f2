import numpy as np
import pytest
import torch

from dask_dedup.vectors.unit import INVALID_REASONS, prepare_block


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_prepare_block_ordinary_rows_are_converted_and_measured(dtype):
    block = np.random.default_rng(0).normal(size=(5, 7)).astype(dtype)
    prepared = prepare_block(block)
    np.testing.assert_allclose(prepared.rows, block.astype("f4"))
    np.testing.assert_allclose(
        prepared.lengths, np.linalg.norm(block.astype("f8"), axis=1), rtol=1e-5
    )
    assert not prepared.reason.any()


def test_prepare_block_unusable_rows_are_zeroed_and_named():
    block = np.ones((5, 3), np.float32)
    block[1, 0] = np.nan
    block[2, 1] = -np.inf
    block[3] = 0
    before = block.copy()
    prepared = prepare_block(block)
    assert [INVALID_REASONS[code] for code in prepared.reason] == [
        "",
        "nan",
        "infinite",
        "zero",
        "",
    ]
    assert not prepared.rows[[1, 2, 3]].any()
    assert prepared.units().shape == (2, 3)
    np.testing.assert_array_equal(block, before)


@pytest.mark.parametrize(
    ("dtype", "scale"), [("f4", 1e-30), ("f4", 1e30), ("f8", 1e-200), ("f8", 1e200)]
)
def test_prepare_block_extreme_lengths_keep_their_direction(dtype, scale):
    direction = np.array([[3.0, -4.0, 12.0]])
    prepared = prepare_block((direction * scale).astype(dtype))
    assert prepared.reason[0] == 0
    np.testing.assert_allclose(prepared.units(), direction / 13, rtol=1e-6)


def test_prepare_block_fills_the_buffer_it_is_given():
    buffer = torch.empty(10, 4)
    block = np.arange(8, dtype=np.float16).reshape(2, 4)
    prepared = prepare_block(block, buffer)
    assert prepared.rows.data_ptr() == buffer.data_ptr()
    np.testing.assert_array_equal(prepared.rows, block.astype("f4"))
