import faiss
import numpy as np
import pandas as pd
import pytest

from dask_dedup.data.dataset import read_dataset
from dask_dedup.errors import CapacityError, InputError, OutputError, SettingsError
from dask_dedup.evaluate.exact import SearchLimits
from dask_dedup.evaluate.truth import TruthSettings, find_truth, read_neighbours
from dask_dedup.runtime.executor import compute_tasks


def clumps(groups=37, copies=7, dim=19, seed=0):
    """Rows in clumps, some of them equal, in float16: many cosines tie."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(rng.normal(size=(groups, dim)), copies, axis=0)
    rows += rng.normal(size=rows.shape) / 8
    rows[5], rows[200], rows[31] = rows[100], rows[100], 3 * rows[7]
    return rows.astype(np.float16)


def cosines(rows):
    """All cosines in float64, rounded as ours are; unusable rows and rows themselves at -9."""
    wide = rows.astype(np.float64)
    length = np.linalg.norm(wide, axis=1)
    good = np.isfinite(length) & (length > 0)
    wide[~good], length[~good] = 0, 1
    # Sums in numpy's order: rounded to float32, the order does not show.
    product = (wide @ wide.T) / np.outer(length, length)
    cosine = np.minimum(1, product).astype(np.float32)
    cosine[~good], cosine[:, ~good] = -9, -9
    np.fill_diagonal(cosine, -9)
    return cosine


def read_folder(folder):
    return pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))])


def nearest(cosine, query, k):
    order = np.lexsort((np.arange(len(cosine)), -cosine[query]))
    return order[:k]


@pytest.mark.parametrize("block_rows", [4096, 50])
@pytest.mark.parametrize("cuts", [[], [1, 70, 70, 200]])
def test_find_truth_is_brute_force_in_any_parts_and_blocks(
    tmp_path, write_dataset, cuts, block_rows
):
    limits = SearchLimits(61, 100, block_rows, verified_pairs=101)
    rows = clumps()
    rows[13], rows[14, 3], rows[15, 0] = 0, np.nan, np.inf
    data = read_dataset(write_dataset(tmp_path / "data", np.split(rows, cuts)))
    settings = TruthSettings(queries=None, k=5, threshold=0.9)
    summary = find_truth(data, tmp_path / "t", settings, limits=limits)
    cosine = cosines(rows)

    found = read_neighbours(tmp_path / "t")
    usable = [i for i in range(len(rows)) if i not in (13, 14, 15)]
    assert found.queries.tolist() == usable
    expected = np.array([nearest(cosine, i, 5) for i in usable])
    taken = np.take_along_axis(cosine[usable], expected, axis=1)
    np.testing.assert_allclose(found.similarity, taken, atol=6e-8)
    # Where rounding in another order of sums decides, only the similarity is compared.
    clear = np.abs(np.diff(taken, axis=1)).min(axis=1) > 1e-7
    equal = (found.row_ids == expected).all(axis=1)
    assert equal[clear].all()
    assert clear.sum() > 200

    pairs = read_folder(tmp_path / "t" / "pairs")
    i, j = np.nonzero(np.triu(cosine >= np.float32(0.9)))
    assert set(zip(pairs["src"], pairs["dst"], strict=True)) == set(zip(i, j, strict=True))
    assert len(pairs) == len(i) == summary["pairs"] > 100
    assert (summary["queries"], summary["unusable_queries"]) == (259, 3)
    assert summary["neighbours"] == 5 * 256


def test_find_truth_ties_go_to_the_lower_row_id(tmp_path, write_dataset):
    rows = np.zeros((9, 3), np.float32)
    rows[:, 0], rows[4, 1] = 1, 1
    data = read_dataset(write_dataset(tmp_path / "data", [rows[:6], rows[6:]]))
    find_truth(data, tmp_path / "t", TruthSettings(queries=None, k=3))
    found = read_neighbours(tmp_path / "t")
    assert found.row_ids[[0, 4, 8]].tolist() == [[1, 2, 3], [0, 1, 2], [0, 1, 2]]
    assert found.similarity[0].tolist() == [1, 1, 1]
    assert found.similarity[4] == pytest.approx(np.sqrt(0.5))


def test_find_truth_of_a_sample_is_what_faiss_flat_finds(tmp_path, clipart):
    data = read_dataset(clipart)
    summary = find_truth(data, tmp_path / "t", TruthSettings(queries=50, k=10, threshold=0.9))
    found = read_neighbours(tmp_path / "t")
    rows = data.embeddings.compute().astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    flat = faiss.IndexFlatIP(rows.shape[1])
    flat.add(rows)
    similarity, ids = flat.search(rows[found.queries], 12)
    own = ids == found.queries[:, None]
    others = np.sort(np.where(own, -9, similarity), axis=1)[:, ::-1][:, :10]
    np.testing.assert_allclose(found.similarity, others, atol=1e-6)

    pairs = read_folder(tmp_path / "t" / "pairs")
    exact_pairs = pd.read_parquet(clipart / "exact_pairs.parquet")
    both = pd.concat([exact_pairs, exact_pairs.rename(columns={"src": "dst", "dst": "src"})])
    of_queries = both[both["src"].isin(found.queries)]
    assert set(zip(pairs["query"], pairs["row_id"], strict=True)) == set(
        zip(of_queries["src"], of_queries["dst"], strict=True)
    )
    assert summary["pairs"] == len(of_queries) > 0


def test_find_truth_again_reads_what_is_there(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "data", [clumps()])
    first = find_truth(read_dataset(folder), tmp_path / "t", TruthSettings(queries=11, k=3))
    again = find_truth(read_dataset(folder), tmp_path / "t", TruthSettings(queries=11, k=3))
    assert again == first  # its seconds, too
    assert sorted(p.name for p in (tmp_path / "t").iterdir()) == [
        "manifest.json",
        "neighbours",
        "pairs",
        "summary.json",
    ]


def test_find_truth_continues_where_it_was_stopped(tmp_path, write_dataset):
    limits = SearchLimits(group_queries=60)
    data = read_dataset(write_dataset(tmp_path / "data", [clumps()]))
    settings = TruthSettings(queries=None, k=3)
    whole = find_truth(data, tmp_path / "whole", settings)
    asked = []

    def two(tasks, on_result):
        compute_tasks(tasks[:2], on_result)
        raise KeyboardInterrupt

    def counted(tasks, on_result):
        asked.append(len(tasks))
        return compute_tasks(tasks, on_result)

    with pytest.raises(KeyboardInterrupt):
        find_truth(data, tmp_path / "t", settings, execute=two, limits=limits)
    summary = find_truth(data, tmp_path / "t", settings, execute=counted, limits=limits)
    assert asked == [5 - 2, 5]  # groups of queries: searched, merged
    assert summary["neighbours"] == whole["neighbours"]
    one, other = read_neighbours(tmp_path / "t"), read_neighbours(tmp_path / "whole")
    assert np.array_equal(one.row_ids, other.row_ids)


def test_find_truth_refuses_what_belongs_to_others(tmp_path, write_dataset):
    data = read_dataset(write_dataset(tmp_path / "data", [clumps()]))
    other = read_dataset(write_dataset(tmp_path / "other", [clumps(seed=1)]))
    settings = TruthSettings(queries=11, k=3)
    find_truth(data, tmp_path / "t", settings)
    with pytest.raises(OutputError, match=r"another input or other settings: input \(.* → "):
        find_truth(other, tmp_path / "t", settings)
    with pytest.raises(OutputError, match=r"settings: k \(3 → 4\)"):
        find_truth(data, tmp_path / "t", TruthSettings(queries=11, k=4))
    assert len(read_neighbours(tmp_path / "t").queries) == 11
    find_truth(other, tmp_path / "t", TruthSettings(queries=7, k=4), overwrite=True)
    assert read_neighbours(tmp_path / "t").row_ids.shape == (7, 4)
    with pytest.raises(OutputError, match="holds files of something else"):
        find_truth(data, tmp_path / "data", settings)
    with pytest.raises(InputError, match="has no text embeddings"):
        find_truth(data, tmp_path / "none", TruthSettings(modality="text"))
    assert not (tmp_path / "none").exists()


def test_find_truth_refuses_more_pairs_than_it_can_hold(tmp_path, write_dataset):
    data = read_dataset(write_dataset(tmp_path / "data", [clumps()]))
    with pytest.raises(CapacityError, match=r"more than 100 pairs at cosine 0\.2 or above"):
        find_truth(
            data, tmp_path / "t", TruthSettings(queries=None, k=0, threshold=0.2),
            limits=SearchLimits(most_pairs=100),
        )  # fmt: skip


def test_find_truth_with_fewer_rows_than_k_gives_what_there_is(tmp_path, write_dataset):
    rows = np.eye(3, 5, dtype=np.float32)
    data = read_dataset(write_dataset(tmp_path / "data", [rows]))
    assert find_truth(data, tmp_path / "t", TruthSettings(k=10))["neighbours"] == 3 * 2
    assert len(read_neighbours(tmp_path / "t").queries) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 0}, "queries: expected at least 1, or all, got 0"),
        ({"k": -1}, "k: expected 0 to 4096, got -1"),
        ({"k": 0}, "nothing to search for"),
        ({"threshold": 1.5}, "threshold: expected a cosine above -1, got 1.5"),
        ({"threshold": float("nan")}, "threshold: expected a cosine above -1, got nan"),
        ({"seed": -1}, "seed: expected 0 or more, got -1"),
    ],
)
def test_truth_settings_refuse_nonsense(settings, message):
    with pytest.raises(SettingsError) as caught:
        TruthSettings(**settings)
    assert message in str(caught.value)


def test_read_neighbours_of_a_foreign_folder_says_so(tmp_path):
    with pytest.raises(InputError, match="holds no finished truth"):
        read_neighbours(tmp_path)
