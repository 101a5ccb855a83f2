"""Which rows of a part stay, and of the others which row stays in their place."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from dask_dedup.errors import SettingsError

__all__ = ["CHOICES", "Kept", "kept_columns", "needed_columns", "select_rows"]

#: What may be asked for.
CHOICES = ("kept", "dropped", "all")


class Kept(NamedTuple):
    """For each row of a table of CLUSTERS.

    Attributes
    ----------
    is_kept : bool array
    witness_row_id : pyarrow.Array of int64
        The row that stays in place of a dropped one; null where the row itself stays.
    witness_similarity : pyarrow.Array of float32
        The cosine of the two.
    """

    is_kept: np.ndarray
    witness_row_id: pa.Array
    witness_similarity: pa.Array


_WITNESS = ("is_kept", "witness_row_id", "witness_similarity")
_COMPONENTS = ("is_representative", "cluster_id", "similarity_to_representative")


def needed_columns(names: Collection[str]) -> list[str]:
    """Return which of the columns of CLUSTERS `kept_columns` needs."""
    return list(_WITNESS if _WITNESS[0] in names else _COMPONENTS)


def kept_columns(table: pa.Table) -> Kept:
    """Return which rows stay, from the own columns of CLUSTERS.

    They are in the columns `is_kept`, `witness_row_id` and `witness_similarity`. Clusters of an
    earlier version have none of these: there the representatives stay, and the representative of a
    dropped row is its witness, whatever their similarity.
    """
    if _WITNESS[0] in table.column_names:
        kept, witness, similarity = (table[name].combine_chunks() for name in _WITNESS)
        return Kept(np.asarray(kept), witness, similarity)
    kept, witness, similarity = (table[name].combine_chunks() for name in _COMPONENTS)
    is_kept = np.asarray(kept)
    witness = pa.array(np.asarray(witness), mask=is_kept)
    similarity = pa.array(similarity.to_numpy(zero_copy_only=False), pa.float32(), mask=is_kept)
    return Kept(is_kept, witness, similarity)


def select_rows(is_kept: np.ndarray, what: str) -> np.ndarray:
    """Return the positions of the rows that are asked for: int64, sorted.

    Raises
    ------
    SettingsError
    """
    if what not in CHOICES:
        raise SettingsError(f"what: expected {', '.join(CHOICES)}, got {what!r}.")
    if what == "all":
        return np.arange(len(is_kept))
    return np.flatnonzero(is_kept if what == "kept" else ~is_kept)
