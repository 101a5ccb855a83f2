"""Black-box score: edges that a model draws whatever the seed (arXiv 2305.08694).

A prompt whose picture is memorised gives the same layout after a single denoising step, from any
seed. The score is the share of pixels that lie on an edge in more than half of the pictures. An
edge is where the length of the Sobel gradient of the grey picture is above 1.5; grey in [0, 1] is
the mean of the colours (ours: the weights are not published).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

__all__ = ["EDGE_LENGTH", "common_edges"]

EDGE_LENGTH = 1.5


def common_edges(pictures: np.ndarray, edge_length: float = EDGE_LENGTH) -> float:
    """Return the share of pixels on an edge in more than half of the pictures.

    Parameters
    ----------
    pictures : float array, shape (seeds, side, side, 3), in [0, 1]
        One picture of one denoising step for each seed, of one prompt.
    """
    if pictures.ndim != 4 or len(pictures) < 2:
        raise ValueError(f"expected pictures of two seeds or more, got shape {pictures.shape}.")
    grey = pictures.astype(np.float64).mean(axis=3)
    # Picture by picture: sobel smooths along every axis that it does not differentiate.
    lengths = [np.hypot(ndimage.sobel(each, 0), ndimage.sobel(each, 1)) for each in grey]
    count = (np.stack(lengths) > edge_length).sum(axis=0)
    return float((2 * count > len(pictures)).mean())
