"""Webster's verdicts: by hand on 2 x 2 pictures, masks beside loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest

from dask_dedup.verbatim.squared_errors import (
    Thresholds,
    judge_copy,
    squared_error,
    template_mask,
    template_masks,
)

_SMALL = Thresholds(
    matching=2.0,
    retrieved=3.0,
    template=1.0,
    template_nearest=0.5,
    template_furthest=9.0,
    erosion=0,
    dilation=0,
)


def _picture(*grey: float) -> np.ndarray:
    """Return a picture of 2 x 2 grey pixels."""
    return np.repeat(np.array(grey, np.float32).reshape(2, 2, 1), 3, axis=2)


def test_squared_error_by_hand() -> None:
    # three colours: 3 (0.5^2 + 1^2) = 3.75
    assert squared_error(_picture(0, 0, 0, 0), _picture(0.5, 1, 0, 0)) == 3.75


def test_squared_error_inside_a_mask_is_divided_by_its_share() -> None:
    mask = np.array([[True, False], [False, False]])
    # 3 x 0.25 inside, and the mask is a quarter of the picture
    assert squared_error(_picture(0, 0, 0, 0), _picture(0.5, 1, 0, 0), mask) == 3.0


def test_squared_error_inside_no_mask_is_infinite() -> None:
    nothing = np.zeros((2, 2), bool)
    assert squared_error(_picture(0, 0, 0, 0), _picture(0, 0, 0, 0), nothing) == np.inf


def test_squared_error_of_two_shapes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"of one shape are compared, got \(2, 2, 3\)"):
        squared_error(_picture(0, 0, 0, 0), np.zeros((3, 2, 3), np.float32))


def _moved(mask: np.ndarray, grow: bool) -> np.ndarray:
    """Erode or dilate once by a square of 3 x 3, pixel by pixel; outside is as ``not grow``."""
    height, width = mask.shape
    moved = np.empty_like(mask)
    for y in range(height):
        for x in range(width):
            near = [
                mask[v, u] if 0 <= v < height and 0 <= u < width else not grow
                for v in (y - 1, y, y + 1)
                for u in (x - 1, x, x + 1)
            ]
            moved[y, x] = any(near) if grow else all(near)
    return moved


def test_template_mask_equals_a_loop_over_pixels() -> None:
    rng = np.random.default_rng(3)
    left = rng.random((31, 29, 3), np.float32)
    right = left.copy()
    right[5:8, 7:19] += 0.2
    right[20, 20, 1] += 0.05
    right[12, 3, 2] += 0.02  # below 0.03: in common
    expected = np.abs(left.astype(np.float64) - right).sum(axis=2) < 0.03
    assert not expected[20, 20] and expected[12, 3]
    for _ in range(3):
        expected = _moved(expected, grow=False)
    for _ in range(6):
        expected = _moved(expected, grow=True)
    np.testing.assert_array_equal(template_mask(left, right), expected)


def test_template_masks_are_those_of_near_duplicates_of_a_middling_distance() -> None:
    own = _picture(0, 0, 0, 0)
    others = [
        _picture(0, 0, 0, 0.1),  # 0.03 apart: too near
        _picture(0, 0, 0, 1),  # 3 apart: three quarters in common
        _picture(1, 1, 1, 1),  # 12 apart: too far
        _picture(0.5, 0.5, 0.5, 0.5),  # 3 apart, nothing in common
    ]
    ((place, mask),) = template_masks(own, others, _SMALL)
    assert place == 1
    np.testing.assert_array_equal(mask, [[True, True], [True, False]])


def test_judge_copy_asks_for_the_template_first() -> None:
    own, other = _picture(0, 0, 0, 0), _picture(0, 0, 0, 1)
    masks = template_masks(own, [other], _SMALL)
    # equal to its own picture, and so to what both have in common
    assert judge_copy(own, own, [other], masks, _SMALL) == ("template", 0.0, 0, 1.0)
    assert judge_copy(own, own, [other], [], _SMALL) == ("matching", 0.0, -1, 2.0)


def test_judge_copy_in_the_template_only() -> None:
    own, other = _picture(0, 0, 0, 0), _picture(0, 0, 0, 1)
    masks = template_masks(own, [other], _SMALL)
    generated = _picture(0.25, 0, 0, 0.9)  # inside: 3 / 16, over three quarters: 0.25
    assert judge_copy(generated, own, [other], masks, _SMALL) == ("template", 0.25, 0, 1.0)


def test_judge_copy_retrieved_is_another_member() -> None:
    own, others = _picture(0, 0, 0, 0), [_picture(0, 1, 0, 1), _picture(1, 1, 1, 1)]
    generated = _picture(1, 1, 1, 0.5)  # 0.75 to the second, 6.75 to the first, 9.75 to its own
    assert judge_copy(generated, own, others, [], _SMALL) == ("retrieved", 0.75, 1, 3.0)


def test_judge_copy_none_tells_the_rule_that_it_came_nearest_to() -> None:
    own, others = _picture(0, 0, 0, 0), [_picture(1, 1, 1, 1)]
    generated = _picture(1, 1, 0, 0)  # 6 to both: 3 times 2, 2 times 3
    assert judge_copy(generated, own, others, [], _SMALL) == ("none", 6.0, 0, 3.0)


def test_judge_copy_a_threshold_is_not_below_itself() -> None:
    own = _picture(0, 0, 0, 0)
    generated = _picture(0.5, 0.5, 0.5, 0.5)  # 3 exactly
    at = Thresholds(matching=3.0)
    assert judge_copy(generated, own, [], [], at).kind == "none"
    above = Thresholds(matching=3.0 + 1e-9)
    assert judge_copy(generated, own, [], [], above).kind == "matching"


def test_thresholds_are_the_published_ones() -> None:
    # arXiv 2305.08694: sums of squares over 256 x 256 x 3
    published = Thresholds()
    assert (published.matching, published.retrieved, published.template) == (2500, 3000, 2500)
    assert (published.template_nearest, published.template_furthest) == (100, 1000)
    assert (published.mask_difference, published.erosion, published.dilation) == (0.03, 3, 6)
