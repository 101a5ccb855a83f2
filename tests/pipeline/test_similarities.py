"""What embeddings look like, against scipy's distances and planted angles."""

import logging
import re
from functools import partial

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

import dask_dedup
from dask_dedup import Settings, load_settings
from dask_dedup.pipeline.similarities import measure_similarities, remark_on
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)


def rows_of(median, number=400, dim=64, seed=0):
    """Rows around one direction: pairs of them have about this cosine."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(number, dim)) / np.sqrt(dim)
    rows[:, 0] += np.sqrt(median / (1 - median))
    return rows.astype(np.float32)


def test_measure_similarities_equals_scipys():
    rows = rows_of(0.5) * np.random.default_rng(1).uniform(0.1, 10, (400, 1)).astype("f4")
    cosines = 1 - pdist(rows.astype("f8"), "cosine")
    whole = squareform(cosines)  # 0 on the diagonal
    assert measure_similarities(rows) == {
        "rows": 400,
        "random_median": pytest.approx(np.median(cosines), abs=6e-5),
        "random_99": pytest.approx(np.percentile(cosines, 99), abs=6e-5),
        "nearest_median": pytest.approx(np.median(whole.max(axis=1)), abs=6e-5),
    }
    assert np.median(cosines) == pytest.approx(0.5, abs=0.03)


def test_measure_similarities_of_few_and_of_many_rows():
    assert measure_similarities(rows_of(0.5)[:1]) is None
    assert measure_similarities(rows_of(0.5)[:2])["rows"] == 2
    assert measure_similarities(rows_of(0.5, 1500))["rows"] == 1000


@pytest.mark.parametrize(
    ("median", "options", "text", "is_warning"),
    [
        (0.5, {}, ", as of CLIP, whose threshold is 0.95$", False),
        (0.09, {}, "as of SSCD disc_mixup, whose threshold is 0.75; 0.95 may leave edited", False),
        (0.09, {"threshold": 0.76}, "as of SSCD disc_mixup, whose threshold is 0.75$", False),
        (0.5, {"threshold": 0.85}, "as of CLIP, .*; 0.85 may unite", False),
        (0.85, {}, "unlike those of the encoders we know .clip 0.5, sscd 0.09", True),
        (0.85, {"threshold": 0.97}, "unlike those of the encoders we know", False),
        (0.5, {"threshold": 0.4}, "more than one in a hundred is above the threshold 0.4", True),
        (0.5, {"encoder": "clip"}, "those of CLIP have 0.5 .photos by ViT-B/32.$", False),
        (0.09, {"encoder": "clip"}, "are they of another encoder. The threshold 0.95", True),
        (0.5, {"encoder": "sscd"}, "those of SSCD disc_mixup have 0.09.*threshold 0.75", True),
        (0.09, {"encoder": "sscd"}, "those of SSCD disc_mixup have 0.09", False),
        (0.09, {"encoder": "isc"}, "no such figures of ISC21 ft_v107", False),
        (0.5, {"modality": "text"}, "no threshold for embeddings of texts", False),
        (0.09, {"modality": "text", "encoder": "clip"}, "no such figures of CLIP", False),
    ],
)
def test_remark_on_what_data_look_like(median, options, text, is_warning):
    measured = measure_similarities(rows_of(median))
    names = {"threshold": "clusters.threshold", "modality": "read.modality"}
    settings = load_settings(None, {names.get(key, key): one for key, one in options.items()})
    remark = remark_on(measured, settings)
    assert remark.text.startswith("random pairs have a median cosine of 0.")
    assert remark.is_warning == is_warning, remark.text
    assert re.search(text, remark.text), remark.text


@pytest.mark.parametrize(
    ("encoder", "level"), [(None, "INFO"), ("clip", "INFO"), ("sscd", "WARNING")]
)
def test_run_says_what_its_data_look_like(write_dataset, tmp_path, caplog, encoder, level):
    rows = rows_of(0.5, 1200)
    rows[7] = np.nan
    data = write_dataset(tmp_path / "data", np.split(rows, 3))
    caplog.set_level(logging.INFO, "dask_dedup")
    options = {"cells": 5, "encoder": encoder, "audit_queries": 500}
    summary = run_here(data, tmp_path / "out", **options)
    cosines = 1 - pdist(np.delete(rows, 7, axis=0).astype("f8"), "cosine")
    assert summary["similarities"]["random_median"] == pytest.approx(np.median(cosines), abs=0.01)
    assert 490 <= summary["similarities"]["rows"] <= 500
    assert summary["encoder"] == encoder
    assert summary["threshold"] == {None: 0.95, "clip": 0.95, "sscd": 0.75}[encoder]
    (line,) = [one for one in caplog.records if "random pairs" in one.getMessage()]
    assert line.levelname == level


def test_run_without_audit_says_nothing(write_dataset, tmp_path, caplog):
    data = write_dataset(tmp_path / "data", [rows_of(0.5)])
    caplog.set_level(logging.INFO, "dask_dedup")
    summary = run_here(data, tmp_path / "out", cells=5, audit_queries=0)
    assert summary["similarities"] is None
    assert "random pairs" not in caplog.text


def test_settings_take_the_threshold_of_their_encoder():
    assert Settings(encoder="isc").clusters.threshold == 0.604169
    assert load_settings(None, {"encoder": "sscd"}).clusters.threshold == 0.75
    both = {"encoder": "sscd", "clusters.threshold": 0.8}
    assert load_settings(None, both).clusters.threshold == 0.8
    assert load_settings(None, {"encoder": "clip"}).clusters.threshold == 0.95
