import logging
import os
import resource
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dask_dedup.errors import CapacityError, InputError
from dask_dedup.graph import choice, stream
from dask_dedup.graph.choice import choose_merge
from dask_dedup.graph.forest import forest_of_edges, label_forest, merge_forests
from dask_dedup.graph.labels import label_densely, label_sparsely
from dask_dedup.graph.stream import stream_merge
from dask_dedup.schema import EDGES, FOREST
from dask_dedup.storage.files import write_frame

SIMILARITIES = [-0.5, -0.0, 0.0, 0.25, 0.5, float(np.nextafter(np.float32(1), 0)), 1.0]
FILES = st.lists(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 30), st.sampled_from(SIMILARITIES)).filter(
            lambda edge: edge[0] < edge[1]
        ),
        max_size=30,
    ),
    max_size=6,
)


def frame(edges):
    src, dst, similarity = zip(*edges, strict=True) if edges else ((), (), ())
    table = pd.DataFrame({"src": src, "dst": dst, "similarity": similarity})
    return table.astype(EDGES.dtypes)


def not_a_number(similarity):
    """Edges whose similarity is NaN, which pandas would write as missing."""
    src, dst = np.zeros(len(similarity), np.int64), np.arange(1, len(similarity) + 1)
    return pa.table({"src": src, "dst": dst, "similarity": np.array(similarity, np.float32)})


def random_edges(rows, edges, seed, ones=0.0):
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.integers(0, rows, (2, edges)), axis=0)
    similarity = (0.95 + 0.05 * rng.random(edges)).astype(np.float32)
    similarity[rng.random(edges) < ones] = 1
    table = pd.DataFrame({"src": ends[0], "dst": ends[1], "similarity": similarity})
    return table[table["src"] < table["dst"]].reset_index(drop=True)


def written(folder, frames, row_group_size=None):
    """Write one file for each frame."""
    paths = [Path(folder) / f"forest-{i:04d}.parquet" for i in range(len(frames))]
    for path, one in zip(paths, frames, strict=True):
        if row_group_size is None:
            write_frame(path, one)
        else:
            pq.write_table(
                pa.Table.from_pandas(one, preserve_index=False), path, row_group_size=row_group_size
            )
    return paths


def merged(folder, frames, rows, row_group_size=None, **options):
    paths = written(folder, frames, row_group_size)
    out = Path(folder) / "merged.parquet"
    counts = stream_merge(paths, rows, out, **options)
    forest = pd.read_parquet(out)
    assert counts["edges"] == len(forest)
    assert counts["edges_read"] == sum(map(len, frames))
    return forest


def smallest_of_components(edges, threshold, rows):
    """The label of each row, by scipy."""
    chosen = edges[edges["similarity"] >= np.float32(threshold)]
    graph = coo_matrix((np.ones(len(chosen)), (chosen["src"], chosen["dst"])), (rows, rows))
    labels = connected_components(graph, directed=False)[1]
    smallest = np.full(rows, rows)
    np.minimum.at(smallest, labels, np.arange(rows))
    return smallest[labels]


def band_sizes(folder, rows, band_edges):
    """How many edges each band holds that the files of a folder are read in."""
    groups = stream._survey(sorted(Path(folder).glob("forest-*.parquet")), rows)
    bands = [*stream._bands(groups, groups.whole(), band_edges, stream._BINS)]
    assert [len(stream._read_band(groups, band, np.int64)[0]) for band in bands] == [
        band.edges for band in bands
    ]
    return [band.edges for band in bands]


@given(FILES, st.integers(1, 12), st.sampled_from([None, 1, 3]), st.booleans())
def test_stream_merge_of_any_files_in_any_bands_equals_merge_forests(
    files, band_edges, row_group_size, contracted
):
    frames = [forest_of_edges(frame(edges)) if contracted else frame(edges) for edges in files]
    with TemporaryDirectory() as folder:
        forest = merged(folder, frames, 31, row_group_size, band_edges=band_edges)
    expected = merge_forests(frames)
    pd.testing.assert_frame_equal(forest, expected)
    bits = [one["similarity"].to_numpy().view(np.uint32) for one in (forest, expected)]
    np.testing.assert_array_equal(*bits)  # -0 is not 0 here


@given(FILES, st.sampled_from([*SIMILARITIES, 0.3]))
def test_dense_and_sparse_labels_equal_scipy_and_label_forest(files, threshold):
    forest = merge_forests([frame(edges) for edges in files])
    with TemporaryDirectory() as folder:
        (path,) = written(folder, [forest])
        dense = label_densely(path, 31, threshold)
        sparse = label_sparsely(path, threshold)
    expected = smallest_of_components(forest, threshold, 31)
    np.testing.assert_array_equal(dense.cluster_ids, expected)
    for labels in (dense, sparse):
        tables = [labels.between(*ends) for ends in ((0, 7), (7, 7), (7, 31))]
        pd.testing.assert_frame_equal(pd.concat(tables), label_forest(forest, threshold))
        np.testing.assert_array_equal(labels.of(np.array([30, 2, 2, 0])), expected[[30, 2, 2, 0]])
        assert labels.edges == 31 - len(np.unique(expected))


@pytest.mark.parametrize("band_edges", [100, 5_000, 1 << 20])
@pytest.mark.parametrize("bins", [7, stream._BINS])
def test_stream_merge_of_many_edges_equals_merge_forests(tmp_path, band_edges, bins):
    """Coarse bins have to be cut again, down to the bit."""
    edges = random_edges(4_000, 20_000, 0, ones=0.2)
    frames = [forest_of_edges(edges.iloc[i::5]) for i in range(5)]
    forest = merged(tmp_path, frames, 4_000, 512, band_edges=band_edges, bins=bins)
    pd.testing.assert_frame_equal(forest, merge_forests(frames))


def test_stream_merge_of_a_thousand_files_equals_merge_forests(tmp_path):
    edges = random_edges(20_000, 50_000, 1, ones=0.05)
    frames = [forest_of_edges(edges.iloc[i::1000]) for i in range(1000)]
    forest = merged(tmp_path, frames, 20_000, band_edges=20_000)
    pd.testing.assert_frame_equal(forest, forest_of_edges(edges))


@pytest.mark.parametrize("files", [[], [0], [0, 0, 0], [500], [0, 500, 0]])
def test_stream_merge_of_empty_files_and_single_ones(tmp_path, files):
    frames = [forest_of_edges(random_edges(100, edges, 2)) for edges in files]
    forest = merged(tmp_path, frames, 100, band_edges=13)
    pd.testing.assert_frame_equal(forest, merge_forests(frames))
    np.testing.assert_array_equal(
        label_densely(tmp_path / "merged.parquet", 100, -1).cluster_ids,
        smallest_of_components(forest, -1, 100),
    )


@pytest.mark.parametrize("shape", ["path", "star"])
@pytest.mark.parametrize("similarity", [1.0, None])
def test_stream_merge_and_labels_of_a_long_path_and_a_giant_star(tmp_path, shape, similarity):
    """A star whose edges have one similarity is cut by its rays' ends."""
    rows = 100_000
    rng = np.random.default_rng(3)
    order = rng.permutation(rows)
    left = order[:-1] if shape == "path" else np.full(rows - 1, 0)
    right = order[1:] if shape == "path" else np.arange(1, rows)
    edges = pd.DataFrame({"src": np.minimum(left, right), "dst": np.maximum(left, right)})
    edges["similarity"] = rng.random(rows - 1).astype(np.float32) if similarity is None else 1
    edges = edges.astype(EDGES.dtypes)
    frames = [forest_of_edges(edges.iloc[i::3]) for i in range(3)]
    forest = merged(tmp_path, frames, rows, band_edges=30_000)
    pd.testing.assert_frame_equal(forest, forest_of_edges(edges))
    assert not label_densely(tmp_path / "merged.parquet", rows, -1).cluster_ids.any()
    bands = band_sizes(tmp_path, rows, 30_000)
    assert sum(bands) == rows - 1
    assert max(bands) <= 30_000


@pytest.mark.parametrize("band_edges", [1, 7, 101, 1_000])
def test_stream_merge_never_holds_more_than_the_band(tmp_path, band_edges):
    """All similarities are distinct: nothing but the limit cuts."""
    edges = random_edges(700, 1_000, 4)
    edges["similarity"] = np.linspace(-1, 1, len(edges), dtype=np.float32)
    assert edges["similarity"].is_unique
    merged(tmp_path, [edges.iloc[::2], edges.iloc[1::2]], 700, band_edges=band_edges)
    bands = band_sizes(tmp_path, 700, band_edges)
    assert sum(bands) == len(edges)
    assert max(bands) <= band_edges
    assert len(bands) <= 2 * len(edges) / band_edges + 1


def test_stream_merge_cuts_one_similarity_by_rows(tmp_path):
    """Similarity 1 throughout, one row with most of the edges: cut by ``src``, there by ``dst``."""
    hub = pd.DataFrame({"src": 5, "dst": np.arange(6, 900)})
    rest = random_edges(900, 700, 5)[["src", "dst"]]
    edges = pd.concat([hub, rest]).drop_duplicates().assign(similarity=1).astype(EDGES.dtypes)
    forest = merged(tmp_path, [edges], 900, 64, band_edges=50)
    pd.testing.assert_frame_equal(forest, forest_of_edges(edges))
    bands = band_sizes(tmp_path, 900, 50)
    assert sum(bands) == len(edges)
    assert max(bands) <= 50


def test_stream_merge_opens_few_files_at_a_time(tmp_path):
    """As many more as a process may open are far fewer than the files."""
    paths = written(tmp_path, [random_edges(500, 300, seed) for seed in range(100)])
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (last + 16, before[1]))
    try:
        stream_merge(paths, 500, tmp_path / "merged.parquet", band_edges=1000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_reading_a_file_of_many_row_groups_holds_little_of_it(tmp_path):
    """Arrow would read all 64 row groups ahead."""
    (path,) = written(tmp_path, [random_edges(10**6, 1 << 20, 8)], 1 << 14)
    before = pa.default_memory_pool().bytes_allocated()
    most = 0
    for _ in stream._survey([path], 10**6).read((), 0, 2**32 - 1, columns=3):
        most = max(most, pa.default_memory_pool().bytes_allocated() - before)
    assert most < path.stat().st_size / 2


@pytest.mark.parametrize("row_bytes", [4, 8])
def test_stream_merge_takes_the_memory_that_choose_merge_counts_on(
    tmp_path, monkeypatch, row_bytes
):
    """A band as large as all edges; beside it, histogram and batch are small."""
    # Rows that really need 8 bytes would take 32 GB; a batch that is small beside more edges, too.
    monkeypatch.setattr(choice, "_NARROW_ROWS", 2**32 if row_bytes == 4 else 0)
    monkeypatch.setattr(stream, "_BATCH_EDGES", 1 << 12)
    edges, rows = 1_000_003, 500_009
    (path,) = written(tmp_path, [random_edges(rows, edges, 6)], 1 << 14)
    stream_merge([path], rows, tmp_path / "first.parquet", bins=1 << 10)  # compiles
    tracemalloc.start()
    stream_merge([path], rows, tmp_path / "second.parquet", bins=1 << 10)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    most_bytes = row_bytes * rows + choice.BAND_BYTES[row_bytes] * edges
    assert 0.6 * most_bytes <= peak_bytes <= most_bytes + (2 << 20)


def test_stream_merge_with_wide_row_ids_equals_the_narrow_ones(tmp_path, monkeypatch):
    frames = [forest_of_edges(random_edges(1_000, 800, seed, ones=0.3)) for seed in range(3)]
    # Rows that really need 8 bytes would take 32 GB.
    monkeypatch.setattr(choice, "_NARROW_ROWS", 999)
    forest = merged(tmp_path, frames, 1_000, band_edges=100)
    pd.testing.assert_frame_equal(forest, merge_forests(frames))
    labels = label_densely(tmp_path / "merged.parquet", 1_000, 0.97).cluster_ids
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, smallest_of_components(forest, 0.97, 1_000))


def test_rows_up_to_2_to_the_32_take_4_bytes():
    assert [choice.row_bytes(2**32 + more) for more in (-1, 0, 1)] == [4, 4, 8]


def test_stream_merge_without_statistics_in_the_headers_reads_them(tmp_path):
    forest = forest_of_edges(random_edges(300, 400, 7))
    path = tmp_path / "plain.parquet"
    table = pa.Table.from_pandas(forest, preserve_index=False)
    pq.write_table(table, path, write_statistics=False, row_group_size=50)
    stream_merge([path], 300, tmp_path / "merged.parquet", band_edges=60)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "merged.parquet"), forest)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (frame([(3, 10, 1)]), r"bad.parquet: expected edges with 0 <= src < dst < 10, .* to 10"),
        (frame([(-1, 2, 1)]), "found src from -1 and dst up to 2. The forest is of other rows"),
        (frame([(4, 4, 1)]), "expected edges with 0 <= src < dst < 10"),
        (frame([(1, 2, np.nan)]), "bad.parquet: expected every edge to be whole, found missing"),
        (frame([(1, 2, 0.5), (1, 3, np.nan)]), "expected every edge to be whole, found missing"),
        (not_a_number([np.nan]), "bad.parquet: expected a similarity for every edge, found NaN"),
        (not_a_number([0.5, np.nan]), "expected a similarity for every edge, found NaN"),
        (
            FOREST.astype({"similarity": "float64"}),
            "expected a forest with columns .*'similarity: float'.*got .*'similarity: double'",
        ),
        (FOREST.drop(columns="dst"), "got .'src: int64', 'similarity: float'."),
    ],
)
@pytest.mark.parametrize("band_edges", [1, 100])
def test_stream_merge_of_a_file_that_is_no_forest_is_refused_and_leaves_nothing(
    tmp_path, edges, message, band_edges
):
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    write_frame(good, frame([(0, 1, 0.9), (1, 2, 0.8)]))
    write_frame(bad, edges)
    with pytest.raises(InputError, match=message):
        stream_merge([good, bad], 10, tmp_path / "merged.parquet", band_edges=band_edges)
    assert {path.name for path in tmp_path.iterdir()} == {"good.parquet", "bad.parquet"}


def test_choose_merge_by_hand(caplog):
    """11 rows and 7 edges: 44 + 336 = 380 bytes streamed, 840 in a tree, of half of the memory."""
    caplog.set_level(logging.DEBUG, "dask_dedup.graph.choice")
    assert choose_merge(7, 11, 380) == "stream"
    assert choose_merge(7, 3500, 28_000) == "stream"  # two arrays of 14,000 bytes
    assert choose_merge(7, 3500, 27_999) == "tree"
    assert choose_merge(7, 3501, 10**6) == "tree"  # 500 rows for an edge
    assert choose_merge(0, 11, 0) == "tree"
    assert [record.message.split(" (")[0] for record in caplog.records] == [
        "forests merge in a stream, the quicker way",
        "forests merge in a stream, the quicker way",
        "forests merge in a tree, not enough for a stream",
        "forests merge in a tree, the quicker way",
        "forests merge in a tree, the quicker way",
    ]
    with pytest.raises(CapacityError, match=r"at least 0\.00 GB with --memory"):
        choose_merge(7, 11, 379)


def test_choose_merge_of_two_billion_rows(caplog):
    """Two arrays of 8 GB, past 2^32 rows two of 40; 10^9 edges are 120 GB in a tree."""
    caplog.set_level(logging.DEBUG, "dask_dedup.graph.choice")
    edges, rows = 10**9, 2 * 10**9
    assert choose_merge(edges, rows, 16 * 10**9) == "stream"
    assert choose_merge(edges, 5 * 10**9, 80 * 10**9) == "stream"
    assert caplog.messages[0] == (
        "forests merge in a stream, the quicker way (1,000,000,000 forest edges over "
        "2,000,000,000 rows: streaming takes 16.00 GB; merging in a tree takes 120.00 GB, of at "
        "most half of a worker's memory; a worker has 16.00 GB)"
    )
    with pytest.raises(
        CapacityError,
        match=r"a worker has 15.90 GB. Give each worker at least 16.00 GB with --memory",
    ):
        choose_merge(edges, rows, 159 * 10**8)
