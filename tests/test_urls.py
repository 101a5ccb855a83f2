"""Every command with its paths in a bucket: what comes of it equals what comes of a disk.

`CALLS` has each command with the options that name a path. All paths lie in the bucket, or (slow)
one of them. One that has to be on a disk is refused in one line that names it.
"""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
from botocore.session import Session
from click.testing import CliRunner
from distributed.utils import json_load_robust

from dask_dedup import Settings
from dask_dedup.cli import commands as cli
from dask_dedup.paths import as_path
from dask_dedup.storage.listing import glob_files
from dask_dedup.storage.objects import read_content, upload

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

BUCKET = "s3://urls"


@dataclass(frozen=True)
class Call:
    """A command's words, with {paths}, and what of its result is compared."""

    words: list[str]
    result: str = ""  # pattern of the files under {out}; empty: what it prints
    on_disk: bool = False  # {out} has to be on a disk
    labels: str = ""  # a CSV of pairs, all of which are called duplicates before the call


CLUSTER = ["--cluster", "{cluster}"]
RUN = [*CLUSTER, "--cells", "8", "--audit-queries", "50", "--search-threshold", "0.9"]
ADC = [*CLUSTER, "--finder", "adc", "--factory", "Flat", "--model", "{model}"]
SPACE = ["--models", "raw {model}"]
CLUSTERS = "clusters/*.parquet"
#: Calls that follow each other into one {out}.
CALLS = {
    "run": [
        Call(["run", "{data}", "{out}", "--work", "{work}", "--config", "{config}", *RUN],
             CLUSTERS),
        Call(["run", "{data}", "{out}", "--config", "{config}", *RUN], CLUSTERS),
        Call(["run", "{data}", "{out}", *RUN, "--threshold", "0.98"], CLUSTERS),
        Call(["status", "{out}"]),
        Call(["status", "{out}", "--verify"]),
        Call(["show", "{out}", "--row", "3", "--path", "7"]),
        Call(["show", "{out}", "--url", "http://x/0-5.jpg", "--json"]),
        Call(["plan", "{data}", "--like", "{out}"]),
        Call(["evaluate", "components", "{out}/forest/part-00000.parquet", "--threshold", "0.95"]),
    ],
    "export": [
        Call(["run", "{data}", "{out}", *RUN], CLUSTERS),
        Call(["export", "{out}", "{out}-clean", "--dataset", "{data}", *CLUSTER],
             "-clean/img_emb/*.npy"),
        Call(["export", "{out}", "{out}-clean", "--overwrite", "--format", "csv", "--shard-rows",
              "70", *CLUSTER], "-clean/csv/*.csv"),
        Call(["export", "{out}", "{out}-tars", "--format", "webdataset", "--shards", "{tars}",
              "--key", "caption", *CLUSTER], "-tars/webdataset/*.tar"),
        Call(["apply", "{out}", "{data}", "{out}-applied", *CLUSTER], "-applied/**/*.parquet"),
        Call(["apply", "{out}", "{data}/metadata/*.parquet", "{out}-applied", *CLUSTER,
              "--overwrite", "--ambiguous", "drop"], "-applied/metadata/*.parquet"),
    ],
    "run --overwrite": [
        Call(["run", "{data}", "{out}", *RUN], CLUSTERS),
        Call(["run", "{data}", "{out}", *RUN, "--threshold", "0.97", "--overwrite"], CLUSTERS),
    ],
    "run --keep-stages": [
        Call(["run", "{data}", "{out}", *RUN, "--keep-stages"], CLUSTERS),
        Call(["run", "{data}", "{out}", *RUN, "--threshold", "0.97", "--keep-stages"], CLUSTERS),
    ],
    "run patterns": [
        Call(["run", "{data}", "{out}", *RUN, "--modality", "text", "--metadata",
              "{data}/metadata/*.parquet", "--image-embeddings", "img_emb/*.npy",
              "--text-embeddings", "{data}/text_emb/*.npy"], CLUSTERS),
    ],
    "run columns": [
        Call(["run", "{columns}", "{out}", *RUN, "--embedding-column", "emb"], CLUSTERS),
    ],
    "run adc": [
        Call(["run", "{data}", "{out}", "--work", "{work}", *ADC], CLUSTERS),
        Call(["run", "{data}", "{out}", *ADC, "--threshold", "0.98"], CLUSTERS),
    ],
    "run adc --no-verify": [
        Call(["run", "{data}", "{out}", *ADC, "--no-verify"], CLUSTERS),
        Call(["run", "{data}", "{out}", *ADC, "--no-verify", "--threshold", "0.97"], CLUSTERS),
    ],
    "results": [
        Call(["run", "{data}", "{out}", *RUN], CLUSTERS),
        Call(["sweep", "{out}", "--csv", "{out}-sweep.csv"], "-sweep.csv"),
        Call(["relabel", "{out}", "{out}-other", "--threshold", "0.97", "--dataset", "{data}",
              "--work", "{work}", *CLUSTER], "-other/clusters/*.parquet"),
        Call(["keep", "{out}", "{out}-kept", "--decisions", "{decisions}", "--dataset", "{data}",
              "--work", "{work}", *CLUSTER], "-kept/clusters/*.parquet"),
        Call(["report", "{out}", "{out}-page/index.html", "--dataset", "{data}", "--images",
              "{data}/images/{{caption}}.jpg"]),
        Call(["verbatim", "candidates", "{out}", "{out}-verbatim", "--caption-length", "1",
              *CLUSTER], "-verbatim/candidates/candidates.csv"),
        Call(["sample", "{out}-other", "{out}-pairs.csv", "-n", "60"], "-pairs.csv"),
        Call(["precision", "{out}-pairs.csv", "--plot", "{out}-precision.png"]),
        Call(["report", "{out}-other", "{out}-precise/index.html", "--dataset", "{data}",
              "--precision", "{out}-pairs.csv"], labels="{out}-pairs.csv"),
        Call(["sweep", "{out}-other", "--pairs", "{out}-pairs.csv", "--plot", "{out}-sweep.png"],
             "-sweep.png"),
    ],
    "build-index": [
        Call(["build-index", "{data}", "{out}", "--factory", "IVF8,Flat", "--model", "{model}",
              *CLUSTER], "shards/*.faiss"),
        Call(["search", "{out}", "{queries}", "{out}-found.parquet", "--dataset", "{data}"],
             "-found.parquet"),
    ],
    "search": [Call(["search", "{index}", "{data}", "{out}/found"], "/found")],
    "fit-compressor": [
        Call(["fit-compressor", "{data}", "{out}", "--kind", "mse", "--dim", "4", "--epochs", "1",
              "--sample-rows", "200"], "model.safetensors"),
        Call(["fit-compressor", "{data}", "{out}", "--kind", "pca", "--dim", "4", "--overwrite"],
             "model.safetensors"),
    ],
    "compress": [
        Call(["compress", "{data}", "{model}", "{out}", *CLUSTER], "img_emb/*.npy"),
        Call(["compress", "{data}", "{model}", "{out}", *CLUSTER], "metadata/*.parquet"),
    ],
    "compress --overwrite": [
        Call(["compress", "{data}", "{model}", "{out}", *CLUSTER], "img_emb/*.npy"),
        Call(["compress", "{data}", "{model}", "{out}", *CLUSTER, "--dtype", "float32",
              "--overwrite"], "img_emb/*.npy"),
    ],
    "calibrate": [
        Call(["calibrate", "{data}", "{out}", "--factory", "IVF8,PQ4x4", "--model", "{model}",
              "--config", "{config}", "--queries", "60", *CLUSTER], "curves.csv"),
    ],
    "plan": [
        Call(["plan", "{data}", "--config", "{config}"]),
        Call(["cluster-script", "--config", "{slurm}"]),
    ],
    "truth": [
        Call(["evaluate", "truth", "{data}", "{out}", "--queries", "all", "--threshold", "0.9"],
             "neighbours/*.parquet", True),
    ],
    "zeroshot": [
        Call(["evaluate", "zeroshot", "{data}", "{classes}", "{labels}", *SPACE, "--out", "{out}"],
             "zeroshot.json", True),
    ],
    "retrieval": [
        Call(["evaluate", "retrieval", "{data}", "--table", "{labels}", *SPACE, "--out", "{out}"],
             "retrieval.json", True),
    ],
    "pareto": [
        Call(["evaluate", "pareto", "{data}", "{out}", "--config", "{pareto}", "--models",
              "{model}", "--queries", "20", "--repeats", "1"],
             "truth/neighbours/*.parquet", True),
    ],
    "paper": [
        Call(["evaluate", "paper", "{data}", "{out}", "--config", "{paper}", "--space", "{data}"],
             "components.json", True),
    ],
}  # fmt: skip
INPUTS = ("data", "columns", "tars", "model", "index", "queries", "classes", "labels", "config",
          "slurm", "pareto", "paper", "decisions")  # fmt: skip
FILES = {"queries": "queries.npy", "classes": "classes.npy", "labels": "labels.parquet",
         "config": "config.toml", "slurm": "slurm.toml", "pareto": "pareto.toml",
         "paper": "paper.toml", "decisions": "decisions.csv"}  # fmt: skip


@pytest.fixture(scope="module")
def cluster(endpoint, tmp_path_factory):
    """Address of a scheduler with one worker that knows the S3 server."""
    file = tmp_path_factory.mktemp("cluster") / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    processes = [
        subprocess.Popen([*dask, *map(str, words), "--scheduler-file", file, "--no-dashboard"],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for words in (
            ["scheduler", "--host", "127.0.0.1", "--port", 0],
            ["worker", "--nthreads", 1],
        )
    ]  # fmt: skip
    address = json_load_robust(str(file), timeout=60)["address"]
    yield address
    for process in reversed(processes):
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def disk(cluster, tmp_path_factory, write_dataset):
    """The inputs of all calls on a disk: name to path."""
    base = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    images = rng.normal(size=(600, 16))
    images[400:] = images[:200] + 0.05 * rng.normal(size=(200, 16))
    texts = images + 0.1 * rng.normal(size=images.shape)
    order = rng.permutation(600)
    parts = [np.split(rows[order].astype("f4"), [250]) for rows in (images, texts)]
    paths = {name: str(base / FILES.get(name, name)) for name in INPUTS}
    write_dataset(base / "data", parts[0], texts=parts[1])
    (base / "columns").mkdir()
    for i, rows in enumerate(parts[0]):
        frame = pd.DataFrame({"url": [f"u{i}-{j}" for j in range(len(rows))], "emb": list(rows)})
        frame.to_parquet(base / "columns" / f"{i}.parquet")
    (base / "tars").mkdir()
    for i in range(2):
        with tarfile.open(base / "tars" / f"{i:05d}.tar", "w") as tar:
            for j in range(0, 250, 3):
                tar.addfile(tarfile.TarInfo(f"{i}-{j}.txt"))
    np.save(base / "queries.npy", images[:5].astype("f4"))
    (base / "decisions.csv").write_text("row_id,decision\n5,keep\n6,drop\n")
    np.save(base / "classes.npy", rng.normal(size=(4, 16)).astype("f4"))
    labels = pd.DataFrame({"row": np.arange(0, 600, 3), "class_id": np.arange(200) % 4})
    labels.to_parquet(base / "labels.parquet")
    (base / "config.toml").write_text("[clusters]\nthreshold = 0.96\n")
    (base / "slurm.toml").write_text('[cluster]\nkind = "slurm"\nmemory = "4GB"\n')
    (base / "pareto.toml").write_text('[pareto]\nfactories = ["Flat"]\nks = [5]\n')
    (base / "paper.toml").write_text("[components]\nthreshold = 0.95\n")
    for words in (
        ["fit-compressor", "{data}", "{model}", "--kind", "pca", "--dim", "8"],
        ["build-index", "{data}", "{index}", "--factory", "IVF8,Flat", *CLUSTER],
    ):
        done = invoke(words, {**paths, "cluster": cluster})
        assert done.exit_code == 0, done.output
    return {**paths, "cluster": cluster}


@pytest.fixture(scope="module")
def store(disk):
    """The same in a bucket: name to URL."""
    Session().create_client("s3").create_bucket(Bucket="urls")
    base = Path(disk["data"]).parent
    for path in sorted(base.rglob("*")):
        if path.is_file():
            upload(path, as_path(f"{BUCKET}/{path.relative_to(base)}"))
    urls = {name: f"{BUCKET}/{Path(disk[name]).name}" for name in INPUTS}
    return {**urls, "cluster": disk["cluster"]}


def invoke(words, paths):
    return CliRunner().invoke(cli.main, [word.format(**paths) for word in words])


def perform(name, paths):
    """Make calls one after the other; yield each, and what has come of it."""
    for call in CALLS[name]:
        if call.labels:
            pairs = as_path(call.labels.format(**paths))
            with pairs.open() as file:
                labelled = pd.read_csv(file, dtype=str).assign(label="yes")
            pairs.write_text(labelled.to_csv(index=False))
        done = invoke(call.words, paths)
        if not isinstance(done.exception, SystemExit | None):
            raise done.exception
        yield call, done


def content_of(call, paths, done):
    """What has to be the same wherever it lies: digests of files, or what was printed."""
    if not call.result:
        text = done.stdout
        for path in sorted(paths.values(), key=len, reverse=True):
            text = text.replace(path, "PATH")
        text = text.replace(os.getcwd(), "HERE")
        return re.sub(r"[0-9.]+ (s|ms|min)\b", "TIME", " ".join(text.split()))
    out = paths["out"]
    base, _, pattern = f"{out}{'' if call.result[0] in '-/' else '/'}{call.result}".rpartition("//")
    files = sorted(glob_files(as_path("/"), f"{base}{'//' if base else ''}{pattern}"))
    assert files, (call, done.output)
    digests = {}
    for file in files:
        content = read_content(as_path(file))
        if file.endswith(".json"):
            content = re.sub(rb'.*(seconds|"path"|"model").*', b"", content)
        digests[file.removeprefix(out)] = hashlib.sha256(content).hexdigest()
    return digests


@pytest.fixture(scope="module")
def expected(disk, tmp_path_factory):
    """Return the function that gives calls' results with every path on a disk, made once."""
    made = {}

    def of(name):
        if name not in made:
            base = tmp_path_factory.mktemp("expected")
            paths = {**disk, "out": f"{base}/out", "work": f"{base}/work"}
            made[name] = []
            for call, done in perform(name, paths):
                assert done.exit_code == 0, done.output
                made[name].append(content_of(call, paths, done))
        return made[name]

    return of


def check(name, paths, expected, tmp_path):
    for (call, done), right in zip(perform(name, paths), expected(name), strict=True):
        if call.on_disk and "://" in paths["out"]:
            assert done.exit_code == 2, done.output
            (line,) = done.stderr.splitlines()
            assert line.startswith(f"dask-dedup: {paths['out']}: evaluations write to disks only")
        else:
            assert done.exit_code == 0, done.output
            assert content_of(call, paths, done) == right, call.words
    assert not list(tmp_path.glob("s3*"))


SLOW = (
    "run --overwrite",
    "compress --overwrite",
    "run --keep-stages",
    "run adc --no-verify",
    "fit-compressor",
    "calibrate",
    "pareto",
    "paper",
)


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow if one in SLOW else ()) for one in CALLS]
)
def test_command_with_all_paths_in_a_bucket(name, store, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = f"{BUCKET}/{name.replace(' ', '-')}"
    paths = {**store, "out": f"{base}/out", "work": f"{base}/work"}
    check(name, paths, expected, tmp_path)
    if CALLS[name][0].on_disk:
        check(name, {**paths, "out": f"{tmp_path}/out"}, expected, tmp_path)
    left = glob_files(as_path(BUCKET), f"{base}/**")
    left = [one for one in left if "/.lock" in one or f"{base}/work/" in one or "/stages/" in one]
    assert bool(left) == (name == "run --keep-stages"), left


ONE_PATH = [
    (name, path)
    for name, calls in CALLS.items()
    for path in (*INPUTS, "out", "work")
    if any(f"{{{path}}}" in " ".join(call.words) for call in calls)
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "path"), ONE_PATH)
def test_command_with_one_path_in_a_bucket(
    name, path, disk, store, expected, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    paths = {**disk, "out": f"{tmp_path}/out", "work": f"{tmp_path}/work"}
    paths[path] = store.get(path, f"{BUCKET}/one/{name.replace(' ', '-')}/{path}")
    check(name, paths, expected, tmp_path)


def test_every_command_and_option_that_takes_a_path_is_tried():
    calls = [call.words for calls in CALLS.values() for call in calls]

    def commands(group, above=()):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from commands(command, (*above, name))
            else:
                yield [*above, name], command

    for words, command in commands(cli.main):
        assert not [one.name for one in command.params if isinstance(one.type, click.Path)]
        if words == ["warm-up"]:  # has no path
            continue
        if words[0] == "verbatim" and words[1] != "candidates":  # in tests/verbatim/test_score.py
            continue
        own = [call for call in calls if call[: len(words)] == words]
        assert own, words
        for param in command.params:
            if "path" in param.type.name and param.param_type_name == "option":
                assert any(set(param.opts) & set(call) for call in own), (words, param.opts)


def test_every_setting_that_is_a_path_is_tried():
    used = {word for calls in CALLS.values() for call in calls for word in call.words}
    for table, field in Settings.model_fields.items():
        for key, setting in getattr(field.annotation, "model_fields", {}).items():
            # as those are declared that may be URLs
            names = [
                getattr(getattr(one, "func", None), "__name__", "") for one in setting.metadata
            ]
            if "_without_credentials" in names:
                assert f"--{key.replace('_', '-')}" in used, (table, key)
