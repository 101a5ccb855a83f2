"""Other settings in the folder of a finished run: exactly what depends on them is done again."""

import json
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest

import dask_dedup
from dask_dedup import InputError, OutputError, Settings
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.storage.files import read_json

run_here = partial(dask_dedup.run, execute=compute_tasks)

SMALL = {"cells": {"cells": 20}, "audit": {"queries": 300}, "join": {"search_threshold": 0.9}}
RELABELLED = ["witnesses", "clusters", "report"]
ALL = ["fit", "layout", "join", "forest", "witnesses", "clusters", "report"]


def settings_of(changes):
    tables = json.loads(json.dumps(SMALL))
    for key, value in changes.items():
        *tops, name = key.split(".")
        table = tables
        for top in tops:
            table = table.setdefault(top, {})
        table[name] = value
    return Settings.model_validate(tables)


@pytest.fixture(scope="module")
def data(write_dataset, tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1200, 24))
    noise = rng.normal(size=(1200, 24)) * rng.uniform(0, 0.5, (1200, 1))
    rows[600:] = rows[rng.integers(0, 600, 600)] + noise[600:]
    rows[7] = np.nan
    folder = tmp_path_factory.mktemp("data") / "data"
    frame = pd.DataFrame({"link": [f"u{i}" for i in range(400)], "alt": "x", "text": "y"})
    return write_dataset(folder, np.split(rows.astype(np.float32), 3), [frame] * 3)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "out"
    run_here(data, out, settings_of({}))
    return out


@pytest.fixture
def out(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "out")


#: Every setting of the finder join, another value of it, and the stages that run again.
CHANGES = {
    "seed": (1, ALL),
    "read.modality": None,  # needs other embeddings: tests/test_modality.py
    "read.url_column": ("link", RELABELLED),
    "read.caption_column": ("alt", RELABELLED),
    "read.columns": (["link"], RELABELLED),
    "read.drop_columns": (["alt"], RELABELLED),
    "read.metadata": ("metadata/*.parquet", ALL),
    "read.image_embeddings": ("img_emb/*.npy", ALL),
    "read.text_embeddings": None,  # of other embeddings
    "read.embedding_column": None,  # of other files
    "read.skip_bad_parts": (True, []),  # there are none
    "projection.dim": (16, ALL),
    "projection.sample_rows": (500, ALL),
    "cells.cells_per_row": (3.0, ALL),
    "cells.cells": (10, ALL),
    "cells.probes": (4.0, ALL),
    "cells.sample_per_cell": (12, ALL),
    "join.search_threshold": (0.92, []),
    "clusters.threshold": (0.97, RELABELLED),
    "clusters.linkage": ("components", RELABELLED),
    "audit.queries": (100, ALL),
    "compute.workers": (1, []),
    "compute.threads": (2, []),
    "compute.device": ("auto", []),
    "compute.memory": ("2GB", []),
}


def test_table_has_every_setting_of_the_finder():
    tables = ("read", "projection", "cells", "join", "clusters", "audit")
    keys = {"seed"}
    for table in tables:
        keys |= {f"{table}.{key}" for key in getattr(Settings(), table).model_dump()}
    assert keys == {key for key in CHANGES if not key.startswith("compute.")}


@pytest.mark.parametrize("key", [key for key, change in CHANGES.items() if change])
def test_changed_setting_runs_exactly_what_depends_on_it(data, out, key, caplog, stage_notes):
    value, stages = CHANGES[key]
    seen = stage_notes()
    run_here(data, out, settings_of({key: value}), progress=seen)
    if key == "join.search_threshold":  # the forest from 0.9 up has all that 0.92 asks for
        assert seen.names == RELABELLED
    else:
        assert seen.names == stages
    assert (f"changed since the last run: {key} (" in caplog.text) == bool(seen.names)
    again = stage_notes()
    run_here(data, out, settings_of({key: value}), progress=again)
    assert again.names == []


def linked_through_others(data, clusters, threshold):
    """Count, in float64, the rows that are unlike the smallest row of their cluster."""
    rows = np.concatenate([np.load(path) for path in sorted((data / "img_emb").iterdir())])
    unit = rows.astype("f8") / np.linalg.norm(rows.astype("f8"), axis=1, keepdims=True)
    smallest = clusters.groupby("cluster_id")["row_id"].transform("min").to_numpy()
    cosine = (unit * unit[smallest]).sum(axis=1)
    cosine = cosine[smallest != clusters["row_id"]]
    below = cosine[cosine < threshold]
    return {
        "rows": len(below),
        "share": pytest.approx(len(below) / len(cosine)) if len(cosine) else 0.0,
        "below_0.8": (below < 0.8).sum(),
        "lowest": pytest.approx(below.min()) if len(below) else None,
    }


@pytest.mark.parametrize("threshold", [0.9, 0.93, 0.97, 0.999])
def test_another_threshold_gives_the_clusters_and_the_audit_of_a_run_of_its_own(
    data, out, tmp_path, threshold
):
    changed = settings_of({"clusters.threshold": threshold})
    summary = run_here(data, out, changed)
    expected = run_here(data, tmp_path / "own", changed)
    own = pd.read_parquet(tmp_path / "own" / "clusters")
    pd.testing.assert_frame_equal(pd.read_parquet(out / "clusters"), own)
    pd.testing.assert_frame_equal(
        pd.read_parquet(out / "invalid"), pd.read_parquet(tmp_path / "own" / "invalid")
    )
    for name in ("clusters", "duplicates", "invalid_rows", "search_threshold", "found"):
        assert summary[name] == expected[name], name
    assert summary["linked_through_others"] == linked_through_others(data, own, threshold)
    measured = {name: value for name, value in summary["audit"].items() if name != "seconds"}
    assert measured.items() <= expected["audit"].items()
    assert summary["audit"]["queries_with_pairs"] > 20


def test_threshold_below_the_search_threshold_searches_again(data, out, stage_notes):
    seen = stage_notes()
    changed = settings_of({"clusters.threshold": 0.85, "join.search_threshold": 0.85})
    run_here(data, out, changed, progress=seen)
    assert seen.names == ALL


def test_threshold_back_and_forth_needs_no_search(data, out, finished, stage_notes):
    for threshold in (0.97, 0.92, 0.95):
        seen = stage_notes()
        changed = settings_of({"clusters.threshold": threshold})
        run_here(data, out, changed, progress=seen)
        assert seen.names == RELABELLED
    pd.testing.assert_frame_equal(
        pd.read_parquet(out / "clusters"), pd.read_parquet(finished / "clusters")
    )


def test_labelling_that_was_stopped_goes_on_and_again_needs_no_search(data, out, stage_notes):
    changed = settings_of({"clusters.threshold": 0.97})
    with pytest.raises(InterruptedError):
        run_here(data, out, changed, progress=stage_notes(stop="clusters"))
    assert not read_json(out / "run.json")["finished"]
    seen = stage_notes()
    run_here(data, out, changed, progress=seen)
    assert seen.names == RELABELLED


@pytest.mark.parametrize("lost", ["forest", "invalid", "audit"])
def test_without_what_a_search_leaves_another_threshold_is_refused(data, out, lost, stage_notes):
    shutil.rmtree(out / lost)
    changed = settings_of({"clusters.threshold": 0.97})
    with pytest.raises(OutputError, match=rf"out/{lost}/.*: is missing.*--overwrite"):
        run_here(data, out, changed)
    seen = stage_notes()
    run_here(data, out, changed, progress=seen, overwrite=True)
    assert seen.names == ALL


def test_unverified_forest_is_never_asked_at_another_threshold(data, tmp_path, stage_notes):
    adc = {"finder": "adc", "adc.factory": "IVF8,PQ4", "adc.verify": False, "adc.tolerance": 1.0}
    run_here(data, tmp_path / "out", settings_of(adc))
    seen = stage_notes()
    changed = settings_of({**adc, "clusters.threshold": 0.97})
    run_here(data, tmp_path / "out", changed, progress=seen)
    assert "search" in seen.names


def test_verified_forest_of_the_other_finder_is_asked_too(data, tmp_path, stage_notes):
    adc = {"finder": "adc", "adc.factory": "IVF8,PQ4", "adc.tolerance": 2.0}
    run_here(data, tmp_path / "out", settings_of(adc))
    seen = stage_notes()
    changed = settings_of({**adc, "clusters.threshold": 0.97})
    run_here(data, tmp_path / "out", changed, progress=seen)
    assert seen.names == RELABELLED


@pytest.mark.parametrize("stage", ["layout", "clusters"])
@pytest.mark.parametrize("change", ["another", "gone"])
def test_part_that_changes_during_the_run_stops_it_and_is_never_mixed(
    data, tmp_path, stage, change, stage_notes
):
    own = shutil.copytree(data, tmp_path / "data")
    path = own / "img_emb" / "img_emb_2.npy"

    def change_one_part():
        rows = np.load(path)
        path.unlink()
        if change == "another":
            np.save(path, rows[::-1].copy())  # of the same size

    with pytest.raises(InputError, match=r"img_emb_2\.npy.*(changed while|cannot be read|is gone)"):
        run_here(
            own,
            tmp_path / "out",
            settings_of({}),
            progress=stage_notes(do={stage: change_one_part}),
        )
    assert not (tmp_path / "out" / "clusters").exists()
    if change == "gone":
        shutil.copy(data / "img_emb" / "img_emb_2.npy", path)
    run_here(own, tmp_path / "out", settings_of({}))
    run_here(own, tmp_path / "fresh", settings_of({}))
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "out" / "clusters"),
        pd.read_parquet(tmp_path / "fresh" / "clusters"),
    )
