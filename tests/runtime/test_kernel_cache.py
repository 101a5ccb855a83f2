"""Where numba keeps kernels when neither the package nor HOME can be written: as another user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import dask_dedup

PACKAGE = Path(dask_dedup.__file__).parent
NOBODY = 65534
# May read what root may, for the sake of an environment in root's HOME, and write as nobody.
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
AS_NOBODY += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
SCRIPT = """
import os, sys
sys.dont_write_bytecode = True
import dask_dedup
from dask_dedup.vectors import equal_rows as equals
import numpy as np
equals.hash_words(np.zeros((1, 1), np.uint64))
print(os.environ.get("NUMBA_CACHE_DIR", ""))
"""


@pytest.fixture
def stranger(tmp_path):
    """A copy of the package that is not writable, for a user whose HOME is not writable either."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv, to become another user")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder != Path(tempfile.gettempdir()):
            folder.chmod(folder.stat().st_mode | 0o055)
    site = tmp_path / "site"
    shutil.copytree(PACKAGE, site / "dask_dedup", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)

    def run(script=SCRIPT, **variables):
        environment = {
            name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR",)
        }
        environment |= {"PYTHONPATH": str(site), "HOME": "/nonexistent", "OMP_NUM_THREADS": "1"}
        environment |= {"TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": "", **variables}
        return subprocess.run(
            [*AS_NOBODY, sys.executable, "-c", script], env=environment, cwd="/", text=True,
            capture_output=True, check=False,
        )  # fmt: skip

    if run("import numba").returncode:
        pytest.skip("the environment of the tests cannot be read by another user")
    return run


def test_choose_cache_makes_a_private_folder_that_the_next_process_finds(stranger, tmp_path):
    ran = stranger()
    assert ran.returncode == 0, ran.stderr
    folder = tmp_path / "tmp" / f"dask-dedup-numba-{NOBODY}"
    assert ran.stdout.strip() == str(folder)
    assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (NOBODY, 0o700)
    kernels = list(folder.rglob("*.nbc"))
    assert kernels
    written = {path: path.stat().st_mtime_ns for path in kernels}
    assert stranger().stdout == ran.stdout
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.nbc")} == written


@pytest.mark.parametrize("plant", ["of another", "open to all", "link", "file"])
def test_choose_cache_uses_no_folder_that_others_may_have_filled(stranger, tmp_path, plant):
    folder = tmp_path / "tmp" / f"dask-dedup-numba-{NOBODY}"
    target = folder
    if plant == "link":
        target = tmp_path / "theirs"
        folder.symlink_to(target)
    if plant == "file":
        folder.write_text("")
    else:
        target.mkdir()
        target.chmod(0o777 if plant != "of another" else 0o755)
        if plant == "open to all":
            os.chown(target, NOBODY, NOBODY)
    script = "import os, dask_dedup; print(os.environ['NUMBA_CACHE_DIR'])"
    script += "; print(oct(os.stat(os.environ['NUMBA_CACHE_DIR']).st_mode & 0o777))"
    ran = stranger(script)
    assert ran.returncode == 0, ran.stderr
    used, mode = ran.stdout.splitlines()
    assert Path(used) != folder
    assert Path(used).parent == folder.parent
    assert mode == "0o700"
    assert not Path(used).exists()  # it went with its process


def test_choose_cache_leaves_numbas_own_choice_where_it_serves(stranger, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    script = "import os, dask_dedup; print(os.environ.get('NUMBA_CACHE_DIR'))"
    assert stranger(script, HOME=str(home)).stdout == "None\n"
    assert stranger(script, NUMBA_CACHE_DIR="/given").stdout == "/given\n"
    home.chmod(0o777)  # others may have put kernels there
    assert stranger(script, HOME=str(home)).stdout.startswith(str(tmp_path / "tmp"))
