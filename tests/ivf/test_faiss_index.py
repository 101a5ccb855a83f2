import faiss
import numpy as np
import pytest

from dask_dedup.errors import InputError, SettingsError
from dask_dedup.ivf import faiss_index as ivfpq
from dask_dedup.ivf.train_base import train_base

BEYOND = 2**31 + 7


@pytest.fixture(scope="module")
def rows():
    values = np.random.default_rng(0).standard_normal((1200, 32)).astype("f4")
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def fill(base, rows, cuts, first=0):
    shards = []
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        shard = ivfpq.empty_shard(base)
        ivfpq.add_rows(shard, rows[start:stop], first + np.arange(start, stop))
        shards.append(shard)
    return shards


@pytest.mark.parametrize(
    "factory",
    [
        "Flat",
        "SQ8",
        "PQ8x4",
        "HNSW16",
        "IVF16,Flat",
        "IVF16,PQ4x6",
        "IVF16_HNSW8,PQ4x6",
        "OPQ4_16,IVF16,PQ4x4",
        "PCA16,IVF16,SQ8",
        "IVF16,PQ8x4fs",
        "L2norm,IVF8,PQ4x6",
        "IVF16,PQ4x6,RFlat",
    ],
)
def test_search_shards_any_factory_finds_the_rows_themselves_with_ids_beyond_31_bits(
    rows, factory, tmp_path
):
    base = train_base(rows, factory)
    opened = []
    for i, shard in enumerate(fill(base, rows, [500], BEYOND)):
        ivfpq.write_index_file(shard, tmp_path / f"{i}")
        opened.append(ivfpq.open_index_file(tmp_path / f"{i}"))
    found = ivfpq.search_shards(base, opened, rows[:200], 10, 16)
    own = BEYOND + np.arange(200)
    assert (found.row_ids == own[:, None]).any(axis=1).mean() > 0.97
    assert found.row_ids.min() >= BEYOND
    # A search's distance to a row's own code is that of encode and decode.
    query, position = np.nonzero(found.row_ids == own[:, None])
    error = ivfpq.distance_error(base, rows)
    assert (
        np.abs(found.distances[query, position] - ivfpq.self_distances(base, rows[query])).max()
        <= error
    )


def test_search_shards_equals_faiss_flat_for_any_cut(rows):
    oracle = faiss.IndexFlatL2(32)
    oracle.add(rows)
    distances, row_ids = oracle.search(rows[:50], 7)
    base = train_base(rows, "IVF16,Flat")
    for cuts in ([], [1], [300, 301, 900]):
        found = ivfpq.search_shards(base, fill(base, rows, cuts), rows[:50], 7, 16)
        assert (found.row_ids == row_ids).all()
        np.testing.assert_allclose(found.distances, distances, atol=1e-5)


def test_search_shards_k_larger_than_the_data_fills_up(rows):
    base = train_base(rows, "IVF16,Flat")
    found = ivfpq.search_shards(base, fill(base, rows[:5], [2, 2]), rows[:3], 9, 16)
    assert (np.sort(found.row_ids[:, :5], axis=1) == np.arange(5)).all()
    assert (found.row_ids[:, 5:] == -1).all() and np.isinf(found.distances[:, 5:]).all()
    assert ivfpq.search_shards(base, [], rows[:3], 2, 16).row_ids.tolist() == [[-1, -1]] * 3


def test_merge_neighbours_ties_go_to_the_smaller_id():
    one = ivfpq.Neighbours(np.array([[0.5, 1.0]], "f4"), np.array([[9, 4]]))
    other = ivfpq.Neighbours(np.array([[0.5, 0.0, 3.0]], "f4"), np.array([[2, -1, 1]]))
    merged = ivfpq.merge_neighbours(one, other)
    assert merged.row_ids.tolist() == [[2, 9]]
    assert merged.distances.tolist() == [[0.5, 0.5]]


def test_self_distances_by_hand_and_as_faiss_encodes_and_decodes(rows):
    base = train_base(rows, "IVF16,PQ4x6")
    decoded = base.sa_decode(base.sa_encode(rows[:20]))
    by_hand = [sum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True))
               for x, y in zip(rows[:20], decoded, strict=True)]  # fmt: skip
    np.testing.assert_allclose(ivfpq.self_distances(base, rows[:20]), by_hand, rtol=1e-6)


def test_quantized_without_a_codec_reads_the_rows_back(rows):
    base = train_base(rows, "HNSW8_SQ8")
    compressed, kept = ivfpq.quantized(base, rows[:9])
    assert (compressed == rows[:9]).all()
    assert 0 < np.abs(kept - rows[:9]).max() < 0.01


def test_distance_error_covers_the_rounded_tables_of_fast_scan(rows):
    assert ivfpq.distance_error(train_base(rows, "IVF16,PQ8x4"), rows) == 1e-5
    assert ivfpq.distance_error(train_base(rows, "IVF16,PQ8x4fs"), rows) > 1e-4


def test_train_base_same_seed_is_the_same_index_and_iterations_count(rows):
    def made(**options):
        return faiss.serialize_index(train_base(rows, "IVF16,PQ4x4", **options)).tobytes()

    assert made(seed=3) == made(seed=3)
    assert made(seed=3) != made(seed=4)
    assert made(seed=3, iterations=1) != made(seed=3)


@pytest.mark.parametrize("factory", ["IVF16,PQ4x4", "PCA8,IVF16_HNSW8,Flat", "OPQ4_16,IVF16,PQ4"])
def test_train_base_is_the_same_with_any_number_of_threads(factory):
    rows = np.random.default_rng(5).normal(size=(5000, 32)).astype(np.float32)
    one, three = (train_base(rows, factory, iterations=3, threads=n) for n in (1, 3))
    assert faiss.serialize_index(one).tobytes() == faiss.serialize_index(three).tobytes()
    assert one.is_trained


@pytest.mark.parametrize(
    ("factory", "error", "text"),
    [
        ("Nope", SettingsError, "factory 'Nope': faiss cannot make such an index for 32 dim"),
        ("IVF16,PQ5", SettingsError, "multiple of the number of subquantizers"),
        ("IVF16,PQ4+4", SettingsError, "does not keep ids of its own"),
        ("IDMap,Flat", SettingsError, "leave IDMap out"),
        ("IVF2000,PQ4x4", InputError, "2000 centroids cannot be trained on 1200 rows"),
    ],
)
def test_train_base_what_cannot_be_is_refused(rows, factory, error, text):
    with pytest.raises(error, match=text):
        train_base(rows, factory)


def test_train_base_too_few_rows_for_codes_is_refused(rows):
    with pytest.raises(InputError, match="256 centroids cannot be trained on 100 rows"):
        train_base(rows[:100], "PQ4")


def test_open_index_file_damaged_foreign_or_missing_is_refused(rows, tmp_path):
    path = tmp_path / "a.faiss"
    ivfpq.write_index_file(train_base(rows, "IVF16,Flat"), path)
    size = path.stat().st_size
    ivfpq.open_index_file(path, size)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=f"{size - 100} bytes, but {size} were written"):
        ivfpq.open_index_file(path, size)
    path.write_bytes(b"not an index at all")
    with pytest.raises(InputError, match="not an index file that faiss can read"):
        ivfpq.open_index_file(path)
    with pytest.raises(InputError, match="cannot be read"):
        ivfpq.open_index_file(tmp_path / "missing")
