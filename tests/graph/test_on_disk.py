from itertools import pairwise

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from dask_dedup import (
    CapacityError,
    OutputError,
    SettingsError,
    join_clusters,
    label_components,
    read_dataset,
    read_forest,
    write_forest,
    write_labels,
)
from dask_dedup.graph.forest import forest_of_edges, label_forest
from dask_dedup.graph.forest_file import UNVERIFIED
from dask_dedup.graph.forest_range import ForestRange, range_of, with_range
from dask_dedup.graph.origin import Origin, origin_of, with_origin
from dask_dedup.schema import EDGES, LABELS
from dask_dedup.storage.files import write_frame

WAYS = ["tree", "stream"]


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def edges():
    rng = np.random.default_rng(0)
    src, dst = rng.integers(0, 2000, (2, 1500))
    frame = pd.DataFrame({"src": src, "dst": dst, "similarity": rng.random(1500)})
    return frame[frame["src"] != frame["dst"]].astype(EDGES.dtypes)


def pick(i, pieces):
    return pieces[i]


def lazy(*pieces, meta=EDGES):
    return dd.from_map(pick, list(range(len(pieces))), pieces=pieces, meta=meta)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("cuts", [[], [700], [100, 100, 101, 900, 1490]])
def test_own_edges_written_and_labelled_equal_the_eager_twin(edges, tmp_path, how, cuts):
    starts = [0, *cuts, len(edges)]
    pieces = [edges.iloc[a:b] for a, b in pairwise(starts)]
    forest = write_forest(lazy(*pieces), tmp_path / "forest", how=how)
    pd.testing.assert_frame_equal(forest.compute(), forest_of_edges(edges))
    assert range_of(forest._meta) is None
    labels = write_labels(tmp_path / "forest", 0.5, tmp_path / "labels", how=how)
    pd.testing.assert_frame_equal(labels.compute(), label_forest(forest_of_edges(edges), 0.5))


@pytest.mark.parametrize("how", [*WAYS, "auto"])
def test_no_edges_make_an_empty_forest_and_no_labels(tmp_path, how):
    forest = write_forest(lazy(EDGES, EDGES), tmp_path / "forest", how=how)
    assert forest.compute().empty
    labels = write_labels(tmp_path / "forest", 0.5, tmp_path / "labels", how=how).compute()
    pd.testing.assert_frame_equal(labels, LABELS)


@pytest.mark.parametrize("how", WAYS)
def test_written_forest_carries_its_range_and_its_origin(edges, tmp_path, how):
    known, origin = ForestRange(0.3, 0.999), Origin(2500, {"folder": "x"})
    meta = with_origin(with_range(EDGES, known), origin)
    written = write_forest(lazy(edges[:9], edges[9:], meta=meta), tmp_path / "forest", how=how)
    for forest in (written, read_forest(tmp_path / "forest")):
        assert range_of(forest._meta) == known
        assert origin_of(forest._meta) == origin
        assert label_components(forest, 0.5).divisions == (0, 2499)
    labels = write_labels(tmp_path / "forest", 0.5, tmp_path / "labels", how=how)
    assert labels.divisions == (0, 2499)
    assert origin_of(labels._meta) == origin
    for threshold in (0.2, 0.9995):
        with pytest.raises(SettingsError, match=r"answers thresholds from 0\.3 to below 0\.999"):
            write_labels(tmp_path / "forest", threshold, tmp_path / "others")
    assert not (tmp_path / "others").exists()


def test_a_folder_with_something_in_it_is_refused_and_left_alone(edges, tmp_path):
    write_forest(lazy(edges), tmp_path / "forest")
    write_labels(tmp_path / "forest", 0.5, tmp_path / "labels")
    before = sorted(path.read_bytes() for path in tmp_path.rglob("*.parquet"))
    with pytest.raises(OutputError, match=r"forest: is not empty.*Name a new folder"):
        write_forest(lazy(edges[:5]), tmp_path / "forest")
    with pytest.raises(OutputError, match=r"labels: is not empty"):
        write_labels(tmp_path / "forest", 0.9, tmp_path / "labels")
    assert sorted(path.read_bytes() for path in tmp_path.rglob("*.parquet")) == before


def test_what_fits_in_no_way_is_refused(edges, tmp_path):
    """1,500 edges at 120 bytes fit neither twice into 10 kB, nor two arrays over 2,000 rows."""
    with pytest.raises(CapacityError, match=r"a worker has 0\.00 GB"):
        write_forest(lazy(edges), tmp_path / "forest", memory_bytes=10_000)
    assert not list((tmp_path / "forest").iterdir())
    write_forest(lazy(edges), tmp_path / "forest", memory_bytes=10**9)
    with pytest.raises(CapacityError, match=r"a worker has 0\.00 GB"):
        write_labels(tmp_path / "forest", 0.5, tmp_path / "labels", memory_bytes=10_000)


def test_quantized_distances_are_refused(edges, tmp_path):
    path = tmp_path / "forest" / "part-00000.parquet"
    write_frame(path, forest_of_edges(edges), UNVERIFIED)
    with pytest.raises(SettingsError, match="quantized distances"):
        write_labels(tmp_path, 0.5, tmp_path / "labels")


def test_forest_and_labels_in_a_bucket(edges, endpoint):
    from s3fs import S3FileSystem

    S3FileSystem().mkdir("chain")
    for how in WAYS:
        forest = write_forest(lazy(edges[:700], edges[700:]), f"s3://chain/{how}", how=how)
        pd.testing.assert_frame_equal(forest.compute(), forest_of_edges(edges))
        labels = write_labels(f"s3://chain/{how}", 0.5, f"s3://chain/labels-{how}", how=how)
        pd.testing.assert_frame_equal(labels.compute(), label_forest(forest_of_edges(edges), 0.5))
        assert S3FileSystem().find(f"chain/{how}") == [f"chain/{how}/forest/part-00000.parquet"]
    with pytest.raises(OutputError, match="is not empty"):
        write_forest(lazy(edges), "s3://chain/tree")


def test_own_edges_in_files_are_joined_by_another_process(tmp_path, write_dataset):
    """Three rows in a chain, a fourth alone and invalid."""
    rows = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], "f4")
    dataset = read_dataset(write_dataset(tmp_path / "data", [rows[:2], rows[2:]]))
    own = EDGES.copy()
    own.loc[0], own.loc[1] = (0, 1, 0.7071), (1, 2, 0.7071)
    write_forest(lazy(own.astype(EDGES.dtypes)), tmp_path / "forest")
    labels = write_labels(tmp_path / "forest", 0.7, tmp_path / "labels")
    clusters = join_clusters(dataset, labels).compute(scheduler="processes", num_workers=1)
    assert clusters["cluster_id"].tolist() == [0, 0, 0, 3]
    assert clusters["is_valid"].tolist() == [True, True, True, False]
    np.testing.assert_allclose(
        clusters["similarity_to_representative"], [1, np.sqrt(0.5), 0, np.nan], atol=1e-7
    )
