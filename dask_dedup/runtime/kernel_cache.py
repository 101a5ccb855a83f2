"""Where numba keeps compiled kernels, if neither the package nor HOME can be written.

numba tries the package's own folders, then the user's cache, and refuses to compile where neither
takes a file. What it finds in a cache it runs, so a folder that others can write into is none.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

__all__ = ["choose_cache"]

_VARIABLE = "NUMBA_CACHE_DIR"


def choose_cache() -> None:
    """Set ``NUMBA_CACHE_DIR``, for this process and those it starts, if numba needs it.

    It stays as the user has set it, and unset where numba's own choice serves. Else it becomes a
    folder of this user in the temporary directory, kept for the next run; where somebody else
    has that name, a new one, removed in the end.
    """
    if os.environ.get(_VARIABLE) or os.access(Path(__file__).parent, os.W_OK):
        return
    # As numba's own choice, `numba.misc.appdirs`.
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if _is_own(Path(caches, "numba")):
        return
    import tempfile

    try:
        folder = Path(tempfile.gettempdir(), f"dask-dedup-numba-{os.geteuid()}")
        with_others = folder.parent.stat().st_mode
        is_safe = not with_others & stat.S_IWOTH or with_others & stat.S_ISVTX
        if is_safe:
            folder.mkdir(mode=0o700, exist_ok=True)
        if not is_safe or stat.S_IMODE(folder.lstat().st_mode) & 0o077 or not _is_own(folder):
            folder = _passing_folder()
    except FileExistsError:
        folder = _passing_folder()
    except OSError:
        return  # nowhere at all: numba says so
    os.environ[_VARIABLE] = str(folder)
    if "numba" in sys.modules:  # which has read its settings already
        sys.modules["numba"].config.CACHE_DIR = str(folder)


def _is_own(folder: Path) -> bool:
    """Return whether this user can write files into a folder, or make it, and others cannot."""
    while not os.path.lexists(folder):
        folder = folder.parent
    status = folder.stat() if folder.is_dir() else folder.lstat()
    is_mine = status.st_uid in (os.geteuid(), 0) and not status.st_mode & stat.S_IWOTH
    return stat.S_ISDIR(status.st_mode) and is_mine and os.access(folder, os.W_OK | os.X_OK)


def _passing_folder() -> Path:
    import atexit
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="dask-dedup-numba-")
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not a fork of it
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return Path(folder)
