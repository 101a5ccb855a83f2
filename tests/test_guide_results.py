"""What the guide's pages about results run does run, on a finished run of the example data.

`test_guide_start.py` makes that run as README says; here one is taken that other tests need, too.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(clipart_run, tmp_path_factory) -> Path:
    """A folder that looks as after README's run."""
    folder = tmp_path_factory.mktemp("guide-results")
    (folder / "examples").symlink_to(ROOT / "examples")
    shutil.copytree(clipart_run, folder / "out" / "clipart")
    return folder


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["output", "which-copy-stays"])
def test_page_runs_from_start_to_end(name, run_page, folder):
    run_page(ROOT / "examples" / "guide" / f"{name}.md", folder)
