"""How many targets are more similar to a query than its own: what zero-shot and retrieval count."""

from __future__ import annotations

import numpy as np

from dask_dedup.errors import InputError

__all__ = ["TIE", "rank_own_target", "share_within"]

#: Cosines that differ by no more than this are equal: sums in float64 in another order do.
TIE = 1e-9

_SCORES = 1 << 22  # cosines held at a time: 32 MB


def rank_own_target(
    queries: np.ndarray, targets: np.ndarray, own: np.ndarray, scores: int = _SCORES
) -> tuple[np.ndarray, np.ndarray]:
    """Rank each query's own target among all targets by cosine, in float64.

    Parameters
    ----------
    queries : float array, shape (n, dim)
        Of any length; a row that is zero, or holds NaN or infinity, is ranked last.
    targets : float array, shape (m, dim)
        Likewise; an unusable one is never more similar than another.
    own : integer array, shape (n,)
        Position of each query's own target.
    scores : int
        Cosines held at a time.

    Returns
    -------
    better : int64 array, shape (n,)
        Targets of strictly higher cosine than the own one: 0 where it comes first. m where the
        query or its own target is unusable.
    tied : int64 array, shape (n,)
        Other targets of the same cosine (to `TIE`).

    Raises
    ------
    InputError
        Shapes that do not fit, no queries, or a position outside the targets.
    """
    if queries.ndim != 2 or targets.ndim != 2 or queries.shape[1] != targets.shape[1]:
        raise InputError(
            f"expected two arrays of rows of one dimension, got shapes {queries.shape} and "
            f"{targets.shape}. Both sides must come from one space."
        )
    if not len(queries) or not len(targets):
        raise InputError(
            f"expected at least one query and one target, got {len(queries)} and {len(targets)}."
        )
    own = np.asarray(own)
    if own.shape != (len(queries),) or own.dtype.kind not in "iu":
        raise InputError(
            f"expected one integer for each of {len(queries)} queries, got {own.dtype} of shape "
            f"{own.shape}."
        )
    if own.min() < 0 or own.max() >= len(targets):
        raise InputError(
            f"expected positions from 0 to {len(targets) - 1}, got {own.min()} to {own.max()}."
        )
    unit_targets, good_target = _units(targets)
    better = np.full(len(queries), len(targets), np.int64)
    tied = np.zeros(len(queries), np.int64)
    step = max(1, scores // len(targets))
    for start in range(0, len(queries), step):
        unit, good = _units(queries[start : start + step])
        mine = own[start : start + step]
        cosine = unit @ unit_targets.T
        cosine[:, ~good_target] = -np.inf
        own_cosine = np.take_along_axis(cosine, mine[:, None], axis=1)
        good &= good_target[mine]
        higher = np.count_nonzero(cosine > own_cosine + TIE, axis=1)
        as_high = np.count_nonzero(cosine >= own_cosine - TIE, axis=1)
        better[start : start + step][good] = higher[good]
        tied[start : start + step][good] = (as_high - higher - 1)[good]
    return better, tied


def share_within(better: np.ndarray, tied: np.ndarray, k: int) -> np.ndarray:
    """Return the chance that a query's own target is among the first k, ties in random order.

    Parameters
    ----------
    better, tied : int64 arrays
        From `rank_own_target`; one of unusable rows, ranked last, has no ties.

    Returns
    -------
    float64 array
        0 or 1 where nothing is tied.
    """
    positions = tied + 1
    return np.clip(k - better, 0, positions) / positions


def _units(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows at unit length in float64, and which of them are usable; others are zero."""
    wide = rows.astype(np.float64)
    largest = np.abs(wide).max(axis=1, initial=0.0)  # NaN stays NaN
    good = np.isfinite(largest) & (largest > 0)
    wide[~good] = 0.0
    wide[good] /= largest[good, None]
    wide[good] /= np.linalg.norm(wide[good], axis=1, keepdims=True)
    return wide, good
