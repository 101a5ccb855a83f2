"""Fixtures of the tests of what is read from a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest


@pytest.fixture(scope="session")
def destroy_other_columns() -> Callable[[str | Path, Sequence[str]], None]:
    """Return a function that overwrites all columns of a parquet file but some.

    Whoever reads one of the others gets no data, but an error.
    """

    def destroy(path: str | Path, kept: Sequence[str]) -> None:
        metadata = pq.read_metadata(path)
        with open(path, "r+b") as file:
            for group in map(metadata.row_group, range(metadata.num_row_groups)):
                for column in map(group.column, range(group.num_columns)):
                    if column.path_in_schema not in kept:
                        file.seek(column.dictionary_page_offset or column.data_page_offset)
                        file.write(b"\xff" * column.total_compressed_size)

    return destroy
