import json
import shutil
import tempfile
from pathlib import Path

import pandas as pd
import pytest

from dask_dedup.errors import DamagedError
from dask_dedup.storage.adopt import adopt_results
from dask_dedup.storage.checksums import digest_of_file
from dask_dedup.storage.files import write_frame
from dask_dedup.storage.results_list import Results


@pytest.fixture
def source(tmp_path):
    """A result folder ``forest`` with two files."""
    out = tmp_path / "out"
    files = {}
    for name, values in (("part-00000.parquet", [1, 2]), ("part-00001.parquet", [3])):
        write_frame(out / "forest" / name, pd.DataFrame({"src": values}))
        files[name] = digest_of_file(out / "forest" / name)
    Results(out).add_folder("forest", "abc", files)
    return out


def check(source, target):
    assert Results(target).find_damage(["forest"], pages=True) == []
    for path in (source / "forest").iterdir():
        assert (target / "forest" / path.name).read_bytes() == path.read_bytes()
    own, theirs = (json.loads((one / "results.json").read_text()) for one in (source, target))
    assert own["folders"]["forest"] == theirs["folders"]["forest"]


def test_adopt_results_links_on_one_disk(source, tmp_path):
    target = tmp_path / "dest"
    target.mkdir()
    adopt_results(source, target, ["forest"])
    check(source, target)
    path = "forest/part-00000.parquet"
    assert (source / path).samefile(target / path)
    adopt_results(source, target, ["forest"])  # again
    check(source, target)
    assert sorted(one.name for one in (target / "forest").iterdir()) == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]


def test_adopt_results_copies_to_another_disk(source):
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == source.stat().st_dev:
        pytest.skip("no other disk")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        adopt_results(source, Path(folder), ["forest"])
        check(source, Path(folder))


def test_adopt_results_replaces_what_was_there(source, tmp_path):
    target = tmp_path / "dest"
    write_frame(target / "forest" / "part-00000.parquet", pd.DataFrame({"src": [9]}))
    write_frame(target / "forest" / "part-00002.parquet", pd.DataFrame({"src": [9]}))
    adopt_results(source, target, ["forest"])
    check(source, target)
    assert not (target / "forest" / "part-00002.parquet").exists()
    assert pd.read_parquet(source / "forest")["src"].tolist() == [1, 2, 3]


def test_adopt_results_refuses_what_is_damaged_or_missing(source, tmp_path):
    target = tmp_path / "dest"
    target.mkdir()
    with pytest.raises(DamagedError, match="audit: is not listed in"):
        adopt_results(source, target, ["audit"])
    shutil.copy(source / "forest" / "part-00001.parquet", source / "forest" / "part-00000.parquet")
    with pytest.raises(DamagedError, match=r"part-00000\.parquet: "):
        adopt_results(source, target, ["forest"])
