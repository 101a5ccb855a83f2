"""What README and the guide run does run, with the example data: first steps and Python.

The pages about results are run by `test_guide_results.py`, which may run beside this.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "examples" / "guide"


def with_code() -> set[str]:
    pages = {path.stem: path.read_text() for path in GUIDE.glob("*.md")}
    return {name for name, text in pages.items() if "\n```sh\n" in text or "\n```python\n" in text}


#: What their commands do, other tests show too: evaluations, and a dozen runs of the example.
SLOW = {"paper", "input", "threshold"}
#: Tests of their own are below, or in the other file.
ELSEWHERE = {"python", "output", "which-copy-stays"}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in sorted(with_code() - ELSEWHERE)
    ],
)
def test_page_runs_from_start_to_end(name, run_page, guide_folder):
    run_page(GUIDE / f"{name}.md", guide_folder)


def test_every_page_with_code_is_run():
    assert with_code() >= ELSEWHERE | SLOW


def test_readme_leaves_the_data_set_without_its_duplicates(guide_folder, clipart):
    clusters = pd.read_parquet(guide_folder / "out" / "clipart" / "clusters")
    stays = clusters["row_id"][clusters["is_kept"]].to_numpy()
    kept = np.concatenate(
        [np.load(path) for path in sorted((guide_folder / "out/clean/img_emb").glob("*.npy"))]
    )
    rows = np.concatenate([np.load(path) for path in sorted(clipart.glob("img_emb/*.npy"))])
    np.testing.assert_array_equal(kept, rows[stays])


@pytest.mark.timeout(900)
def test_page_of_python_runs_and_its_steps_find_what_an_exact_search_finds(
    run_page, guide_folder, clipart
):
    _, printed = run_page(GUIDE / "python.md", guide_folder)
    # examples/data/clipart/README.md, by brute force and scipy's components
    assert printed.splitlines() == ["0.9: 5145", "0.95: 4261", "0.99: 2957"]
    kept = pd.read_parquet(guide_folder / "deduplicated")
    rows = np.concatenate([np.load(path) for path in sorted(clipart.glob("img_emb/*.npy"))])
    rows = rows.astype("f8") / np.linalg.norm(rows.astype("f8"), axis=1, keepdims=True)
    stays = kept["row_id"].to_numpy()
    dropped = np.setdiff1d(np.arange(10_248), stays)
    assert 0 < len(dropped) <= 2957
    assert (rows[dropped] @ rows[stays].T).max(axis=1).min() > 0.99 - 1e-6
    assert list(kept.columns) == ["row_id", "url", "caption"]
