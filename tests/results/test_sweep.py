"""The sweep of a finished run, against runs and a labelling by scipy at the same thresholds."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

import dask_dedup
from dask_dedup.errors import OutputError, SettingsError
from dask_dedup.graph.forest_range import ForestRange
from dask_dedup.results.labels_at import labels_at
from dask_dedup.results.sweep import (
    round_thresholds,
    sweep,
    threshold_of_kept,
    usual_thresholds,
)
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)

ROWS = 900
SMALL = {"cells.cells": 6, "audit.queries": 0}


@pytest.fixture(scope="module")
def data(write_dataset, tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(ROWS, 24))
    noise = rng.normal(size=(ROWS, 24)) * rng.uniform(0, 0.5, (ROWS, 1))
    rows[450:] = rows[rng.integers(0, 450, 450)] + noise[450:]
    rows[500:520] = rows[100]
    for row in range(600, 650):  # a chain
        rows[row] = rows[row - 1] + rng.uniform(0.1, 0.3) * rng.normal(size=24)
    rows[7] = np.nan
    folder = tmp_path_factory.mktemp("data") / "data"
    return write_dataset(folder, np.split(rows.astype(np.float32), 3))


@pytest.fixture(scope="module")
def out(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "out"
    run_here(data, out, SMALL, threshold=0.95, search_threshold=0.9)
    return out


def component_of(data, threshold):
    """Component of each row, by brute force in float64: an invalid row is one of its own."""
    rows = np.concatenate([np.load(path) for path in sorted((data / "img_emb").iterdir())])
    unit = rows.astype("f8") / np.linalg.norm(rows.astype("f8"), axis=1, keepdims=True)
    linked = np.triu((unit @ unit.T).astype(np.float32) >= np.float32(threshold), 1)
    return connected_components(coo_matrix(linked), directed=False)[1]


def test_sweep_equals_brute_force_at_many_thresholds(data, out):
    counts = sweep(out)
    assert 150 < len(counts) < 230
    assert counts["threshold"].is_monotonic_increasing
    for row in counts.iloc[::9].itertuples():
        sizes = np.bincount(component_of(data, row.threshold))
        assert row.duplicates == ROWS - len(sizes), row
        assert row.clusters == len(sizes) - 1  # of valid rows
        assert row.clusters_of_two_or_more == (sizes > 1).sum()
        assert row.largest_cluster == sizes.max()
        assert row.kept_fraction == pytest.approx((len(sizes) - 1) / (ROWS - 1))


@pytest.mark.parametrize("threshold", [0.9, 0.93, 0.97])
def test_sweep_equals_a_run_of_its_own(data, out, tmp_path, threshold):
    summary = run_here(data, tmp_path / "own", SMALL, threshold=threshold)
    (row,) = sweep(out, [threshold]).to_dict("records")
    for name in ("duplicates", "clusters", "clusters_of_two_or_more", "largest_cluster"):
        assert row[name] == summary[name], name
    assert row["kept_fraction"] == pytest.approx(1 - summary["duplicate_fraction"])
    exact = summary["linked_through_others"]["rows"]
    assert 0 < exact <= row["without_edge_to_representative"] < summary["duplicates"]


def test_sweep_of_few_linked_rows_among_many(write_dataset, tmp_path):
    """Numbers the linked rows alone."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2_000, 24)).astype(np.float32)
    rows[1_990:1_995] = rows[3]
    run_here(write_dataset(tmp_path / "data", [rows]), tmp_path / "out", SMALL)
    (row,) = sweep(tmp_path / "out", [0.99]).to_dict("records")
    assert row["duplicates"] == 5
    assert row["clusters_of_two_or_more"] == 1
    assert row["largest_cluster"] == 6


def test_sweep_without_duplicates(write_dataset, tmp_path):
    rows = np.random.default_rng(0).normal(size=(50, 24)).astype(np.float32)
    run_here(write_dataset(tmp_path / "data", [rows]), tmp_path / "out", SMALL)
    counts = sweep(tmp_path / "out")
    assert (counts["duplicates"] == 0).all()
    assert (counts["largest_cluster"] == 1).all()
    assert (counts["kept_fraction"] == 1).all()


def test_sweep_asks_the_forest(out):
    with pytest.raises(SettingsError, match=r"answers thresholds from 0\.9 to .*got 0\.85"):
        sweep(out, [0.95, 0.85])
    with pytest.raises(SettingsError, match=r"to below 0\.999.*got 1"):
        sweep(out, [1.0])


def test_sweep_of_what_is_no_finished_run(data, tmp_path):
    with pytest.raises(OutputError, match="nothing: holds no run"):
        sweep(tmp_path / "nothing")
    run_here(data, tmp_path / "out", SMALL)
    (tmp_path / "out" / "summary.json").unlink()
    with pytest.raises(OutputError, match=r"summary\.json: is missing: .*not whole"):
        sweep(tmp_path / "out")


def test_sweep_of_quantized_distances_is_refused(data, tmp_path):
    adc = {"finder": "adc", "adc.factory": "IVF8,PQ4", "adc.verify": False, "adc.tolerance": 1.0}
    run_here(data, tmp_path / "out", {**SMALL, **adc})
    with pytest.raises(SettingsError, match="quantized distances"):
        sweep(tmp_path / "out")


@pytest.mark.parametrize(
    "known", [ForestRange(0.5, 0.999), ForestRange(0.9, 0.999), ForestRange(0.95, None)]
)
def test_usual_thresholds_are_answered_and_denser_towards_one(known):
    found = usual_thresholds(known)
    assert 180 <= len(found) <= 210
    assert found == sorted(set(found))
    assert found[0] == known.lowest
    assert all(known.answers(one) for one in found)
    assert (found[-1] == 1.0) == (known.below is None)
    middle = (1 + known.lowest) / 2
    assert sum(one > middle for one in found) > 2 * sum(one <= middle for one in found)
    shown = round_thresholds(known)
    assert set(shown) <= set(found)
    assert 15 <= len(shown) <= 25


def test_usual_thresholds_of_a_forest_of_copies_alone():
    assert usual_thresholds(ForestRange(1.0, None)) == [1.0]


@pytest.mark.parametrize("threshold", [0.9, 0.95, 0.998])
def test_labels_at_equals_brute_force(data, out, threshold, no_compute):
    with no_compute():
        lazy = labels_at(out, threshold)
    assert lazy.divisions == (0, ROWS - 1)
    labels = lazy.compute(scheduler="sync")
    component = pd.Series(component_of(data, threshold))
    smallest = component.groupby(component).transform(lambda one: one.index.min())
    size = component.map(component.value_counts())
    right = pd.DataFrame({"cluster_id": smallest, "cluster_size": size})[size > 1]
    pd.testing.assert_frame_equal(labels, right.astype("int64"), check_names=False)
    assert labels.index.name == "row_id"


def test_labels_at_asks_the_forest(out):
    with pytest.raises(SettingsError, match=r"from 0\.9 to .*got 0\.5"):
        labels_at(out, 0.5)


def test_threshold_of_kept_is_the_highest_that_keeps_at_most_the_share(data, out):
    valid = ROWS - 1
    for fraction in (0.65, 0.7, 0.75):
        found = threshold_of_kept(out, fraction)
        components = len(set(component_of(data, found.threshold))) - 1
        assert components / valid == pytest.approx(found.kept_fraction)
        assert found.duplicates == valid - components
        assert found.kept_fraction <= fraction
        above = np.nextafter(np.float32(found.threshold), np.float32(1))
        assert len(set(component_of(data, above))) - 1 > fraction * valid


def test_threshold_of_kept_outside_the_range(out):
    least = sweep(out, [0.9])["kept_fraction"][0]
    with pytest.raises(SettingsError, match=rf"keeps {least:.4f} of its rows at 0\.9, the lowest"):
        threshold_of_kept(out, 0.2)
    with pytest.raises(SettingsError, match=r"above 0 and below 1, got 1"):
        threshold_of_kept(out, 1.0)
    found = threshold_of_kept(out, 0.9999)  # that of copies, which dense groups hide
    assert found.threshold < 0.999
    assert found.kept_fraction < 0.9999
