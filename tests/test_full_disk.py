"""Disks that fill: small file systems of a name space that ends with the test."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import dask_dedup

OPTIONS = ["--workers", "1", "--cells-per-row", "3", "--cells", "12", "-q"]  # of `photo_clusters`


def in_own_space(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script of bash that may mount, seen by nobody else."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", script, "script"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture(scope="module", autouse=True)
def can_mount(tmp_path_factory):
    tried = in_own_space("mount -t tmpfs tmpfs $1", tmp_path_factory.mktemp("mount"))
    if tried.returncode:
        pytest.skip(f"no file systems of one's own here: {tried.stderr.strip()}")


FILLS = """
disk=$1 data=$2 stage=$3 kept=$4 python=$5; shift 5
mount -t tmpfs -o size=100m tmpfs $disk
$python -m dask_dedup run $data $disk/out "$@" &
until [ -e $disk/out/stages/$stage/manifest.json ]; do sleep 0.005; done
kill -STOP $!
dd if=/dev/zero of=$disk/filler bs=64k status=none 2> /dev/null
kill -CONT $!
wait $!; echo "ended with $?"
find $disk/out -name '.unfinished-*'; ls $disk/out
rm $disk/filler
$python -m dask_dedup run $data $disk/out "$@"; echo "then with $?"
cp -r $disk/out/clusters $kept
"""


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("layout", marks=pytest.mark.slow),
        "join",
        pytest.param("forests", marks=pytest.mark.slow),
    ],
)
def test_disk_that_fills_stops_the_run_and_with_room_it_goes_on(
    photos, tmp_path, photo_clusters, stage
):
    (tmp_path / "disk").mkdir()
    paths = tmp_path / "disk", photos, stage, tmp_path / "clusters", sys.executable
    ran = in_own_space(FILLS, *paths, *OPTIONS)
    said = [line for line in ran.stderr.splitlines() if line.startswith("dask-dedup: ")]
    assert len(said) == 1, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "full" in said[0] or "No space left on device" in said[0]
    assert "the same command continues where this stopped" in said[0]
    lines = ran.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("ended with 2", "then with 0")
    assert not [line for line in lines if "unfinished" in line or line == "summary.json"]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "clusters"), photo_clusters)


FULL = """
work=$1 python=$2; shift 2
mount --bind $work /mnt
mount -t tmpfs -o size=64k tmpfs /tmp
mount -t tmpfs -o size=64k tmpfs /var/tmp
dd if=/dev/zero of=/tmp/filler bs=4k status=none 2> /dev/null
dd if=/dev/zero of=/var/tmp/filler bs=4k status=none 2> /dev/null
cd /mnt
$python -m dask_dedup run /mnt/data /mnt/out "$@"; echo "ended with $?"
"""


def test_run_needs_no_tmp(photos, tmp_path, photo_clusters):
    here = [Path(sys.prefix), Path(dask_dedup.__file__), Path(os.__file__)]
    if any(path.resolve().is_relative_to("/tmp") for path in here):
        pytest.skip("the package itself lies in /tmp")
    shutil.copytree(photos, tmp_path / "data")
    ran = in_own_space(FULL, tmp_path, sys.executable, *OPTIONS)
    assert ran.stdout == "ended with 0\n", ran.stderr
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out" / "clusters"), photo_clusters)
