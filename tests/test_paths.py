"""Paths on disks and in stores: what mypy lets be done with them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from upath import UPath

from dask_dedup.errors import SettingsError
from dask_dedup.paths import as_path, is_remote

ROOT = Path(__file__).parent.parent
#: Uses of a path that may lie in a store: the code, and what mypy says of it; None: nothing.
USES = {
    "os.fspath(path)": '"fspath" has incompatible type "Path | RemotePath"',
    "open(path)": '"open" has incompatible type "Path | RemotePath"',
    "os.path.exists(path)": '"exists" has incompatible type "Path | RemotePath"',
    "np.load(path)": '"load" has incompatible type "Path | RemotePath"',
    "Path(path)": '"Path" has incompatible type "Path | RemotePath"',
    "path.open('x')": '"RemotePath" of "Path | RemotePath" has no attribute "open"',
    "path.rename('a')": '"RemotePath" of "Path | RemotePath" has no attribute "rename"',
    "path.resolve()": '"RemotePath" of "Path | RemotePath" has no attribute "resolve"',
    "path.is_relative_to('a')": '"RemotePath" of "Path | RemotePath" has no attribute "is_relative',
    "path.stat()": '"RemotePath" of "Path | RemotePath" has no attribute "stat"',
    "Path('a') / path": 'Unsupported operand types for / ("Path" and "RemotePath")',
    "sorted([path])": '"sorted" cannot be "Path | RemotePath"',
    "path.fs": '"Path" of "Path | RemotePath" has no attribute "fs"',
    "(path / 'a').parent.exists()": None,
    "np.load(local_copy(path))": None,
    "is_remote(path) or open(path)": None,
    "is_remote(path) and path.fs": None,
    "as_path(UPath('s3://bucket/a'))": None,
}


@pytest.mark.slow
def test_a_path_that_may_be_remote_is_used_as_a_local_one_only_where_it_is(tmp_path):
    head = [
        "import os",
        "from pathlib import Path",
        "import numpy as np",
        "from upath import UPath",
        "from dask_dedup.paths import AnyPath, as_path, is_remote",
        "from dask_dedup.storage.objects import local_copy",
        "def use(path: AnyPath) -> None:",
    ]
    (tmp_path / "uses.py").write_text("\n".join([*head, *(f"    {use}" for use in USES), ""]))
    mypy = [sys.executable, "-m", "mypy", f"--config-file={ROOT / 'pyproject.toml'}"]
    ran = subprocess.run(
        [*mypy, f"--cache-dir={tmp_path / 'cache'}", "--follow-imports=silent", "uses.py"],
        cwd=tmp_path, env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    errors = [line for line in ran.stdout.splitlines() if ": error: " in line]
    for number, (use, expected) in enumerate(USES.items(), len(head) + 1):
        said = [line for line in errors if line.startswith(f"uses.py:{number}: ")]
        assert len(said) == (expected is not None), (use, ran.stdout)
        assert expected is None or expected in said[0], use
    assert len(errors) == sum(expected is not None for expected in USES.values()), ran.stdout


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a/b", Path("a/b")),
        (Path("a/b"), Path("a/b")),
        ("file:///a/b", Path("/a/b")),
        (UPath("/a/b"), Path("/a/b")),
        (UPath("file:///a/b"), Path("/a/b")),
    ],
)
def test_as_path_of_a_local_name_is_a_path_of_pathlib(given, expected):
    found = as_path(given)
    assert isinstance(found, Path)
    assert not is_remote(found)
    assert found == expected


@pytest.mark.parametrize("given", ["memory://a/b", UPath("memory://a/b")])
def test_as_path_of_a_url_is_remote(given):
    found = as_path(given)
    assert is_remote(found)
    assert is_remote(str(found))
    assert ((found / "c").name, found.parent / "b") == ("c", found)


def test_as_path_of_a_url_with_credentials_is_refused():
    with pytest.raises(SettingsError, match="holds credentials"):
        as_path("s3://name:word@bucket/a")
