"""Environments for the rivals that are not faiss: `bench/env-<name>`, made with venv and pip.

Needs nothing beyond the standard library. Every environment also gets what `contenders.py` and
`results.py` import. All four packages can be installed with Python 3.11; autofaiss with numpy 1.26.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench"

#: What pip installs into the environment of a name.
PACKAGES = {
    "usearch": ("usearch==2.26.6",),
    "pynndescent": ("pynndescent==0.7.0",),
    "semhash": ("semhash==0.5.0",),
    "autofaiss": ("autofaiss==2.18.0", "pyarrow==19.0.1"),  # autofaiss holds numpy below 2
}
COMMON = ("numpy", "pandas", "pyarrow", "scipy")


def python_of(name: str) -> Path:
    """Return the Python of an environment, whether it is there or not."""
    return BENCH / f"env-{name}" / "bin" / "python"


def prepare_environment(name: str) -> Path:
    """Return the Python of an environment; make it if it is not there, or asks for other packages.

    Raises
    ------
    subprocess.CalledProcessError
        pip could not install a package; what was begun is removed.
    """
    folder = BENCH / f"env-{name}"
    wanted = "\n".join((*PACKAGES[name], *COMMON))
    installed = folder / "installed.txt"
    if installed.exists() and installed.read_text() == wanted:
        return python_of(name)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python_of(name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run([*pip, *PACKAGES[name], *COMMON], check=True)
    except subprocess.CalledProcessError:
        shutil.rmtree(folder)
        raise
    installed.write_text(wanted)
    return python_of(name)


def main() -> None:
    """Make the environments named on the command line, or all of them."""
    for name in sys.argv[1:] or PACKAGES:
        print(prepare_environment(name))


if __name__ == "__main__":
    main()
