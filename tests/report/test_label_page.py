"""The page on which pairs are labelled, in a real browser, and read back by `precision`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from dask_dedup.cli.commands import main
from dask_dedup.report.label_page import render_label_page, write_label_page
from dask_dedup.results.pair_sample import write_pairs
from dask_dedup.results.precision import read_labelled

HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked=1">, "a"\nb'
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
WEBP = bytes.fromhex("524946461a000000574542505650384c0d0000002f00000010071011118888fe0700")


def _pairs(rows: int = 12) -> pd.DataFrame:
    """Pairs as `sample_pairs` gives them: two bins."""
    is_upper = np.arange(rows) % 2 == 1
    return pd.DataFrame(
        {
            "label": "",
            "similarity": np.where(is_upper, 0.97, 0.92).astype(np.float32),
            "src_url": ["javascript:alert(1)", "https://a.example/x?a=1&b=2"] * (rows // 2),
            "dst_url": [f"https://b.example/{i}" for i in range(rows)],
            "src_caption": HOSTILE,
            "dst_caption": [f"caption {i}" for i in range(rows)],
            "src": np.arange(rows) * 2,
            "dst": np.arange(rows) * 2 + 1,
            "bin": is_upper.astype(np.int64),
            "bin_low": np.where(is_upper, 0.95, 0.9),
            "bin_high": np.where(is_upper, 1.0, 0.95),
            "bin_edges": np.where(is_upper, 60, 40),
            "edges_from_low": np.where(is_upper, 60, 100),
        }
    )


def test_render_label_page_escapes_what_is_hostile_and_holds_the_pictures() -> None:
    page = render_label_page(_pairs(), {0: WEBP, 3: WEBP}, "<b>.csv")
    assert "<script>window" not in page and "<img src=x" not in page and "<b>.csv" not in page
    assert page.count("data:image/webp;base64,") == 2
    # In what is shown the link is left out; the row that is saved has the URL as it was.
    assert '"url":null' in page and '"url":"https://b.example/0"' in page


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt install chromium")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_label_page_in_a_browser_saves_what_precision_reads(tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    pairs = _pairs()
    write_label_page(pairs, {0: WEBP, 1: WEBP}, "pairs.csv", tmp_path / "pairs.html")
    write_pairs(pairs, tmp_path / "unlabelled.csv")
    problems: list[str] = []
    requests: list[str] = []
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((tmp_path / "pairs.html").as_uri())
        assert page.inner_text("#told") == "pair 1 of 12; 0 labelled"
        assert page.locator("#two img").count() == 2
        assert page.evaluate("window.hacked") is None
        for key in "yynsyn":
            page.keyboard.press(key)
        page.keyboard.press("ArrowLeft")
        assert page.inner_text("#told") == "pair 6 of 12: no, similarity 0.97; 5 labelled"
        page.reload()
        assert page.inner_text("#told") == "pair 7 of 12; 5 labelled"
        page.keyboard.press("y")
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "pairs.csv")
        browser.close()
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    labels = ["yes", "yes", "no", "", "yes", "no", "yes", *[""] * 5]
    before = pd.read_csv(tmp_path / "unlabelled.csv", dtype="str", keep_default_na=False)
    saved = pd.read_csv(tmp_path / "pairs.csv", dtype="str", keep_default_na=False)
    assert saved["label"].tolist() == labels
    as_before = saved.assign(label="").drop(columns="src_caption")
    pd.testing.assert_frame_equal(as_before, before.drop(columns="src_caption"))
    assert saved["src_caption"].str.replace("\r\n", "\n").tolist() == before["src_caption"].tolist()
    assert len(read_labelled(tmp_path / "pairs.csv")) == len(
        read_labelled(tmp_path / "unlabelled.csv")
    )


def test_sample_writes_the_page_beside_the_table_with_local_pictures(
    clipart: Path, tmp_path: Path, clipart_run: Path
) -> None:
    run = CliRunner().invoke
    done = run(main, ["sample", str(clipart_run), str(tmp_path / "pairs.csv"), "-n", "30"])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "pairs.html").read_text()
    pairs = pd.read_csv(tmp_path / "pairs.csv")
    assert len(pairs) == 30
    assert page.count("data:image/webp;base64,") == 60
    (tmp_path / "pairs.csv").unlink()
    done = run(main, ["sample", str(clipart_run), str(tmp_path / "pairs.csv"), "-n", "30"])
    assert done.exit_code == 2 and "pairs.html: is there already" in done.output
