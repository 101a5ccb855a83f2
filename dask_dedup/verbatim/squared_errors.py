"""Verbatim copies by sums of squared differences, as in arXiv 2305.08694.

All pictures are 256 x 256 x 3 in [0, 1]; an *error* is the sum of squared differences over all
their values. A generated picture is, in this order:

1. *template verbatim*, if its error inside a mask, divided by the share of the picture that the
   mask covers, is below 2,500. A mask is what two near-duplicates among the training pictures
   have in common (`template_mask`);
2. *matching verbatim*, if its error to the picture whose caption was the prompt is below 2,500;
3. *retrieved verbatim*, if its error to any near-duplicate of that picture is below 3,000;
4. none of these.

The thresholds, and those of the mask, are the published ones. Ours: the elements of erosion and
dilation, squares of 3 x 3, since only their number is published; and that a mask which covers
less than `Thresholds.smallest_mask` of the picture decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import ndimage

__all__ = [
    "Thresholds",
    "Verdict",
    "judge_copy",
    "squared_error",
    "template_mask",
    "template_masks",
]

Kind = Literal["template", "matching", "retrieved", "none"]

_SQUARE = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Thresholds:
    """What is called a verbatim copy.

    Attributes
    ----------
    matching, retrieved, template : float
        Errors below these are copies. 2,500, 3,000 and 2,500: published.
    template_nearest, template_furthest : float
        Two near-duplicates whose error lies between these give a mask. 100 and 1,000: published.
    mask_difference : float
        A pixel belongs to the mask if its difference, summed over the colours, is below this.
        0.03: published.
    erosion, dilation : int
        Times. 3 and 6: published.
    smallest_mask : float
        Share of the picture that a mask covers at least. 0.1: ours.
    """

    matching: float = 2500.0
    retrieved: float = 3000.0
    template: float = 2500.0
    template_nearest: float = 100.0
    template_furthest: float = 1000.0
    mask_difference: float = 0.03
    erosion: int = 3
    dilation: int = 6
    smallest_mask: float = 0.1


class Verdict(NamedTuple):
    """What a generated picture was called, and what decided.

    ``kind``: template, matching, retrieved or none. ``score``: the error that decided, and the
    ``threshold`` that it was compared with; of none those of the rule that it came nearest to.
    ``other``: position among the near-duplicates of the one that decided (of a template: that gave
    the mask), -1 for the prompt's own picture.
    """

    kind: Kind
    score: float
    other: int
    threshold: float = np.inf


def squared_error(left: np.ndarray, right: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Return the sum of squared differences of two pictures, in float64.

    Parameters
    ----------
    left, right : float arrays of one shape (height, width, 3)
    mask : bool array, shape (height, width), optional
        Counts only these pixels, and divides by their share of all: infinite where there is none.
    """
    if left.shape != right.shape:
        raise ValueError(
            f"two pictures of one shape are compared, got {left.shape}, {right.shape}."
        )
    difference = left.astype(np.float64) - right
    if mask is None:
        return float(np.einsum("ijk,ijk->", difference, difference))
    share = mask.mean()
    inside = difference[mask]
    return float(np.einsum("ij,ij->", inside, inside) / share) if share else np.inf


def template_mask(
    left: np.ndarray, right: np.ndarray, thresholds: Thresholds | None = None
) -> np.ndarray:
    """Return what two near-duplicates have in common: bool, shape (height, width).

    Pixels whose difference summed over the colours is below `Thresholds.mask_difference`, eroded,
    then dilated. Outside the picture counts as not in common for neither: the border is not eroded.
    """
    chosen = thresholds or Thresholds()
    common = np.abs(left.astype(np.float64) - right).sum(axis=2) < chosen.mask_difference
    if chosen.erosion:  # scipy takes 0 for "until nothing changes"
        common = ndimage.binary_erosion(common, _SQUARE, chosen.erosion, border_value=1)
    if chosen.dilation:
        common = ndimage.binary_dilation(common, _SQUARE, chosen.dilation)
    return common


def template_masks(
    own: np.ndarray, others: Sequence[np.ndarray], thresholds: Thresholds | None = None
) -> list[tuple[int, np.ndarray]]:
    """Return the masks that a training picture and its near-duplicates give.

    Returns
    -------
    list of (int, bool array)
        The position among ``others``, and the mask of it and ``own``: of those near-duplicates
        whose error to ``own`` lies between the two thresholds, and whose mask is not too small.
    """
    chosen = thresholds or Thresholds()
    masks = []
    for place, other in enumerate(others):
        if chosen.template_nearest < squared_error(own, other) < chosen.template_furthest:
            mask = template_mask(own, other, chosen)
            if mask.mean() >= chosen.smallest_mask:
                masks.append((place, mask))
    return masks


def judge_copy(
    generated: np.ndarray,
    own: np.ndarray,
    others: Sequence[np.ndarray],
    masks: Sequence[tuple[int, np.ndarray]],
    thresholds: Thresholds | None = None,
) -> Verdict:
    """Say whether a generated picture is a verbatim copy, and of which kind.

    Parameters
    ----------
    generated : float array, shape (256, 256, 3), in [0, 1]
    own : the same
        The training picture whose caption was the prompt.
    others : sequence of the same
        Its near-duplicates in the training data.
    masks : sequence of (int, bool array)
        `template_masks` of these.
    """
    chosen = thresholds or Thresholds()
    templates = [
        Verdict("template", squared_error(generated, own, mask), place) for place, mask in masks
    ]
    matching = Verdict("matching", squared_error(generated, own), -1)
    retrieved = [
        Verdict("retrieved", squared_error(generated, other), place)
        for place, other in enumerate(others)
    ]
    nearest = Verdict("none", np.inf, -1, 1.0)
    for verdicts, threshold in (
        (templates, chosen.template),
        ([matching], chosen.matching),
        (retrieved, chosen.retrieved),
    ):
        if not verdicts:
            continue
        best = min(verdicts, key=lambda verdict: verdict.score)
        if best.score < threshold:
            return best._replace(threshold=threshold)
        if best.score / threshold < nearest.score / nearest.threshold:
            nearest = Verdict("none", best.score, best.other, threshold)
    return nearest
