"""The notebook of the examples: it runs from start to end, and shows what an exact search finds."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "examples" / "walkthrough.ipynb"


def test_walkthrough_is_stored_without_outputs():
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert [cell for cell in notebook.cells if cell.get("outputs")] == []
    assert NOTEBOOK.stat().st_size < 20_000


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("default")  # of the notebook's own packages
def test_walkthrough_runs_and_shows_histogram_thresholds_and_cluster(tmp_path):
    import nbclient
    import nbformat

    (tmp_path / "examples" / "data").mkdir(parents=True)
    (tmp_path / "examples" / "data" / "clipart").symlink_to(ROOT / "examples" / "data" / "clipart")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(tmp_path / "examples")}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    shown = {
        cell.source: [one for one in cell.outputs if one.output_type != "stream"]
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
    (run,) = [outputs for source, outputs in shown.items() if "dask_dedup.run(" in source]
    assert "<svg" in run[-1].data["text/html"]
    (plot,) = [outputs for source, outputs in shown.items() if ".plot(" in source]
    assert "image/png" in plot[-1].data
    (sweep,) = [outputs for source, outputs in shown.items() if "0.92" in source]
    # examples/data/clipart/README.md, by brute force and scipy's components
    for duplicates in (5145, 4261, 3371, 2957):
        assert str(duplicates) in sweep[-1].data["text/plain"]
    (counts,) = [cell.outputs for cell in notebook.cells if "rows before" in cell.source]
    assert counts[0].text == "10,248 rows before, 6,227 after\n"
