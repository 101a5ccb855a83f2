"""Factory strings with fields to fill: one line of a configuration names many indexes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from dask_dedup.ivf.train_base import make_base

__all__ = ["choose_centroids", "fill_factories"]

logger = logging.getLogger(__name__)


def choose_centroids(rows: int, wanted: int = 0) -> int:
    """Return the number of lists: as wanted, or the power of two nearest to 4 √rows.

    The paper has 65,536 lists for 2.1e9 rows; smaller data sets need fewer.
    """
    return wanted or 2 ** max(0, round(np.log2(4 * np.sqrt(rows))))


def fill_factories(
    templates: Sequence[str], sub_quantizers: Sequence[int], centroids: int, dim: int
) -> list[str]:
    """Fill ``{M}`` and ``{C}`` in factory strings; each result once, in order.

    An M that does not divide the dimension is skipped, and logged.

    Raises
    ------
    SettingsError
        Faiss refuses one of the strings.

    Examples
    --------
    >>> fill_factories(["IVF{C},PQ{M}", "Flat"], (4, 8, 12), 64, 32)
    ['IVF64,PQ4', 'IVF64,PQ8', 'Flat']
    """
    filled: dict[str, None] = {}
    for template in templates:
        with_lists = template.replace("{C}", str(centroids))
        if "{M}" not in with_lists:
            filled[with_lists] = None
            continue
        for m in sub_quantizers:
            if dim % m:
                logger.info("%s: no M = %d, which does not divide %d", template, m, dim)
                continue
            filled[with_lists.replace("{M}", str(m))] = None
    for factory in filled:
        make_base(dim, factory)
    return list(filled)
