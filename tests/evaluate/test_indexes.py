import faiss
import numpy as np
import pytest

from dask_dedup.errors import SettingsError
from dask_dedup.evaluate.indexes import (
    add_rows,
    decode_rows,
    index_bytes,
    search_index,
    search_settings,
)
from dask_dedup.ivf.train_base import train_base


@pytest.fixture(scope="module")
def rows():
    rows = np.random.default_rng(0).normal(size=(1500, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def filled(rows, factory):
    index = train_base(rows, factory, seed=3)
    add_rows(index, rows, np.arange(len(rows)))
    return index


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("Flat", 4 * 16),
        ("PQ4", 4),
        ("IVF8,PQ4", 4 + 8),  # codes and ids
        ("SQ8", 16),
        ("OPQ4,IVF8,PQ4", 4 + 8),
    ],
)
def test_index_bytes_grow_by_code_and_id(rows, factory, expected):
    index = train_base(rows, factory)
    empty = index_bytes(index)
    add_rows(index, rows, np.arange(len(rows)))
    # The lists' lengths, written once per list that is not empty, are what is not exact.
    assert (index_bytes(index) - empty) / len(rows) == pytest.approx(expected, abs=0.15)


def test_index_bytes_is_the_size_of_the_file(rows, tmp_path):
    index = filled(rows, "IVF8,PQ4")
    faiss.write_index(index, str(tmp_path / "index"))
    assert index_bytes(index) == (tmp_path / "index").stat().st_size


def test_add_rows_takes_the_positions_it_is_given(rows):
    index = train_base(rows, "Flat")
    positions = np.array([2, 3, 5, 7, 1100])
    add_rows(index, rows, positions)
    assert search_index(index, rows[positions], 1, ("", 0)).ravel().tolist() == [0, 1, 2, 3, 4]


def test_search_index_with_all_lists_is_brute_force(rows):
    index = filled(rows, "IVF8,Flat")
    _, expected = faiss.knn(rows[:50], rows, 7)
    assert np.array_equal(search_index(index, rows[:50], 7, ("nprobe", 8)), expected)
    assert not np.array_equal(search_index(index, rows[:50], 7, ("nprobe", 1)), expected)


def test_search_settings_fit_the_index(rows):
    def settings(factory):
        return search_settings(train_base(rows, factory), (1, 4, 64, 128), (32, 16))

    assert settings("IVF8,PQ4") == [("nprobe", 1), ("nprobe", 4), ("nprobe", 8)]
    assert settings("OPQ4,IVF8,PQ4") == settings("IVF8,PQ4")
    assert settings("HNSW8") == [("efSearch", 16), ("efSearch", 32)]
    assert settings("PQ4") == [("", 0)]


def test_decode_rows_is_the_centroid_of_each_piece(rows):
    index = train_base(rows, "PQ4")
    decoded = decode_rows(index, rows)
    centroids = faiss.vector_to_array(index.pq.centroids).reshape(4, 256, 4)
    pieces = rows.reshape(-1, 4, 4)
    for m in range(4):
        distance = ((pieces[:, m, None] - centroids[m]) ** 2).sum(axis=2)
        nearest = centroids[m][distance.argmin(axis=1)]
        np.testing.assert_allclose(decoded.reshape(-1, 4, 4)[:, m], nearest, atol=1e-6)


def test_decode_rows_of_a_graph_is_refused(rows):
    with pytest.raises(SettingsError, match="cannot encode and decode rows"):
        decode_rows(filled(rows[:100], "HNSW8"), rows[:3])
