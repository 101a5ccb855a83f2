"""Exports in img2dataset's hands: it downloads from a server here, and what it wrote is read back.

It pins old packages and so runs in an environment of its own: `make test-readers` makes that, and
names the program in ``IMG2DATASET``.
"""

import io
import json
import os
import subprocess
import tarfile
from collections import namedtuple
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import dask_dedup
from dask_dedup import export
from dask_dedup.runtime.executor import compute_tasks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.readers,
    pytest.mark.skipif("IMG2DATASET" not in os.environ, reason="run by `make test-readers`"),
]

ROWS, COPIES = 60, 20  # the last are copies of the first
LOST = {3, 25, 45}  # their pictures are not on the server; row 43 is a copy of row 3
WITHOUT_URL = 30
SHARD = 10

Web = namedtuple("Web", "data out metadata pictures")


@pytest.fixture(scope="module")
def web(tmp_path_factory, write_dataset):
    """A finished run over a data set whose pictures a server of this machine has."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(ROWS, 16)).astype("f4")
    rows[-COPIES:] = rows[:COPIES]
    pictures = [picture(rng) for _ in range(ROWS)]
    by_path = {path_of(i): pictures[i] for i in range(ROWS) if i not in LOST}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = by_path.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    metadata = pd.DataFrame(
        {
            "url": [f"http://127.0.0.1:{server.server_port}{path_of(i)}" for i in range(ROWS)],
            "caption": [f'caption {i}: "é",\n<b>' for i in range(ROWS)],
        }
    )
    metadata.loc[WITHOUT_URL, "url"] = None
    base = tmp_path_factory.mktemp("web")
    data = write_dataset(base / "data", [rows[:25], rows[25:]], [metadata[:25], metadata[25:]])
    settings = {"audit.queries": 0, "cells.cells": 1}
    dask_dedup.run(data, base / "out", settings, execute=compute_tasks)
    yield Web(data, base / "out", metadata, pictures)
    server.shutdown()
    server.server_close()


def path_of(row):
    return f"/pictures/{row}.jpg?size=32&of={row}"


def picture(rng):
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype="u1")).save(file, "JPEG")
    return file.getvalue()


def download(urls, tars, **options):
    """Let img2dataset download what a folder of parquet files lists, byte for byte."""
    given = {
        "url_list": urls,
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "caption",
        "output_format": "webdataset",
        "output_folder": tars,
        "number_sample_per_shard": SHARD,
        "disable_all_reencoding": True,
        "processes_count": 1,
        "thread_count": 2,
        **options,
    }
    words = [f"--{name}={value}" for name, value in given.items()]
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
    done = subprocess.run(
        [os.environ["IMG2DATASET"], *words], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr


def samples(folder):
    """All samples of some tars: key to files."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, ending = member.name.partition(".")
                assert ending not in found.setdefault(key, {})
                found[key][ending] = tar.extractfile(member).read()
    return found


def notes_of(tars):
    """What img2dataset says of each URL; in its files they stand as they came."""
    return pd.concat(map(pd.read_parquet, sorted(tars.glob("*.parquet")))).sort_values("key")


@pytest.mark.filterwarnings("ignore")  # of the readers
def test_export_is_downloaded_by_img2dataset_and_read_by_others(tmp_path, web):
    summary = export(web.out, tmp_path / "to", format="img2dataset")
    tars = tmp_path / "tars"
    download(tmp_path / "to" / "img2dataset", tars, save_additional_columns='["row_id"]')
    listed = [i for i in range(ROWS - COPIES) if i != WITHOUT_URL]
    assert (summary["rows"], summary["without_url"]) == (len(listed), 1)

    notes = notes_of(tars)
    assert notes["row_id"].tolist() == listed
    assert set(notes.loc[notes["status"] != "success", "row_id"]) == LOST & set(listed)

    found = samples(tars)
    there = notes[notes["status"] == "success"].set_index("key")["row_id"]
    assert set(found) == set(there.index)
    for key, files in found.items():
        row = there[key]
        assert files["jpg"] == web.pictures[row]
        assert files["txt"].decode() == web.metadata["caption"][row]
        note = json.loads(files["json"])
        assert (note["key"], note["url"]) == (key, web.metadata["url"][row])

    paths = sorted(map(str, tars.glob("*.tar")))
    webdataset = pytest.importorskip("webdataset")
    read = {s["__key__"]: s["jpg"] for s in webdataset.WebDataset(paths, shardshuffle=False)}
    assert read == {key: files["jpg"] for key, files in found.items()}
    datasets = pytest.importorskip("datasets")
    table = datasets.load_dataset(
        "webdataset", data_files=paths, split="train", cache_dir=str(tmp_path / "cache")
    )
    captions = web.metadata["caption"]
    assert sorted(table["txt"]) == sorted(captions[list(there)])


@pytest.fixture(scope="module")
def tars(web, tmp_path_factory):
    """The whole data set, downloaded."""
    folder = tmp_path_factory.mktemp("whole") / "tars"
    download(web.data / "metadata", folder)
    return folder


@pytest.mark.parametrize("key", ["{shard}{index}", "key"])
def test_tars_of_img2dataset_are_exported_without_the_copies(tmp_path, web, tars, key):
    out = web.out
    if key == "key":  # as clip-retrieval has it in the metadata of the data set
        out = run_with(tmp_path, web, web.metadata.assign(key=notes_of(tars)["key"].tolist()))
    options = {"shards": tars, "key": key, "samples_per_shard": SHARD}
    summary = export(out, tmp_path / "to", format="webdataset", **options)
    # Row 43 stays, since row 3, which it is a copy of, has no picture.
    kept = {*range(ROWS - COPIES), 43} - LOST - {WITHOUT_URL}
    found = [files["jpg"] for files in samples(tmp_path / "to" / "webdataset").values()]
    assert sorted(found) == sorted(web.pictures[i] for i in kept)
    there = samples(tars)
    for name, files in samples(tmp_path / "to" / "webdataset").items():
        assert files == there[name]
    assert (summary["rows"], summary["samples"]) == (len(kept), ROWS - len(LOST) - 1)


def run_with(tmp_path, web, metadata):
    """Run over the same rows with other metadata."""
    data = tmp_path / "data"
    (data / "metadata").mkdir(parents=True)
    (data / "img_emb").symlink_to(web.data / "img_emb")
    for i, own in enumerate((metadata[:25], metadata[25:])):
        own.to_parquet(data / "metadata" / f"metadata_{i}.parquet", index=False)
    run = partial(dask_dedup.run, execute=compute_tasks)
    run(data, tmp_path / "out", {"audit.queries": 0, "cells.cells": 1})
    return tmp_path / "out"
