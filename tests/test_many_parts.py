"""The same rows in one part or in thousands: the same clusters, tasks, files and reads."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

#: Runs in a process of its own, with few open files; prints what it took.
SCRIPT = """
import json, resource, sys
from pathlib import Path

places, most_open, options = json.loads(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (most_open, most_open))
import dask, dask_dedup
from dask_dedup.cells.layout_files import CellLayout
from dask_dedup.cells.join_groups import plan_groups
from dask_dedup.cells.join import join_group

def execute(tasks, on_result):
    count["tasks"] += len({key for task in tasks for key in dict(task.dask)})
    return dask_dedup.runtime.executor.compute_tasks(tasks, on_result)

counts, opened = [], []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
settings = dask_dedup.Settings.model_validate(options)
for data, out in places:
    count = {"tasks": 0}
    with dask.config.set(scheduler="synchronous"):
        summary = dask_dedup.run(data, out, settings, keep_stages=True, execute=execute)
    stages = Path(out) / "stages"
    written = [path for path in stages.rglob("*") if path.parent.name != "clusters"]
    count["files"] = sum(path.is_file() for path in written)
    layout = CellLayout(str(stages / "layout"), 16, summary["found"]["cells"])
    group = plan_groups(layout)[0]
    join_group(layout, group, 0.95)  # what is opened once is open
    opened.clear()
    join_group(layout, group, 0.95)
    count["opens"] = len([name for name in opened if name.startswith((data, out))])
    counts.append(count)
print(json.dumps(counts))
"""


def some_rows(rows, dim=16):
    """Groups of near-copies, some of them exact, some just below the threshold; some unusable."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(rows // 3, dim))
    noise = rng.choice([0.0, 0.1, 0.3], rows)[:, None]
    made = centres[rng.integers(0, len(centres), rows)] + noise * rng.normal(size=(rows, dim))
    made[rng.integers(0, rows, 5)] = np.nan
    return made.astype("f2")


def true_clusters(rows, threshold):
    """Return each row's cluster: the smallest row of its component, by all pairs."""
    wide = rows.astype("f8")
    usable = np.isfinite(wide).all(axis=1)
    wide[~usable] = 0
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-9)
    linked = (wide @ wide.T).astype("f4") >= np.float32(threshold)
    labels = connected_components(coo_matrix(linked), directed=False)[1]
    return pd.Series(np.arange(len(rows))).groupby(labels).transform("min").to_numpy()


def write_parts(folder, rows, parts):
    """Write the rows as so many parts, nearly equal; some are empty where there are many."""
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    for i, ids in enumerate(np.array_split(np.arange(len(rows)), parts)):
        np.save(folder / "img_emb" / f"img_emb_{i:05d}.npy", rows[ids])
        table = pa.table(
            {"url": [f"http://x/{j}" for j in ids], "caption": [f"c{j}" for j in ids]},
            pa.schema([("url", pa.string()), ("caption", pa.string())]),
        )
        pq.write_table(table, folder / "metadata" / f"metadata_{i:05d}.parquet")
    return folder


def run_there(places, most_open=64, **options):
    """Run each data set into its OUT, in one process; return what each took."""
    settings = {"cells": {"cells": 12, "cells_per_row": 12.0}, "projection": {"dim": 16}, **options}
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(places), str(most_open), json.dumps(settings)],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def read_clusters(out, parts):
    files = sorted((out / "clusters").iterdir())
    assert len(files) == len(list((out / "invalid").iterdir())) == parts
    return pa.concat_tables([pq.read_table(file) for file in files])


def test_run_in_few_and_many_parts_is_the_same_and_costs_the_same(tmp_path):
    """With 64 files open at most; 100 parts are more than that."""
    rows = some_rows(4200)
    expected = true_clusters(rows, 0.95)
    assert 500 < len(rows) - len(np.unique(expected)) < 4000
    cuts = (1, 7, 100)
    places = [
        (str(write_parts(tmp_path / f"d{parts}", rows, parts)), str(tmp_path / f"o{parts}"))
        for parts in cuts
    ]
    took = dict(zip(cuts, run_there(places), strict=True))
    for parts in cuts:
        clusters = read_clusters(tmp_path / f"o{parts}", parts)
        assert clusters["row_id"].to_numpy().tolist() == list(range(len(rows)))
        np.testing.assert_array_equal(clusters["cluster_id"].to_numpy(), expected)
        assert clusters["url"].to_pylist() == [f"http://x/{i}" for i in range(len(rows))]
        usable = np.isfinite(rows).all(axis=1)
        np.testing.assert_array_equal(clusters["is_valid"].to_numpy(), usable)
    # 4,200 rows in 7 parts are 3 spans of 1,800, 1,800 and 600; in 100 of 42, 2,016, 2,016 and 168.
    spans = 3
    assert took[7]["tasks"] > took[1]["tasks"]
    # A stage more where the embeddings are copied together: a task a span, its file, its record.
    assert took[100]["tasks"] <= took[7]["tasks"] + spans
    assert took[100]["files"] <= took[7]["files"] + 2 * spans + 1
    # Of a span its offsets, its records and its copy of full rows, read for two kinds of rows.
    assert took[1]["opens"] <= 2 + 2
    assert took[7]["opens"] <= 2 * spans + 2 * 7
    assert took[100]["opens"] <= 2 * spans + 2 * spans


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_run_of_20_000_parts_at_256_open_files(tmp_path):
    rows = some_rows(100_000)
    data = write_parts(tmp_path / "d", rows, 20_000)
    cells = {"cells": 4, "cells_per_row": 4.0}
    few = {"cells": cells, "audit": {"queries": 10}}
    run_there([(str(data), str(tmp_path / "o"))], 256, **few)
    ids = read_clusters(tmp_path / "o", 20_000)["cluster_id"].to_numpy()
    # All pairs of 10^5 rows are too many at once: block by block.
    wide = np.nan_to_num(rows.astype("f8"))
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-9)
    pairs = []
    for start in range(0, len(rows), 2000):
        cosine = (wide[start : start + 2000] @ wide.T).astype("f4")
        i, j = np.nonzero(cosine >= np.float32(0.95))
        pairs.append((i + start, j))
    i, j = (np.concatenate(side) for side in zip(*pairs, strict=True))
    linked = coo_matrix((np.ones(len(i), np.bool_), (i, j)), (len(rows), len(rows)))
    labels = connected_components(linked, directed=False)[1]
    expected = pd.Series(np.arange(len(rows))).groupby(labels).transform("min").to_numpy()
    np.testing.assert_array_equal(ids, expected)
