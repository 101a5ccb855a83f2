"""Verbatim copies by the command: candidates, pictures of a real pipeline, scores, page; killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "dask_dedup", "verbatim"]


def _run(*arguments: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments), "--workers", "1"], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _kill_when(is_time, arguments: Sequence[str | Path], cwd: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments), "--workers", "1"],
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not is_time():
        assert process.poll() is None, "it was done before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.filterwarnings("ignore")  # of diffusers and transformers
def test_verbatim_chain_killed_in_the_midst_goes_on(
    tmp_path: Path, write_dataset, save_tiny_model
) -> None:
    rng = np.random.default_rng(7)
    which = np.repeat(np.arange(30), 4)
    rows = rng.normal(size=(30, 16))[which] + 0.01 * rng.normal(size=(120, 16))
    metadata = pd.DataFrame(
        {
            "url": [f"https://example.org/{i}.png" for i in range(120)],
            "caption": [f"a picture of {i}" for i in which],
            "key": [f"{i:09d}" for i in range(120)],
        }
    )
    data = write_dataset(tmp_path / "data", [rows.astype("f4")], [metadata])
    (data / "images").mkdir()
    for i in range(120):
        picture = rng.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(picture).save(data / f"images/{i:09d}.png")
    model = save_tiny_model(tmp_path / "model")
    run = [sys.executable, "-m", "dask_dedup", "run", "data", "out", "-q", "--workers", "1"]
    subprocess.run(run, cwd=tmp_path, check=True)
    assert "30 candidates" in _run("candidates", "out", "dest", cwd=tmp_path)

    generate = (
        "generate",
        "dest",
        "--model",
        model,
        "--seeds",
        "3",
        "--steps",
        "3",
        "--batch",
        "2",
    )
    pictures = tmp_path / "dest/generated/pictures"

    def some_are_there() -> bool:
        return pictures.is_dir() and len([*pictures.glob("0*.png")]) >= 10

    _kill_when(some_are_there, generate, tmp_path)
    before = {path.name: path.stat().st_ino for path in pictures.glob("0*.png")}
    assert 10 <= len(before) < 90
    assert f"({len(before)} were there)" in _run(*generate, cwd=tmp_path)
    after = {path.name: path.stat().st_ino for path in pictures.glob("0*.png")}
    assert len(after) == 90 and before.items() <= after.items()

    # One prompt gave exactly its training picture.
    candidates = pd.read_parquet(tmp_path / "dest/candidates/candidates.parquet")
    shutil.copy(data / f"images/{candidates['key'][4]}.png", pictures / "000004-00-0001.png")
    _run("score", "dest", "--preset", "webster", "--preset", "carlini", cwd=tmp_path)
    scores = pd.read_parquet(tmp_path / "dest/scores/scores.parquet")
    copies = scores[scores["kind"] != "none"]
    assert copies["preset"].tolist() == ["webster", "carlini"]
    assert copies["kind"].tolist() == ["matching", "extracted"]
    assert (copies["score"] == 0).all() and (copies["candidate"] == 4).all()
    assert (copies["row_id"] == candidates["row_id"][4]).all() and (copies["k"] == 4).all()
    summary = json.loads((tmp_path / "dest/scores/summary.json").read_text())
    assert summary["scored"] == 90 and summary["problems"] == {}

    done = subprocess.run(
        [*COMMAND, "report", "dest"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "90 pictures" in done.stdout
    assert "<b>1</b> of 90 pictures is a copy" in (tmp_path / "dest/report/index.html").read_text()
