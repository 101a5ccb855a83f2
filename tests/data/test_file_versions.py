"""What makes a data set another: its files, their times, and content that changes behind both."""

from __future__ import annotations

import os
import shutil
from functools import partial

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dask_dedup
from dask_dedup import Dataset, InputError, Settings, read_dataset
from dask_dedup.runtime.executor import NoProgress, compute_tasks
from dask_dedup.schema import STRING

run_here = partial(dask_dedup.run, execute=compute_tasks)

ROWS_OF_PARTS = [3, 0, 7, 2, 11]  # four partitions and an empty part


@pytest.fixture
def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    layouts = [("<f2", "C"), ("<f4", "C"), (">f8", "F"), (">f4", "C"), ("<f4", "F")]
    return [
        np.asarray(rng.normal(size=(rows, 5)), dtype, order)
        for rows, (dtype, order) in zip(ROWS_OF_PARTS, layouts, strict=True)
    ]


@pytest.fixture
def frames() -> list[pd.DataFrame]:
    numbers = np.arange(sum(ROWS_OF_PARTS))
    whole = pd.DataFrame(
        {
            "URL": [f"http://x/{n}.jpg" if n % 5 else None for n in numbers],
            "TEXT": [f"line {n}\nüber 🦆" if n % 3 else None for n in numbers],
            "NSFW": ["UNLIKELY"] * len(numbers),
            "width": pd.array(numbers * 7, "uint16[pyarrow]"),
            "row_id": [f"own {n}" for n in numbers],
            "tags": pd.array([[n, n + 1] for n in numbers], pd.ArrowDtype(pa.list_(pa.int64()))),
        }
    )
    stops = np.cumsum(ROWS_OF_PARTS)
    return [
        whole.iloc[stop - rows : stop].reset_index(drop=True)
        for stop, rows in zip(stops, ROWS_OF_PARTS, strict=True)
    ]


@pytest.fixture
def dataset(tmp_path, write_dataset, arrays, frames, no_compute) -> Dataset:
    folder = write_dataset(tmp_path / "data", arrays, frames)
    with no_compute():
        return read_dataset(folder)


@pytest.fixture
def expected(frames) -> pd.DataFrame:
    """What pandas makes of all parts."""
    whole = pd.concat(frames, ignore_index=True)
    whole.index = pd.Index(np.arange(len(whole)), name="row_id")
    names = {"URL": "url", "TEXT": "caption", "row_id": "source_row_id"}
    whole = whole.rename(columns=names)
    texts = ["url", "caption", "NSFW", "source_row_id"]
    return whole.astype(dict.fromkeys(texts, STRING))


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
    tmp_path, write_dataset
):
    data = changing(tmp_path, write_dataset).path
    victim = os.path.join(data, "img_emb", "img_emb_1.npy")

    class ChangeInJoin(NoProgress):
        def start(self, stage, rows):
            if stage == "join":
                keep_times(victim, reverse_rows)

    settings = Settings.model_validate({"audit": {"queries": 0}})
    with pytest.raises(InputError, match=r"img_emb_1\.npy: changed while the run was reading"):
        run_here(data, tmp_path / "out", settings, progress=ChangeInJoin())
    assert not (tmp_path / "out" / "clusters").exists()
    assert not (tmp_path / "out" / "summary.json").exists()
    run_here(data, tmp_path / "out", settings)
    found = pd.read_parquet(tmp_path / "out" / "clusters")
    keep_times(victim, reverse_rows)
    assert len(found) == 900
    before = os.stat(tmp_path / "out" / "summary.json").st_mtime_ns
    run_here(data, tmp_path / "out", settings)  # no "nothing to do": the input is another one
    assert os.stat(tmp_path / "out" / "summary.json").st_mtime_ns != before
