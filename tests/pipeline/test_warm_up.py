from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dask_dedup.pipeline.warm_up import are_compiled

SCRIPT = """
import sys
from dask_dedup.pipeline.warm_up import are_compiled, warm_up
print(are_compiled())
if sys.argv[1:]:
    warm_up()
    print(are_compiled())
"""


def in_cache(folder: Path, *command: str) -> str:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=True
    )
    return done.stderr if "run" in command else done.stdout


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*.nbi")}


def test_are_compiled_is_false_where_numba_has_nothing(tmp_path):
    assert in_cache(tmp_path, "-c", SCRIPT).splitlines()[-1] == "False"


def test_are_compiled_is_false_of_kernels_older_than_their_source(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    source = package / "stale_kernels.py"
    source.write_text(
        "import numba\n\n@numba.njit(cache=True)\n"
        "def double(x):\n    return 2 * x\n\nprint(double(3))\n"
    )
    sys.path.insert(0, str(package))
    try:
        assert are_compiled(["stale_kernels"])
        later = source.stat().st_mtime + 100
        os.utime(source, (later, later))
        assert not are_compiled(["stale_kernels"])
    finally:
        sys.path.remove(str(package))
        sys.modules.pop("stale_kernels", None)


@pytest.mark.slow
def test_warm_up_compiles_all_that_a_run_calls(tmp_path, clipart):
    cache = tmp_path / "cache"
    said = in_cache(cache, "-c", SCRIPT, "do").splitlines()
    assert (said[0], said[-1]) == ("False", "True")
    before = kept(cache)
    run = ("-m", "dask_dedup", "run", str(clipart), str(tmp_path / "out"))
    assert "compiling kernels" not in in_cache(cache, *run)
    assert kept(cache) == before


@pytest.mark.slow
def test_first_run_says_what_it_waits_for(tmp_path, clipart):
    run = ("-m", "dask_dedup", "run", str(clipart), str(tmp_path / "out"))
    assert in_cache(tmp_path / "cache", *run).count("compiling kernels (once): about 20 s") == 1
