"""The declared stages: every setting is changed, and the digests that follow are compared."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel
from scipy.sparse.csgraph import connected_components

import dask_dedup
from dask_dedup import Settings, fit_compressor, load_settings, read_dataset, save_model
from dask_dedup.pipeline.finders import choose_finder
from dask_dedup.pipeline.job import Job
from dask_dedup.pipeline.run_stages import run_stages
from dask_dedup.pipeline.stages import DERIVED, STAGES, WORKING, settings_of, stages_of
from dask_dedup.runtime.executor import NoProgress, compute_tasks
from dask_dedup.settings.option_names import settings_from
from dask_dedup.storage.run_folder import RunFolder

run_here = partial(dask_dedup.run, execute=compute_tasks)

#: What each setting is changed to, one after the other; ``adc.model`` is a folder of the test's.
CHANGES = {
    "seed": [1],
    "encoder": ["clip"],
    "read.modality": ["text"],
    "read.url_column": ["link"],
    "read.caption_column": ["alt"],
    "read.columns": [["a"]],
    "read.drop_columns": [["a"]],
    "read.metadata": ["m/*.parquet"],
    "read.image_embeddings": ["i/*.npy"],
    "read.text_embeddings": ["t/*.npy"],
    "read.embedding_column": ["clip"],
    "read.skip_bad_parts": [True],
    "projection.dim": [8],
    "projection.sample_rows": [100],
    "cells.cells_per_row": [2.0],
    "cells.cells": [3],
    "cells.probes": [4.0],
    "cells.sample_per_cell": [9],
    "join.search_threshold": [0.8],
    "adc.factory": ["IVF4,PQ4x6"],
    "adc.sample_rows": [99],
    "adc.iterations": [3],
    "adc.k": [5],
    "adc.nprobe": [3],
    "adc.tolerance": [1.5],
    "adc.verify": [False],
    "adc.recall": [0.9],
    "adc.precision": [0.8],
    "adc.queries": [77],
    "clusters.threshold": [0.94, 0.9995],
    "clusters.linkage": ["components"],
    "keep.order": ["first"],
    "keep.protect": ["true"],
    "keep.max_per_cluster": [3],
    "keep.merge": ["a=max"],
    "keep.decisions": ["decisions.csv"],  # its content counts
    "audit.queries": [55],
    "report.page": [False],
    "report.images": ["images/{key}.jpg"],
    "report.thumbnails": [3],
    "report.load_urls": [True],
    "compute.workers": [7],
    "compute.threads": [3],
    "compute.device": ["cpu", "cuda"],
    "compute.work": ["work"],
    "compute.memory": ["7GB"],
}
#: Settings beside which one is changed: what it changes may depend on them.
BASES = {
    "join": [{}, {"join.search_threshold": 0.9}, {"keep.order": "a"}],
    "adc": [
        {},
        {"join.search_threshold": 0.9},
        {"adc.tolerance": 2.0},
        {"adc.verify": False},
        {"keep.order": "a"},
    ],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_dataset):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("stages") / "data"
    return read_dataset(write_dataset(folder, [rng.normal(size=(90, 24)).astype("f4")]))


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "pca"
    save_model(fit_compressor(data, "pca", 12), folder)
    return str(folder)


def digests(data, out, finder, options):
    """The digests of a run's stages, as the finder and the stages after it are made."""
    settings = load_settings(None, {"finder": finder, **options})
    folder = RunFolder(out, settings.for_result(), data.fingerprint, working=WORKING)
    job = Job(data, folder, settings, compute_tasks, NoProgress(), 1 << 30)
    made = choose_finder(finder)(job)
    own = [one for one in vars(made).values() if hasattr(one, "digest")]
    found = {stage.folder.name: stage.digest for stage in own}
    for stage in STAGES:
        if stage.finder is None:
            found[stage.folder] = job.stage(
                stage, made.keys if stage.name not in ("decide", "pack") else {}
            ).digest
    return found


def test_every_setting_is_changed_here(model):
    keys = {
        f"{name}.{key}" if hasattr(field.annotation, "model_fields") else name
        for name, field in Settings.model_fields.items()
        for key in getattr(field.annotation, "model_fields", [""])
    }
    ours = {key for key in keys if key.split(".")[0] not in ("finder", "cluster")}
    assert {*CHANGES, "adc.model"} == ours


@pytest.mark.parametrize("finder", ["join", "adc"])
def test_a_stage_depends_on_the_settings_that_are_declared_and_on_no_other(
    data, model, tmp_path, finder
):
    changed: dict[str, set[str]] = {}
    for base in BASES[finder]:
        before = digests(data, tmp_path, finder, base)
        for key, values in {**CHANGES, "adc.model": [model]}.items():
            for value in values:
                after = digests(data, tmp_path, finder, {**base, key: value})
                for folder, digest in before.items():
                    if after[folder] != digest:
                        changed.setdefault(folder, set()).add(key)
    declared = {stage.folder: set(settings_of(stage, finder)) for stage in stages_of(finder)}
    assert {folder: changed[folder] for folder in before} == {
        folder: declared[folder] for folder in before
    }
    # Each folder has stages, and digests, of its own; merges are made where spans are many.
    assert set(declared) - set(before) <= {"merge", "merge-2", "merge-3"}


class Noted:
    """Settings that note which of them are read, and in which stage."""

    def __init__(self, settings, progress, prefix=""):
        self._settings, self._progress, self._prefix = settings, progress, prefix

    def __getattr__(self, name):
        value = getattr(self._settings, name)
        dotted = f"{self._prefix}{name}"
        if isinstance(value, BaseModel):
            return Noted(value, self._progress, f"{dotted}.")
        if name == "model_dump":  # all of the table
            self._progress.note(*(self._prefix + key for key in type(self._settings).model_fields))
        elif not callable(value):
            self._progress.note(*(DERIVED[dotted].settings if dotted in DERIVED else [dotted]))
        return value


class Stages(NoProgress):
    """Knows the stage that goes on."""

    def __init__(self):
        self.now, self.read = "", {}

    def start(self, stage, rows):
        self.now = stage

    def note(self, *names):
        self.read.setdefault(self.now, set()).update(names)


@pytest.mark.parametrize("options", [{}, {"finder": "adc"}, {"finder": "adc", "verify": False}])
def test_a_stage_reads_no_setting_that_is_not_declared(data, tmp_path, options):
    settings = settings_from({"adc.factory": "IVF4,PQ4x6", "adc.queries": 40}, options)
    seen = Stages()
    with RunFolder(
        tmp_path / "out", settings.for_result(), data.fingerprint, working=WORKING
    ) as folder:
        folder.begin()

        class NotedJob(Job):
            def stage(self, declared, known=None):  # what a digest reads is not what a stage reads
                return Job.stage(replace(self, settings=settings), declared, known)

        job = NotedJob(data, folder, Noted(settings, seen), compute_tasks, seen, 1 << 30)
        run_stages(job, False)
    names = {stage.name: stage for stage in stages_of(settings.finder)}
    del seen.read["report"]  # the page shows all settings
    assert {"forest", "clusters"} < set(seen.read) - {""} <= set(names)
    free = (
        "compute",
        "cluster",
        "finder",
        "encoder",
        "report",
    )  # none of it changes a result of the same finder
    for name in set(seen.read) - {""}:
        read = {key for key in seen.read[name] if key.split(".")[0] not in free}
        assert read <= settings_of(names[name], settings.finder), name
    assert "seed" in set().union(*(seen.read[name] for name in names if name in seen.read))


def test_what_a_stage_reads_an_earlier_one_writes():
    for finder in ("join", "adc"):
        there = {"data", "metadata"}
        for stage in stages_of(finder):
            if not stage.is_optional or stage.name == "pack":
                assert set(stage.reads) - {"merged entries", "rule"} <= there, stage.name
            there |= set(stage.writes)
        assert {"clusters", "forest", "audit"} <= there


def clusters_of(out):
    return pd.read_parquet(out / "clusters")["cluster_id"].to_numpy()


def test_run_on_another_column_of_the_same_files_uses_none_of_the_first_one_s_work(tmp_path):
    """Files, names, sizes and times are the same: only the column differs."""
    rng = np.random.default_rng(3)
    columns = {}
    for name in ("a", "b"):
        values = rng.normal(size=(60, 16))
        columns[name] = np.tile(values, (2, 1))[rng.permutation(120)].astype("f4")
    (tmp_path / "data").mkdir()
    table = {name: pa.array(list(values)) for name, values in columns.items()}
    pq.write_table(
        pa.table({"url": [str(i) for i in range(120)], **table}), tmp_path / "data/0.parquet"
    )
    out = tmp_path / "out"
    for name, values in columns.items():
        run_here(tmp_path / "data", out, embedding_column=name, audit_queries=0, keep_stages=True)
        unit = values / np.linalg.norm(values, axis=1, keepdims=True)
        labels = connected_components(unit @ unit.T >= 0.95, directed=False)[1]
        expected = pd.Series(np.arange(120)).groupby(labels).transform("min").to_numpy()
        np.testing.assert_array_equal(clusters_of(out), expected)
