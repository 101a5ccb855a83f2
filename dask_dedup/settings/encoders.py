"""Encoders whose threshold for duplicates has a source, and what their embeddings look like."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ENCODERS", "Encoder"]


class Encoder(NamedTuple):
    """An encoder of images.

    Attributes
    ----------
    title : str
    threshold : float
        Cosine from which on two rows are duplicates.
    source : str
        Of the threshold.
    random_median : float or None
        Median cosine of random pairs of images; None where we know of no figure.
    random_source : str
        Of that.
    """

    title: str
    threshold: float
    source: str
    random_median: float | None
    random_source: str


#: By the name that ``--encoder`` takes; the first one's threshold is the default of every run.
ENCODERS = {
    "clip": Encoder(
        "CLIP",
        0.95,
        "Webster et al. 2023, arXiv 2303.12733: a pair is true above it",
        0.5,
        "photos by ViT-B/32",
    ),
    "sscd": Encoder(
        "SSCD disc_mixup",
        0.75,
        "its README: 90 % precision on DISC",
        0.09,
        "measured on clipart by a distilled SSCD",
    ),
    "isc": Encoder("ISC21 ft_v107", 0.604169, "DataComp", None, "no figure known"),
}
