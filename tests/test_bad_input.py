"""What is wrong with a data set, a setting or a folder gets one line that names it."""

from __future__ import annotations

import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import dask_dedup
from dask_dedup import DedupError
from dask_dedup.cli.commands import main
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)


def array(rows: int = 7, dim: int = 5, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, dim)).astype(dtype)


@pytest.fixture
def data(tmp_path, write_dataset) -> Path:
    """Three sound parts of 3, 7 and 5 rows."""
    return write_dataset(tmp_path / "data", [array(3), array(7), array(5)])


# --- data sets that are wrong ---------------------------------------------------------------------


class Bomb:
    """Makes the file ``exploded`` in the working folder when it is unpickled."""

    def __reduce__(self):
        return (open, ("exploded", "w"))


def second_embeddings(values: np.ndarray) -> Callable[[Path], None]:
    """Return a change: the second part has ``values`` for embeddings."""

    def change(data: Path) -> None:
        np.save(data / "img_emb" / "img_emb_1.npy", values, allow_pickle=True)

    return change


def second_metadata(table: pa.Table) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        pq.write_table(table, data / "metadata" / "metadata_1.parquet")

    return change


def content(name: str, content_bytes: bytes) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        (data / name).write_bytes(content_bytes)

    return change


def cut(name: str, kept_bytes: int) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        (data / name).write_bytes((data / name).read_bytes()[:kept_bytes])

    return change


def removed(name: str) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        path = data / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def emptied(name: str) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        for path in (data / name).iterdir():
            path.unlink()

    return change


def objects() -> np.ndarray:
    values = np.empty((7, 5), object)
    values[:] = Bomb()
    return values


EMBEDDINGS, METADATA = "img_emb/img_emb_1.npy", "metadata/metadata_1.parquet"
URLS = [f"http://x/{i}" for i in range(7)]
RANDOM_BYTES = np.random.default_rng(0).bytes(5000)

WRONG: dict[str, tuple[Callable[[Path], None], str, str]] = {
    # situation: how the data set is changed, the file that is named, what is said of it
    "missing folder": (removed(""), "", "no such folder or file"),
    "missing img_emb": (removed("img_emb"), "img_emb", "no such folder. A data set is a folder w"),
    "missing metadata": (removed("metadata"), "metadata", "no such folder. A data set is a folder"),
    "empty img_emb": (emptied("img_emb"), "img_emb", "expected *.npy files, found none"),
    "empty metadata": (emptied("metadata"), "metadata", "expected *.parquet files, found none"),
    "part without metadata": (removed(METADATA), "img_emb", "3 embedding files, but"),
    "part without embeddings": (removed(EMBEDDINGS), "img_emb", "2 embedding files, but"),
    "other row count": (second_embeddings(array(11)), EMBEDDINGS, "11 embeddings, but"),
    "mixed dimensions": (second_embeddings(array(7, 11)), EMBEDDINGS, "embeddings have dimension"),
    "one-dimensional": (second_embeddings(np.zeros(7)), EMBEDDINGS, "got shape (7,)"),
    "three-dimensional": (second_embeddings(np.zeros((7, 5, 2))), EMBEDDINGS, "shape (7, 5, 2)"),
    "no columns": (second_embeddings(np.zeros((7, 0))), EMBEDDINGS, "dimension 0"),
    "objects": (second_embeddings(objects()), EMBEDDINGS, "objects, which are never unpickled"),
    "bare pickle": (content(EMBEDDINGS, pickle.dumps(Bomb())), EMBEDDINGS, "expected a .npy file"),
    "integers": (second_embeddings(array(dtype=np.int8)), EMBEDDINGS, "got int8"),
    "complex": (second_embeddings(array(dtype=np.complex64)), EMBEDDINGS, "got complex64"),
    "truncated header": (cut(EMBEDDINGS, 60), EMBEDDINGS, "header cannot be read"),
    "truncated data": (cut(EMBEDDINGS, 200), EMBEDDINGS, "truncated. 7 rows of dimension 5"),
    "empty embeddings": (content(EMBEDDINGS, b""), EMBEDDINGS, "expected a .npy file"),
    "random embeddings": (content(EMBEDDINGS, RANDOM_BYTES), EMBEDDINGS, "expected a .npy file"),
    "empty parquet": (content(METADATA, b""), METADATA, "expected a parquet file"),
    "random parquet": (content(METADATA, RANDOM_BYTES), METADATA, "expected a parquet file"),
    "truncated parquet": (cut(METADATA, 300), METADATA, "expected a parquet file"),
    "damaged footer": (
        content(METADATA, b"PAR1" + bytes(100) + b"\x64\x00\x00\x00PAR1"),
        METADATA,
        "cannot be read",
    ),
    "duplicate names": (
        second_metadata(pa.Table.from_arrays([pa.array(URLS)] * 2, names=["url", "url"])),
        METADATA,
        "column 'url' stands there more than once",
    ),
    "captions in lists": (
        second_metadata(pa.table({"url": URLS, "caption": [["a", "b"]] * 7})),
        METADATA,
        "column 'caption' is list<",
    ),
    "types with nothing in common": (
        lambda data: (
            second_metadata(pa.table({"url": URLS, "x": range(7)}))(data),
            pq.write_table(
                pa.table({"url": URLS[:3], "x": ["a"] * 3}), data / "metadata/metadata_0.parquet"
            ),
        ),
        METADATA,
        "column 'x' is int64, and string in ",
    ),
}  # fmt: skip


HINT = " --skip-bad-parts goes on without it."


@pytest.mark.parametrize("situation", WRONG)
def test_wrong_data_set_is_one_line_and_exit_code_2(situation, data, tmp_path, monkeypatch):
    change, name, message = WRONG[situation]
    change(data)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    out = tmp_path / "out"
    result = CliRunner().invoke(main, ["run", str(data), str(out)])
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"dask-dedup: {data / name}: ")
    assert message in result.stderr
    assert not out.exists()
    assert list(Path().iterdir()) == []  # no pickle was loaded

    with pytest.raises(DedupError) as caught:  # the library says the same
        run_here(data, out)
    assert result.stderr.removesuffix("\n").removesuffix(HINT) == f"dask-dedup: {caught.value}"
    assert not out.exists()


def test_no_part_is_to_blame_for_types_that_do_not_fit(data, tmp_path):
    """Going on without a part would lose its URLs and captions; without the column, nothing."""
    change, _, _ = WRONG["types with nothing in common"]
    change(data)
    for option in ([], ["--skip-bad-parts"]):
        result = CliRunner().invoke(main, ["run", str(data), str(tmp_path / "out"), *option])
        assert result.exit_code == 2
        assert "skip-bad-parts" not in result.stderr
        assert result.stderr.endswith("--drop-columns x goes on without it.\n")


# --- settings and output folders that are wrong ---------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threshold", "1.5"], "dask-dedup: --threshold: "),
        (["--threshold", "0"], "dask-dedup: --threshold: "),
        (["--threshold", "nan"], "dask-dedup: --threshold: "),
        (
            ["--search-threshold", "0.96"],
            "dask-dedup: --search-threshold 0.96 is above clusters.threshold ",
        ),
        (["--memory", "8 elephants"], "dask-dedup: --memory: expected a size such as '8GB'"),
        (["--memory", "1e999"], "dask-dedup: --memory: expected a size such as '8GB'"),
        (["--workers", "0"], "dask-dedup: --workers: "),
        (
            ["--url-column", "nowhere"],
            "metadata_0.parquet: no column 'nowhere' (url_column); the c",
        ),
        (
            ["--caption-column", "no"],
            "metadata_0.parquet: no column 'no' (caption_column); the col",
        ),
        (["--config", "typo.toml"], "typo.toml: unknown setting clusters.treshold; known here: th"),
        (["--config", "bad.toml"], "bad.toml: not a TOML file ("),
        (["--config", "gone.toml"], "gone.toml: cannot be read (No such file or directory)"),
        (["--config", "."], ".: cannot be read (Is a directory)"),
    ],
)
def test_wrong_setting_is_one_line_and_exit_code_2(data, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("typo.toml").write_text("[clusters]\ntreshold = 0.9\n")
    Path("bad.toml").write_text("[clusters\nthreshold = 0.9\n")
    result = CliRunner().invoke(main, ["run", "data", "out", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("dask-dedup: ")
    assert message in result.stderr
    assert not Path("out").exists()


def test_wrong_kind_of_option_is_reported_with_the_usage(data, tmp_path):
    result = CliRunner().invoke(main, ["run", str(data), str(tmp_path / "out"), "--cells", "many"])
    assert result.exit_code == 2
    assert "Invalid value for '--cells': 'many' is not a valid integer" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "file: is a file; the output needs a folder"),
        ("file/out", "file/out: cannot be written (Not a directory)"),
        ("foreign", "foreign: holds files of something else (notes.txt). Choose an empty folder"),
        ("data", "data: holds files of something else (img_emb, metadata)"),
        ("x" * 300, "cannot be written (File name too long)"),
    ],
)
def test_wrong_output_folder_is_one_error_and_stays_as_it_is(
    data, tmp_path, monkeypatch, name, message, overwrite
):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("foreign").mkdir()
    Path("foreign/notes.txt").write_text("mine")
    before = {str(p): p.stat().st_mtime_ns for p in Path().rglob("*")}
    result = CliRunner().invoke(main, ["run", "data", name, *overwrite])
    assert (result.exit_code, result.stdout) == (2, "")
    error = result.stderr.splitlines()[-1]
    assert error.startswith("dask-dedup: ")
    assert message in error
    assert "Traceback" not in result.stderr
    assert {str(p): p.stat().st_mtime_ns for p in Path().rglob("*")} == before


@pytest.mark.parametrize("work", ["file", "file/work", "/dev/null/work"])
def test_working_files_that_cannot_be_written_are_one_error(data, tmp_path, monkeypatch, work):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    result = CliRunner().invoke(main, ["run", "data", "out", "--work", work])
    assert (result.exit_code, result.stdout) == (2, "")
    assert isinstance(result.exception, SystemExit)
    error = result.stderr.splitlines()[-1]
    assert re.match(rf"dask-dedup: {work}/dask-dedup-\w+: cannot be written \(", error)
    assert not Path("out/run.json").exists()
    assert Path("file").read_text() == "mine"


def test_wrong_data_set_by_the_real_command_shows_no_traceback(data, tmp_path):
    removed(METADATA)(data)
    done = subprocess.run(
        [sys.executable, "-m", "dask_dedup", "run", str(data), str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"dask-dedup: {data}/img_emb: 3 embedding files, but")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_data_set_name_that_is_too_long_is_one_line(tmp_path):
    result = CliRunner().invoke(main, ["run", "x" * 300, str(tmp_path / "out")])
    assert result.exit_code == 2
    assert result.stderr == f"dask-dedup: {'x' * 300}: no such folder or file.\n"


def test_data_set_without_any_usable_row_is_refused_with_the_reason(tmp_path, write_dataset):
    data = write_dataset(tmp_path / "data", [np.zeros((5, 3), np.float32)])
    with (
        dask.config.set(scheduler="synchronous"),
        pytest.raises(
            DedupError, match=r"data: none of 5 sampled embeddings is usable; all are ze"
        ),
    ):
        run_here(data, tmp_path / "out")
    assert not (tmp_path / "out" / "summary.json").exists()
