"""What a command replaces without being asked, and what not."""

from __future__ import annotations

from pathlib import Path

import pytest

from dask_dedup.cli.own_files import refuse_other_page, refuse_other_picture
from dask_dedup.errors import SettingsError
from dask_dedup.report.page import page_file


def test_refuse_other_picture_takes_a_png_an_empty_file_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n and more")
    (tmp_path / "b.png").write_bytes(b"")
    for name in ("a.png", "b.png", "c.png"):
        refuse_other_picture(tmp_path / name)


@pytest.mark.parametrize("name", ["pairs.csv", "part.parquet", "folder"])
def test_refuse_other_picture_of_something_else_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"label,similarity\nyes,1\n")
    with pytest.raises(SettingsError, match=f"{name}: is there already, and is no PNG"):
        refuse_other_picture(path)


def test_refuse_other_page_takes_pages_of_runs_alone(tmp_path: Path) -> None:
    for name, is_own in (("page", True), ("label", False), ("verbatim", False)):
        path = tmp_path / f"{name}.html"
        path.write_text(page_file(f"{name}.html"))
        if is_own:
            refuse_other_page(path)
        else:
            with pytest.raises(SettingsError, match="no page of a run: it would be lost"):
                refuse_other_page(path)
