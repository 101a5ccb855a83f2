"""Zero-shot classification: the class whose text embedding is nearest to the image's."""

from __future__ import annotations

import numpy as np

from dask_dedup.evaluate.ranks import rank_own_target, share_within

__all__ = ["zeroshot_accuracy"]


def zeroshot_accuracy(
    images: np.ndarray, classes: np.ndarray, labels: np.ndarray
) -> dict[str, float | int]:
    """Classify images by the nearest class text (cosine), as CLIP does.

    A row counts at k when fewer than k classes are strictly more similar than its own: ties count
    in its favour, "tied" says how many rows that concerns, and "split1" and "split5" are top-1 and
    top-5 with ties in random order (the expectation). A row without a usable embedding counts as
    wrong.

    Parameters
    ----------
    images : float array, shape (n, dim)
    classes : float array, shape (c, dim)
        One embedding for each class, in the images' space.
    labels : integer array, shape (n,)
        Position of each image's class in ``classes``.

    Returns
    -------
    dict
        "rows"; "classes", those with rows; "top1" and "top5", shares of rows, 0 to 1; "split1" and
        "split5"; "mean_top1" and "mean_top5", the means over the classes with rows of each class's
        share;
        "tied", the share of rows of which another class is exactly as similar as the own.

    Raises
    ------
    InputError
        Shapes that do not fit, no rows, or a label without a class.

    Examples
    --------
    >>> images = np.array([[1.0, 0.1], [0.1, 1.0], [1.0, 0.2]])
    >>> result = zeroshot_accuracy(images, np.eye(2), np.array([0, 1, 1]))
    >>> round(result["top1"], 3), result["mean_top1"]
    (0.667, 0.75)
    """
    better, tied = rank_own_target(images, classes, labels)
    present, position = np.unique(labels, return_inverse=True)
    rows = np.bincount(position)
    measures: dict[str, float | int] = {"rows": len(better), "classes": len(present)}
    for k in (1, 5):
        # Where there are k classes or fewer, what was ranked last for want of values is wrong too.
        within = min(k, len(classes))
        right = better < within
        measures[f"split{k}"] = float(share_within(better, tied, within).mean())
        measures[f"top{k}"] = float(right.mean())
        measures[f"mean_top{k}"] = float((np.bincount(position, right) / rows).mean())
    measures["tied"] = float((tied > 0).mean())
    return measures
