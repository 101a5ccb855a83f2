"""Which rows stay: from the columns that say so, or from the representatives."""

import numpy as np
import pyarrow as pa
import pytest

from dask_dedup.errors import SettingsError
from dask_dedup.results.kept_rows import kept_columns, needed_columns, select_rows

COMPONENTS = {
    "cluster_id": pa.array([0, 0, 2, 0]),
    "is_representative": pa.array([True, False, True, False]),
    "similarity_to_representative": pa.array([1, 0.96, None, 0.5], pa.float32()),
}


def test_kept_columns_of_witnesses_are_taken_as_they_are():
    table = pa.table(
        {
            **COMPONENTS,
            "is_kept": pa.array([True, False, True, True]),
            "witness_row_id": pa.array([None, 3, None, None], pa.int64()),
            "witness_similarity": pa.array([None, 0.97, None, None], pa.float32()),
        }
    )
    kept = kept_columns(table.select(needed_columns(table.column_names)))
    assert kept.is_kept.tolist() == [True, False, True, True]
    assert kept.witness_row_id.to_pylist() == [None, 3, None, None]
    assert kept.witness_similarity.equals(table["witness_similarity"].combine_chunks())


def test_kept_columns_without_witnesses_are_those_of_the_representatives():
    table = pa.table(COMPONENTS)
    kept = kept_columns(table.select(needed_columns(table.column_names)))
    assert kept.is_kept.tolist() == [True, False, True, False]
    assert kept.witness_row_id.to_pylist() == [None, 0, None, 0]
    assert kept.witness_similarity.to_pylist() == [None, np.float32(0.96), None, 0.5]
    assert kept.witness_similarity.type == pa.float32()


def test_select_rows_by_what_is_wanted():
    is_kept = np.array([True, False, True])
    assert select_rows(is_kept, "kept").tolist() == [0, 2]
    assert select_rows(is_kept, "dropped").tolist() == [1]
    assert select_rows(is_kept, "all").tolist() == [0, 1, 2]
    with pytest.raises(SettingsError, match="what: expected kept, dropped, all, got 'None'"):
        select_rows(is_kept, "None")
