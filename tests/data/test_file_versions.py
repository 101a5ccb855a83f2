"""What makes a data set another: its files, their times, and content that changes behind both."""

from __future__ import annotations

import os
import shutil
from functools import partial

import dask
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import dask_dedup
from dask_dedup import Dataset, InputError, Settings, read_dataset
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)


@pytest.fixture(autouse=True)
def synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


def test_fingerprint_stays_for_the_same_files_and_changes_with_any(dataset, arrays):
    same = read_dataset(dataset.path)
    assert same.fingerprint == dataset.fingerprint
    seen = {dataset.fingerprint}
    for part in (dataset.parts[0], dataset.parts[4]):
        for path in (part.embeddings.path, part.metadata_path):
            os.utime(path, ns=(1, 1))
            seen.add(read_dataset(dataset.path).fingerprint)
    assert len(seen) == 5


def test_fingerprint_does_not_depend_on_where_the_files_are(dataset, tmp_path):
    before = dataset.fingerprint
    shutil.move(dataset.path, tmp_path / "elsewhere")
    assert read_dataset(tmp_path / "elsewhere").fingerprint == before


def keep_times(path, change) -> None:
    """Change a file so that its size and time stay as they were."""
    before = os.stat(path)
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(path).st_size == before.st_size


def reverse_rows(path) -> None:
    np.save(path, np.load(path)[::-1])


def reverse_urls(path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.take(np.arange(len(table))[::-1]), path, compression="none")


def changing(tmp_path, write_dataset) -> Dataset:
    arrays = [np.random.default_rng(i).normal(size=(300, 24)).astype("f4") for i in range(3)]
    data = write_dataset(tmp_path / "changing", arrays)
    for path in data.glob("metadata/*"):  # written by the library that changes it
        pq.write_table(pq.read_table(path), path, compression="none")
    return read_dataset(data)


@pytest.mark.parametrize("kind", ["img_emb", "metadata"])
def test_content_that_changed_with_size_and_time_kept_is_noticed(tmp_path, write_dataset, kind):
    dataset = changing(tmp_path, write_dataset)
    before = dataset.fingerprint
    dataset.check_unchanged(content=True)
    path = sorted((tmp_path / "changing" / kind).iterdir())[1]
    keep_times(path, reverse_rows if kind == "img_emb" else reverse_urls)
    assert read_dataset(dataset.path).fingerprint != before
    dataset.check_unchanged()  # which asks for size and time only
    with pytest.raises(InputError, match=rf"{path.name}: changed while the run was reading"):
        dataset.check_unchanged(content=True)


def test_run_notices_content_that_changes_in_its_midst_with_size_and_time_kept(
    tmp_path, write_dataset, stage_notes
):
    data = changing(tmp_path, write_dataset).path
    victim = os.path.join(data, "img_emb", "img_emb_1.npy")

    settings = Settings.model_validate({"audit": {"queries": 0}})
    with pytest.raises(InputError, match=r"img_emb_1\.npy: changed while the run was reading"):
        run_here(
            data,
            tmp_path / "out",
            settings,
            progress=stage_notes(do={"join": lambda: keep_times(victim, reverse_rows)}),
        )
    assert not (tmp_path / "out" / "clusters").exists()
    assert not (tmp_path / "out" / "summary.json").exists()
    run_here(data, tmp_path / "out", settings)
    found = pd.read_parquet(tmp_path / "out" / "clusters")
    keep_times(victim, reverse_rows)
    assert len(found) == 900
    before = os.stat(tmp_path / "out" / "summary.json").st_mtime_ns
    run_here(data, tmp_path / "out", settings)  # no "nothing to do": the input is another one
    assert os.stat(tmp_path / "out" / "summary.json").st_mtime_ns != before
