"""What embeddings look like: cosines of random pairs, and what they say of a threshold.

A threshold belongs to an encoder. Which one the embeddings are of is not written in them, but the
cosines of random pairs differ: see `dask_dedup.settings.encoders`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dask_dedup.settings.encoders import ENCODERS
from dask_dedup.settings.run_settings import Settings

__all__ = ["MOST_ROWS", "Remark", "measure_similarities", "remark_on"]

MOST_ROWS = 1000  # compared with each other
#: Ours: medians of random pairs that differ by less are taken for the same encoder's.
_ALIKE = 0.2


class Remark(NamedTuple):
    """A line about the embeddings; ``is_warning`` where the threshold is in doubt."""

    text: str
    is_warning: bool


def measure_similarities(rows: np.ndarray) -> dict[str, Any] | None:
    """Measure the cosines of a sample of rows with each other.

    Parameters
    ----------
    rows : float array, shape (n, dim)
        A random sample, with usable values; its first 1,000.

    Returns
    -------
    dict or None
        ``rows`` compared; ``random_median`` and ``random_99``, percentiles 50 and 99 of the cosines
        of all pairs of them; ``nearest_median``, the median over the rows of the cosine to the
        nearest of the others. JSON. None of fewer than two rows.
    """
    rows = rows[:MOST_ROWS].astype(np.float64)
    if len(rows) < 2:
        return None
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = (unit @ unit.T).clip(-1, 1)
    median, high = np.percentile(cosines[np.triu_indices(len(rows), 1)], [50, 99])
    np.fill_diagonal(cosines, -1)
    return {
        "rows": len(rows),
        "random_median": round(float(median), 4),
        "random_99": round(float(high), 4),
        "nearest_median": round(float(np.median(cosines.max(axis=1))), 4),
    }


def remark_on(measured: dict[str, Any], settings: Settings) -> Remark:
    """Say what embeddings look like, and what that means for the threshold.

    Parameters
    ----------
    measured : dict
        From `measure_similarities`.
    settings : Settings
        Encoder, modality and threshold.
    """
    threshold, median = settings.clusters.threshold, measured["random_median"]
    looks = f"random pairs have a median cosine of {median:.2f}"
    if measured["random_99"] >= threshold:
        return Remark(
            f"{looks}, and more than one in a hundred is above the threshold {threshold:g}, which "
            f"is too low for these embeddings",
            True,
        )
    if settings.encoder is not None:
        return _compare(looks, median, settings)
    if settings.read.modality != "image":
        return Remark(f"{looks}; no threshold for embeddings of texts has a source", False)
    near = [
        (abs(median - one.random_median), name)
        for name, one in ENCODERS.items()
        if one.random_median is not None and abs(median - one.random_median) < _ALIKE
    ]
    if not near:
        known = ", ".join(
            f"{name} {one.random_median:g}" for name, one in ENCODERS.items() if one.random_median
        )
        return Remark(
            f"{looks}, unlike those of the encoders we know ({known}): look at pairs near "
            f"{threshold:g} (`dask-dedup sample`)",
            threshold == ENCODERS["clip"].threshold,
        )
    name = min(near)[1]
    own = ENCODERS[name]
    text = f"{looks}, as of {own.title}, whose threshold is {own.threshold:g}"
    if threshold - own.threshold > 0.05:
        text += f"; {threshold:g} may leave edited copies apart"
    elif own.threshold - threshold > 0.05:
        text += f"; {threshold:g} may unite what only looks alike"
    return Remark(text, False)


def _compare(looks: str, median: float, settings: Settings) -> Remark:
    """Compare embeddings with those of the encoder that is named."""
    assert settings.encoder is not None
    own = ENCODERS[settings.encoder]
    if own.random_median is None or settings.read.modality != "image":
        return Remark(f"{looks}; we know no such figures of {own.title} to compare", False)
    expected = f"those of {own.title} have {own.random_median:g} ({own.random_source})"
    if abs(median - own.random_median) < _ALIKE:
        return Remark(f"{looks}; {expected}", False)
    return Remark(
        f"{looks}, and {expected}: are they of another encoder? The threshold "
        f"{settings.clusters.threshold:g} is in doubt then",
        True,
    )
