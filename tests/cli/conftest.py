"""A finished run for the commands that read one."""

import numpy as np
import pytest

import dask_dedup
from dask_dedup.runtime.executor import compute_tasks


@pytest.fixture(scope="session")
def out(tmp_path_factory, write_dataset):
    """A finished run over 300 rows, each of the last hundred a copy of one of the first."""
    folder = tmp_path_factory.mktemp("commands")
    rows = np.random.default_rng(0).normal(size=(200, 16)).astype("f4")
    data = write_dataset(folder / "data", np.split(np.concatenate([rows, rows[:100]]), [130]))
    dask_dedup.run(data, folder / "out", audit_queries=0, execute=compute_tasks)
    return folder / "out"
