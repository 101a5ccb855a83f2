"""Numbers as a person writes them: a count with its noun, a rate in three digits."""

from __future__ import annotations

import numpy as np

__all__ = ["cosine_text", "count_text", "data_text", "rate_text"]


def count_text(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count and its noun; ``plural`` where that is not the noun with an s.

    Examples
    --------
    >>> count_text(1, "part"), count_text(10_248, "row"), count_text(0, "query", "queries")
    ('1 part', '10,248 rows', '0 queries')
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def cosine_text(similarity: float) -> str:
    """Return a cosine, computed as float32, in four digits: never more than it is.

    Examples
    --------
    >>> [cosine_text(one) for one in (0.949998, np.float32(0.95), 0.99999, 1)]
    ['0.9499', '0.9500', '0.9999', '1.0000']
    """
    shortest = float(str(np.float32(similarity)))
    return f"{np.floor(shortest * 1e4 + 1e-6) / 1e4:.4f}"


def data_text(path: object, rows: int, parts: int, dim: int) -> str:
    """Return what a data set is, in one line.

    Examples
    --------
    >>> data_text("a", 1000, 1, 512)
    'a: 1,000 rows in 1 part, dimension 512'
    """
    return f"{path}: {count_text(rows, 'row')} in {count_text(parts, 'part')}, dimension {dim}"


def rate_text(rate: float) -> str:
    """Return rows per second in three digits.

    Examples
    --------
    >>> rate_text(4_764_188), rate_text(1672.4)
    ('4,760,000 rows/s', '1,670 rows/s')
    """
    return f"{float(f'{rate:.3g}'):,.0f} rows/s"
