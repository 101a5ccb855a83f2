"""Sampled pairs against the forest, read by pandas, and the metadata of the data set."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import dask_dedup
from dask_dedup.cli.commands import main
from dask_dedup.errors import DamagedError, SettingsError
from dask_dedup.results.pair_sample import (
    _choose,
    allot,
    bin_limits,
    sample_pairs,
    write_pairs,
)
from dask_dedup.results.precision import read_labelled
from dask_dedup.results.result_rows import read_result_rows
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)

HOSTILE = '=cmd|"a", \n<b>'


def test_sample_pairs_with_a_negative_seed_is_refused(out):
    with pytest.raises(SettingsError, match=r"seed: expected 0 or more, got -1"):
        sample_pairs(out, seed=-1)


@pytest.fixture(scope="module")
def out(write_dataset, tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1200, 24))
    noise = rng.normal(size=(1200, 24)) * rng.uniform(0, 0.6, (1200, 1))
    rows[600:] = rows[rng.integers(0, 600, 600)] + noise[600:]
    rows[1100:1110] = rows[1]
    metadata = pd.DataFrame(
        {"url": [f"u{i}" for i in range(1200)], "caption": [f"c{i} {HOSTILE}" for i in range(1200)]}
    )
    metadata.loc[1100, "url"] = None
    base = tmp_path_factory.mktemp("sampled")
    cuts = [300, 650]
    data = write_dataset(
        base / "data",
        np.split(rows.astype(np.float32), cuts),
        [metadata[:300], metadata[300:650], metadata[650:]],
    )
    small = {"cells.cells": 6, "audit.queries": 0}
    run_here(data, base / "out", small, threshold=0.95, search_threshold=0.85)
    return base / "out"


@pytest.fixture(scope="module")
def forest(out):
    return pd.read_parquet(out / "forest")


def test_sample_pairs_are_edges_of_the_forest_with_their_metadata(out, forest):
    pairs = sample_pairs(out, 120)
    assert len(pairs) == 120
    assert not pairs.duplicated(["src", "dst"]).any()
    found = pairs.merge(forest, on=["src", "dst"], suffixes=("", "_right"))
    assert len(found) == 120
    assert (found["similarity"] == found["similarity_right"]).all()
    for side in ("src", "dst"):
        urls = [f"u{i}" if i != 1100 else "" for i in pairs[side]]
        assert pairs[f"{side}_url"].tolist() == urls
        assert pairs[f"{side}_caption"].tolist() == [f"c{i} {HOSTILE}" for i in pairs[side]]
    assert (pairs["label"] == "").all()


def test_sample_pairs_takes_as_many_of_each_bin_and_tells_their_sizes(out, forest):
    pairs = sample_pairs(out, 120)
    limits = [0.85, 0.865, 0.88, 0.895, 0.91, 0.925, 0.94, 0.955, 0.97, 0.985, 1.0]
    similarity = forest["similarity"].to_numpy()
    for number, low in enumerate(limits):
        high = limits[number + 1] if low < 1 else 2.0
        inside = (similarity >= np.float32(low)) & (similarity < np.float32(high))
        own = pairs[pairs["bin"] == number]
        if low < 1:
            assert inside.sum() > 11
            assert len(own) == 11  # 120, less 10, over ten bins
        else:
            assert len(own) == inside.sum() == 10
        assert (own["bin_edges"] == inside.sum()).all()
        assert (own["edges_from_low"] == (similarity >= np.float32(low)).sum()).all()
        assert own["similarity"].between(np.float32(low), np.float32(min(high, 1))).all()


def test_sample_pairs_by_seed(out):
    one = sample_pairs(out, 60, seed=1)
    pd.testing.assert_frame_equal(one, sample_pairs(out, 60, seed=1))
    other = sample_pairs(out, 60, seed=2)
    assert len(one.merge(other, on=["src", "dst"])) < 40
    # of a smaller sample, each is in the larger one
    assert len(one.merge(sample_pairs(out, 120, seed=1), on=["src", "dst"])) == 60
    # the order tells nothing of the similarity
    assert abs(np.corrcoef(np.arange(60), one["similarity"])[0, 1]) < 0.4


def test_sample_pairs_of_more_than_there_are_takes_all(out, forest):
    pairs = sample_pairs(out, 10_000)
    assert set(zip(pairs["src"], pairs["dst"], strict=True)) == set(
        zip(forest["src"], forest["dst"], strict=True)
    )


def test_sample_pairs_of_fewer_than_bins_is_refused(out):
    with pytest.raises(SettingsError, match=r"at least 11, one for each bin.* got 3"):
        sample_pairs(out, 3)


def test_written_pairs_come_back(out, tmp_path):
    pairs = sample_pairs(out, 60)
    write_pairs(pairs, tmp_path / "pairs.csv")
    back = read_labelled(tmp_path / "pairs.csv")
    assert back["label"].isna().all()
    assert back["src_caption"].tolist() == pairs["src_caption"].tolist()
    assert (back["similarity"].astype("f4") == pairs["similarity"]).all()
    for name in ("bin", "bin_edges", "edges_from_low"):
        assert (back[name] == pairs[name]).all()


def test_command_writes_pairs_and_never_over_labels(out, tmp_path):
    words = ["sample", str(out), str(tmp_path / "pairs.csv"), "-n", "60"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "60 pairs in 11 bins" in done.output
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 2
    assert "is there already, perhaps with labels" in again.output
    assert CliRunner().invoke(main, [*words, "--overwrite"]).exit_code == 0


@pytest.mark.parametrize("sizes", [[5, 5, 5], [0, 100, 2], [1, 1, 1], [100, 3, 100], []])
def test_allot_is_as_equal_as_sizes_allow(sizes):
    sizes = np.array(sizes, np.int64)
    for total in range(0, 30):
        quotas = allot(sizes, total)
        assert quotas.sum() == min(total, sizes.sum())
        assert (quotas <= sizes).all()
        least = quotas[quotas < sizes]  # those that could give more
        assert not len(least) or quotas.max() - least.min() <= 1


def test_bin_limits_by_hand():
    expected = [0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0, 1.000001]
    assert bin_limits(0.9).tolist() == expected
    assert bin_limits(1.0).tolist() == [1.0, 1.000001]
    assert bin_limits(0.95658563)[:2].tolist() == [0.95658563, 0.960927]


def test_read_result_rows_in_any_order_and_repeated(out):
    ids = np.array([1199, 0, 299, 300, 650, 0, 649])
    table = read_result_rows(out, ids, ["caption", "row_id"])
    assert table.column_names == ["caption", "row_id"]
    assert table["row_id"].to_pylist() == ids.tolist()
    assert table["caption"].to_pylist() == [f"c{i} {HOSTILE}" for i in ids]
    assert read_result_rows(out, ids[:0], ["url"]).num_rows == 0
    with pytest.raises(DamagedError, match=r"has 1,200 rows, and row 1,200 is asked for"):
        read_result_rows(out, np.array([1200]), ["url"])


def test_choose_takes_the_same_whatever_the_pieces():
    rng = np.random.default_rng(0)
    src = rng.integers(0, 500, 3_000)
    similarity = np.sort(rng.uniform(0.9, 1, 3_000).astype("f4"))[::-1]
    whole = similarity, src, src + 1 + np.arange(3_000)
    limits = bin_limits(0.9)
    right, sizes = _choose([whole], limits, 20, seed=3)
    pieces = [tuple(part[i : i + 170] for part in whole) for i in range(0, 3_000, 170)]
    got, again = _choose(pieces, limits, 20, seed=3)
    pd.testing.assert_frame_equal(got.reset_index(drop=True), right.reset_index(drop=True))
    assert (sizes == again).all()
    assert sizes.sum() == 3_000
    assert len(right) == 200  # none has similarity 1


def test_sample_pairs_of_text_that_is_no_utf8_escapes_it(bytes_run, tmp_path):
    pairs = sample_pairs(bytes_run[1], 20)
    texts = [url.decode("utf8", "backslashreplace") for url in bytes_run[2]]
    assert sorted(pairs["src_url"]) == sorted(texts[:20])
    assert sorted(pairs["dst_url"]) == sorted(texts[40:])
    write_pairs(pairs, tmp_path / "pairs.csv")
    assert read_labelled(tmp_path / "pairs.csv")["src_url"].tolist() == pairs["src_url"].tolist()


def test_sample_into_a_folder_is_one_line(out, tmp_path):
    done = CliRunner().invoke(main, ["sample", str(out), str(tmp_path), "--overwrite"])
    assert done.exit_code == 2
    assert done.stderr == f"dask-dedup: {tmp_path}: Is a directory.\n"
    assert not any(tmp_path.iterdir())
