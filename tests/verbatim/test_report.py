"""The page of verbatim copies: its numbers, hostile text, and a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dask_dedup.errors import InputError, OutputError, SettingsError
from dask_dedup.storage.files import read_json, write_json
from dask_dedup.verbatim.report import report
from dask_dedup.verbatim.score import ScoreSettings, score
from dask_dedup.verbatim.score_tasks import Rules
from dask_dedup.verbatim.share_copied import share_by_copies

HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked=1">'
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def scored(found_candidates: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of six pictures of three candidates: a copy and a stranger of each."""
    folder = tmp_path_factory.mktemp("page")
    dest = folder / "dest"
    shutil.copytree(found_candidates, dest)
    captions = pd.read_parquet(dest / "candidates/captions.parquet")
    captions["caption"] += HOSTILE
    captions.to_parquet(dest / "candidates/captions.parquet")
    rng = np.random.default_rng(5)
    (folder / "images").mkdir()
    pictures = {i: rng.integers(0, 256, (64, 64, 3), np.uint8) for i in range(60)}
    for i, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"images/{i:09d}.png")
    candidates = pd.read_parquet(dest / "candidates/candidates.parquet")
    (folder / "made").mkdir()
    for row in candidates.itertuples():
        Image.fromarray(pictures[row.row_id]).save(folder / f"made/{row.candidate}-copy.png")
        Image.fromarray(pictures[59]).save(folder / f"made/{row.candidate}-<i>other.png")
    settings = ScoreSettings(
        Rules(("webster", "carlini")),
        images=str(folder / "made"),
        training=f"{folder}/images/{{key}}.png",
    )
    score(dest, settings)
    return dest


@pytest.fixture
def dest(scored: Path, tmp_path: Path) -> Path:
    """A copy of the scores that a test may add to."""
    shutil.copytree(scored, tmp_path / "dest")
    return tmp_path / "dest"


def test_report_tells_the_counts_and_shows_each_picture(dest: Path) -> None:
    found = report(dest)
    page = (dest / "report/index.html").read_text()
    assert found == {
        "page": str(dest / "report/index.html"),
        "shown": 6,
        "confirmed": 0,
        "rejected": 0,
    }
    assert "<b>3</b> of 6 pictures are copies" in page
    assert page.count('class="row"') == 6
    assert page.count("data:image/webp;base64,") == 6 * 3
    assert HOSTILE not in page and "&lt;/script&gt;&lt;script&gt;" in page
    assert not re.search(r'(src|href)="(?!data:|https://example\.org)', page)
    shares = pd.read_csv(dest / "report/shares.csv")
    expected = share_by_copies(pd.read_parquet(dest / "scores/scores.parquet"))
    pd.testing.assert_frame_equal(shares, expected, check_dtype=False)


def test_report_with_verdicts_leaves_out_what_was_rejected(dest: Path, tmp_path: Path) -> None:
    scores = pd.read_parquet(dest / "scores/scores.parquet")
    copies = sorted(scores["image"][scores["kind"] == "matching"].unique())
    table = pd.DataFrame({"image": copies[:2], "verdict": ["rejected", "confirmed"]})
    table.to_csv(tmp_path / "verdicts.csv", index=False)
    for verdicts in (tmp_path / "verdicts.csv", None):  # then those that are kept
        found = report(dest, verdicts)
        assert (found["confirmed"], found["rejected"]) == (1, 1)
        shares = pd.read_csv(dest / "report/shares.csv")
        assert shares.groupby("preset")["copied"].sum().tolist() == [2, 2]
    page = (dest / "report/index.html").read_text()
    assert "<b>2</b> of 6 pictures are copies" in page
    assert "1 picture confirmed by hand; 1 picture rejected by hand" in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])  # type: ignore[index]
    assert data["decided"] == dict(zip(table["image"], table["verdict"], strict=True))


def test_report_takes_no_verdicts_of_other_pictures(dest: Path, tmp_path: Path) -> None:
    scores = pd.read_parquet(dest / "scores/scores.parquet")
    image = Path(scores["image"][scores["kind"] == "matching"].iloc[0])
    content = image.read_bytes()
    (tmp_path / "verdicts.csv").write_text(f"image,verdict\n{image},rejected\n")
    report(dest, tmp_path / "verdicts.csv")
    try:
        Image.new("RGB", (64, 64)).save(image)  # another picture of this name
        settings = ScoreSettings(
            images=str(image.parent), training=f"{image.parents[1]}/images/{{key}}.png"
        )
        score(dest, settings, overwrite=True)
        with pytest.raises(InputError, match="are of other pictures than those that are scored"):
            report(dest)
    finally:
        image.write_bytes(content)


def test_report_shows_the_nearest_only(dest: Path) -> None:
    assert report(dest, pictures=2)["shown"] == 2
    page = (dest / "report/index.html").read_text()
    assert page.count('data-kind="matching" data-clo') == 2
    assert "4 scored pictures are not shown here" in page
    with pytest.raises(SettingsError, match="pictures: expected 0 or more, got -3"):
        report(dest, pictures=-3)


def test_report_of_scores_of_other_candidates_is_refused(dest: Path) -> None:
    path = dest / "candidates/candidates.json"
    state = read_json(path)
    write_json(path, {**state, "digest": "another"})
    with pytest.raises(OutputError, match="its scores are of other candidates"):
        report(dest)


def test_report_without_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no scores"):
        report(tmp_path)


def test_report_into_a_folder_of_somebody_is_refused(dest: Path) -> None:
    (dest / "report").mkdir()
    (dest / "report/mine.txt").write_text("x")
    with pytest.raises(OutputError, match=r"holds mine\.txt"):
        report(dest)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt install chromium")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_report_in_a_browser(dest: Path, tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    report(dest)
    problems: list[str] = []
    requests: list[str] = []
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((dest / "report/index.html").as_uri())
        assert page.evaluate("window.hacked") is None

        def order() -> list[str]:
            return page.eval_on_selector_all(
                ".row:not([hidden])", "rows => rows.map((row) => row.dataset.k)"
            )

        page.click("[data-sort=k]")
        assert order() == sorted(order(), key=int, reverse=True)
        page.click("[data-kind=matching]:is(button)")
        assert len(order()) == 3
        page.click("#rows .row:not([hidden])")
        page.keyboard.press("c")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("r")
        assert page.inner_text("#desk-count") == "2 decisions"
        with page.expect_download() as download:
            page.click("#save-decisions")
        download.value.save_as(tmp_path / "verdicts.csv")
        page.reload()
        assert page.inner_text("#desk-count") == "2 decisions"
        browser.close()
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    found = report(dest, tmp_path / "verdicts.csv")
    assert (found["confirmed"], found["rejected"]) == (1, 1)
