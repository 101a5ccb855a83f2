"""Precision from labelled pairs: against scipy, arithmetic by hand, and known shares."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.stats import binomtest

from dask_dedup.cli.commands import main
from dask_dedup.errors import InputError
from dask_dedup.report.precision_plot import plot_precision
from dask_dedup.results.finished_run import open_finished
from dask_dedup.results.pair_sample import sample_pairs, write_pairs
from dask_dedup.results.precision import (
    precision,
    precision_of,
    read_labelled,
    threshold_for,
    wilson_interval,
)


def pairs_of(bins):
    """Pairs of bins (low, edges, labels), rising; edges_from_low as the sample tells them."""
    from_low = np.cumsum([edges for _, edges, _ in bins][::-1])[::-1]
    rows = [
        {"label": label, "bin": i, "bin_low": low, "bin_edges": edges, "edges_from_low": total}
        for i, ((low, edges, labels), total) in enumerate(zip(bins, from_low, strict=True))
        for label in labels
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("true", "trials"), [(0, 7), (1, 7), (5, 20), (20, 20), (199, 200)])
def test_wilson_interval_equals_scipys(true, trials):
    right = binomtest(true, trials).proportion_ci(method="wilson")
    got = wilson_interval(np.array([true]), np.array([trials]))
    assert np.ravel(got) == pytest.approx([right.low, right.high], abs=1e-12)


def test_read_labelled_of_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_labelled(tmp_path)


def test_precision_of_one_bin_is_wilsons():
    (row,) = precision(pairs_of([(0.9, 50, [1] * 17 + [0] * 3)])).to_dict("records")
    right = binomtest(17, 20).proportion_ci(method="wilson")
    assert row["precision"] == pytest.approx(0.85)
    assert (row["low"], row["high"]) == pytest.approx((right.low, right.high))
    assert (row["edges"], row["labelled"]) == (50, 20)


def test_precision_weighs_bins_by_their_edges():
    """By hand: 300 edges of which half are true, 100 of which all are."""
    some = precision(pairs_of([(0.9, 300, [1, 0] * 5), (0.95, 100, [1] * 10)]))
    assert some["threshold"].tolist() == [0.9, 0.95]
    assert some["precision"].tolist() == pytest.approx([(300 * 0.5 + 100) / 400, 1.0])
    one, other = binomtest(5, 10), binomtest(10, 10)
    low_one, low_other = (t.proportion_ci(method="wilson").low for t in (one, other))
    by_hand = 0.625 - np.hypot(0.75 * (0.5 - low_one), 0.25 * (1 - low_other))
    assert some["low"][0] == pytest.approx(by_hand)
    assert some["high"][1] == 1.0


def test_precision_interval_covers_the_true_share_in_95_of_100_samples():
    rng = np.random.default_rng(0)
    shares, sizes, labelled = [0.3, 0.7, 0.95], [5_000, 2_000, 1_000], 30
    truth = np.dot(shares, sizes) / sum(sizes)
    covered = 0
    for _ in range(150):
        bins = [
            (low, size, (rng.random(labelled) < share).astype(float))
            for low, size, share in zip([0.9, 0.95, 0.98], sizes, shares, strict=True)
        ]
        row = precision(pairs_of(bins)).iloc[0]
        covered += row["low"] <= truth <= row["high"]
    assert 0.92 <= covered / 150 < 1


def test_precision_without_labels_in_a_bin_or_without_the_bin_is_not_told():
    bins = [(0.9, 10, [1]), (0.95, 20, [np.nan]), (0.98, 30, [1, np.nan])]
    got = precision(pairs_of(bins))
    assert got["precision"].isna().tolist() == [True, True, False]
    whole = pairs_of([(0.9, 10, [1]), (0.95, 20, [0]), (0.98, 30, [1])])
    got = precision(whole[whole["bin"] != 1])  # somebody has deleted those lines
    assert got["threshold"].tolist() == [0.9, 0.98]
    assert got["precision"].isna().tolist() == [True, False]


def test_threshold_for_a_wanted_precision():
    some = pairs_of(
        [(0.9, 100, [1, 0] * 50), (0.95, 100, [1] * 80 + [0] * 20), (0.98, 100, [1] * 100)]
    )
    estimates = precision(some)
    assert estimates["precision"].tolist() == pytest.approx([230 / 300, 0.9, 1.0])
    assert threshold_for(estimates, 0.9) == (0.95, 0.98)
    assert threshold_for(estimates, 0.7) == (0.9, 0.9)
    assert threshold_for(estimates, 0.999) == (0.98, None)
    assert threshold_for(precision(some.assign(label=np.nan)), 0.5) == (None, None)


@pytest.fixture
def labelled_csv(tmp_path):
    """Pairs whose label follows from the similarity: true from 0.95 up."""
    words = {True: ["yes", "1", " Duplicate ", "TRUE"], False: ["no", "0", "different", "False"]}
    bins = [(0.9, 50), (0.925, 40), (0.95, 30), (0.975, 20)]
    table = pairs_of([(low, edges, words[low >= 0.95] + ["", "?"]) for low, edges in bins])
    table.to_csv(tmp_path / "pairs.csv", index=False)
    return tmp_path / "pairs.csv"


def test_read_labelled_takes_words_and_passes_over_what_is_unsure(labelled_csv):
    table = read_labelled(labelled_csv)
    assert [int((table["label"] == one).sum()) for one in (1, 0)] == [8, 8]
    assert int(table["label"].isna().sum()) == 8
    assert ((table["label"] == 1) == ((table["bin_low"] >= 0.95) & table["label"].notna())).all()


def test_read_labelled_refuses_other_words_and_other_files(labelled_csv, tmp_path):
    labelled_csv.write_text(labelled_csv.read_text().replace("different", "maybe", 1))
    with pytest.raises(InputError, match=r"pairs\.csv: the label of pair 3 is 'maybe'; expected"):
        read_labelled(labelled_csv)
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        read_labelled(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("label,url\n1,x\n")
    with pytest.raises(InputError, match=r"other\.csv: has no column bin"):
        read_labelled(tmp_path / "other.csv")
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\xff\x00")
    with pytest.raises(InputError, match=r"image\.csv: is not the CSV"):
        read_labelled(tmp_path / "image.csv")


def test_command_tells_precision_and_the_wanted_threshold(labelled_csv, tmp_path):
    words = ["precision", str(labelled_csv), "--target", "0.9"]
    done = CliRunner().invoke(main, [*words, "--plot", str(tmp_path / "p.png")])
    assert done.exit_code == 0, done.output
    assert "precision of 90.0%, estimated: from 0.95 up" in done.output
    assert "precision of 90.0%, 95 % sure: at no threshold of these" in done.output
    assert f"{50 / 140:.1%}" in done.output  # 50 of the 140 edges
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
    report = json.loads(CliRunner().invoke(main, [*words, "--json"]).output)
    assert report["estimated"] == 0.95
    assert [row["edges"] for row in report["thresholds"]] == [140, 90, 50, 20]


def test_plot_precision_of_what_nobody_has_labelled(tmp_path):
    plot_precision(precision(pairs_of([(0.9, 10, [np.nan])])), tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_precision_of_takes_the_pairs_of_the_run_alone(finished, tmp_path):
    run = open_finished(finished.out)
    pairs = sample_pairs(finished.out, 60)
    write_pairs(pairs, tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"none\.csv: no pair is labelled"):
        precision_of(run, tmp_path / "none.csv")
    pairs["label"] = np.where(pairs["similarity"] >= 0.9, "yes", "no")
    write_pairs(pairs, tmp_path / "pairs.csv")
    found = precision_of(run, tmp_path / "pairs.csv")
    forest = pd.concat([pd.read_parquet(p) for p in sorted((finished.out / "forest").iterdir())])
    edges = forest["similarity"].to_numpy()
    limits = found["threshold"].to_numpy().astype(np.float32)
    assert found["edges"].tolist() == [int((edges >= one).sum()) for one in limits]
    last = pairs["bin"].max()
    pairs.loc[pairs["bin"] == last, "bin_edges"] += 1
    pairs["edges_from_low"] += 1  # as of a forest with one more edge
    write_pairs(pairs, tmp_path / "other.csv")
    with pytest.raises(InputError, match=r"other\.csv: its pairs are not of the run in .*out"):
        precision_of(run, tmp_path / "other.csv")
