"""The report page in a real browser: headless Chromium over file://."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import dask_dedup
from dask_dedup.results.finished_run import open_finished
from dask_dedup.results.pair_sample import sample_pairs, write_pairs
from dask_dedup.results.precision import precision_of
from dask_dedup.runtime.executor import compute_tasks

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium on this machine: apt install chromium"
    ),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked=1">',
    "<svg onload=window.hacked=1>",
    "{{ 7 * 7 }} {% raw %}",
    "\u202egnp.exe \x1b[31m\x00",
    "مرحبا بالعالم",
    "word " * 3000,
    "&lt;b&gt; <!-- ]]>",
]
LINKS = [
    "javascript:window.hacked=1",
    "https://pictures.example/{}.jpg",
    "data:text/html,<script>window.hacked=1</script>",
    'https://x.example/"onmouseover="window.hacked=1/{}.png',
    "http://other.example/a/{}.png?q=<b>",
    "//no-scheme.example/{}.jpg",
    " https://space.example/{}.jpg",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_dataset):
    rng = np.random.default_rng(2)
    centres = np.repeat(rng.normal(size=(60, 16)), 4, axis=0)
    noise = rng.choice([0.0, 0.1, 0.3, 0.45], 240)[:, None]
    rows = (centres + noise * rng.normal(size=(240, 16))).astype("f4")
    rows[5] = 0
    metadata = pd.DataFrame(
        {
            "url": [LINKS[i % len(LINKS)].format(i) for i in range(240)],
            "caption": [f"{HOSTILE[i % len(HOSTILE)]} {i % 3}" for i in range(240)],
            "width": np.arange(240) + 1,
            "height": 7,
            "key": [f"{i:09d}" for i in range(240)],
        }
    )
    folder = tmp_path_factory.mktemp("browser") / "<b>data</b>"
    write_dataset(folder, [rows[:100], rows[100:]], [metadata[:100], metadata[100:]])
    return folder


@pytest.fixture(scope="module")
def out(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("browser-out") / "out"
    dask_dedup.run(data, out, threshold=0.9, search_threshold=0.7, cells=1, execute=compute_tasks)
    return out


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield found
        found.close()


class Opened:
    """One page, what it has asked for beside itself, and its errors."""

    def __init__(self, browser, path, **options):
        self.context = browser.new_context(accept_downloads=True, **options)
        self.asked, self.errors, self.referrers = [], [], []
        self.context.route(lambda url: url.startswith("http"), self._answer)
        self.page = self.context.new_page()
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.url = Path(path).absolute().as_uri()
        self.page.goto(self.url)

    def _answer(self, route):
        self.asked.append(route.request.url)
        self.referrers.append(route.request.headers.get("referer"))
        route.fulfill(status=200, content_type="image/png", body=PIXEL)

    def close(self):
        self.context.close()


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c020000000b4944415478da6364"
    "6000000006000230813a2f0000000049454e44ae426082"
)


@pytest.fixture
def opened(browser, out):
    found = Opened(browser, out / "report" / "index.html")
    yield found
    assert not found.errors
    assert found.page.evaluate("window.hacked") is None
    found.close()


def texts(page, selector):
    return [text.strip() for text in page.locator(selector).all_inner_texts()]


def test_nothing_is_asked_for_and_hostile_text_does_nothing(opened):
    page = opened.page
    page.wait_for_timeout(200)
    assert opened.asked == []
    for tab in ("random", "above", "below", "unlike", "largest"):
        page.click(f"#tab-{tab}")
        assert page.locator(f"#panel-{tab} .tile").count() > 3
    assert opened.asked == []
    assert page.locator("script").count() == 2
    assert page.locator("[onerror], [onload], [onmouseover], [onclick]").count() == 0
    shown = page.locator("#gallery .caption").all_text_contents()
    for text in (
        "<script>window.hacked = 1</script>",
        "{{ 7 * 7 }}",
        "\\u202egnp.exe \\x1b[31m\\x00",
    ):
        assert any(text in caption for caption in shown), text
    assert page.locator(".over").inner_text().endswith("<b>data</b>")


def test_links_are_of_the_web_alone_and_tell_nobody_where_from(opened):
    found = opened.page.eval_on_selector_all(
        "a", "all => all.map(a => [a.protocol, a.rel, a.referrerPolicy, a.target])"
    )
    assert len(found) > 10
    assert {protocol for protocol, *_ in found} == {"http:", "https:"}
    assert {tuple(rest) for _, *rest in found} == {
        ("noopener noreferrer nofollow", "no-referrer", "_blank")
    }


def test_a_click_loads_pictures_without_a_referrer(opened):
    page = opened.page
    page.click("#load-pictures")
    page.wait_for_selector("#panel-largest .picture img")
    for tab in ("random", "above"):
        page.click(f"#tab-{tab}")
    page.wait_for_timeout(300)
    assert opened.asked
    assert all(url.startswith(("https://", "http://")) for url in opened.asked)
    assert set(opened.referrers) == {None}
    assert page.locator("#ask").count() == 0


def test_a_page_that_was_not_asked_refuses_pictures_from_the_web(opened):
    opened.page.evaluate(
        "() => new Promise(done => { const i = new Image(); i.onload = i.onerror = done;"
        " i.src = 'https://pictures.example/9.jpg'; })"
    )
    assert opened.asked == []
    (error,) = opened.errors  # the policy's
    assert "Content Security Policy" in error
    opened.errors.clear()


def test_load_urls_loads_pictures_at_once(browser, out, tmp_path):
    path = dask_dedup.open_result(out).report(tmp_path / "page.html", load_urls=True)
    opened = Opened(browser, path)
    image = opened.page.wait_for_selector("#panel-largest .picture img", state="attached")
    assert opened.asked == []  # lazily: not before it is seen
    image.scroll_into_view_if_needed()
    opened.page.wait_for_timeout(300)
    assert opened.asked
    assert set(opened.referrers) == {None}
    assert opened.errors == []
    opened.close()


def test_scripts_of_others_are_refused(browser, out, tmp_path):
    text = (out / "report" / "index.html").read_text()
    added = tmp_path / "added.html"
    added.write_text(text.replace("</main>", "<script>window.hacked = 1</script></main>"))
    opened = Opened(browser, added)
    assert opened.page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in error for error in opened.errors)
    opened.close()


def test_the_slider_tells_what_each_threshold_finds(opened, out):
    page, sweep = opened.page, dask_dedup.open_result(out).sweep()
    slider = page.locator("#sweep-slider")

    def shown():
        fields = page.eval_on_selector_all(
            "#sweep-facts [data-of]", "all => all.map(one => [one.dataset.of, one.textContent])"
        )
        return dict(fields)

    def row_of(threshold):
        (row,) = sweep[sweep["threshold"] == threshold].to_dict("records")
        return {
            "threshold": str(threshold),
            "duplicates": f"{row['duplicates']:,}",
            "share": f"{100 * (1 - row['kept_fraction']):.1f} %",
            "clusters_of_two_or_more": f"{row['clusters_of_two_or_more']:,}",
            "largest_cluster": f"{row['largest_cluster']:,}",
            "without_edge_to_representative": f"{row['without_edge_to_representative']:,}",
        }

    assert shown() == row_of(0.9)
    slider.evaluate("one => { one.value = 0.8; one.dispatchEvent(new Event('input')); }")
    assert shown() == row_of(0.8)
    before = page.locator("#sweep-marker").get_attribute("transform")
    slider.focus()
    page.keyboard.press("ArrowRight")
    after = sweep["threshold"][sweep["threshold"] > 0.8].min()
    assert shown() == row_of(after)
    assert page.locator("#sweep-marker").get_attribute("transform") != before
    assert str(after) in page.locator("#threshold code").inner_text()


def test_the_slider_tells_the_precision_of_labelled_pairs(browser, out, tmp_path):
    pairs = sample_pairs(out, 60)
    pairs["label"] = np.where(pairs["similarity"] >= 0.85, "yes", "no")
    write_pairs(pairs, tmp_path / "pairs.csv")
    found = precision_of(open_finished(out), tmp_path / "pairs.csv")
    path = dask_dedup.open_result(out).report(tmp_path, precision=tmp_path / "pairs.csv")
    opened = Opened(browser, path, viewport={"width": 360, "height": 800})
    page, slider = opened.page, opened.page.locator("#sweep-slider")
    assert found["threshold"].min() > 0.7  # nothing is known there
    for threshold in (0.7, 0.85, 0.9, 0.99):
        slider.evaluate(
            "(one, at) => { one.value = at; one.dispatchEvent(new Event('input')); }", threshold
        )
        wanted = dict.fromkeys(("precision_from", "precision", "interval"), "–")
        for row in found[found["threshold"] <= threshold][-1:].to_dict("records"):
            wanted = {
                "precision_from": f"{row['threshold']:g}",
                "precision": f"{100 * row['precision']:.1f} %",
                "interval": f"{100 * row['low']:.1f}–{100 * row['high']:.1f} %",
            }
        for name, text in wanted.items():
            assert page.locator(f"#sweep-facts [data-of={name}]").inner_text() == text
    assert page.locator("#sweep-chart circle.sure").count() == (found["threshold"] < 1).sum()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert opened.asked == opened.errors == []
    opened.close()


def test_tabs_show_one_panel_each_and_obey_arrow_keys(opened):
    page = opened.page
    assert texts(page, "[role=tab]") == [
        "Largest",
        "Random",
        "Just above",
        "Just below",
        "Least alike",
    ]
    page.click("#tab-random")
    assert page.locator("[role=tabpanel]:visible").count() == 1
    assert page.locator("#panel-random").is_visible()
    page.keyboard.press("ArrowRight")
    assert page.locator("#panel-above").is_visible()
    assert page.locator("#tab-above").get_attribute("aria-selected") == "true"


def test_keys_decide_and_decisions_are_saved_and_kept(opened):
    page = opened.page
    tiles = page.locator("#panel-largest .tile")
    rows = [int(tiles.nth(i).get_attribute("data-row")) for i in range(3)]
    assert not page.locator("#desk").is_visible()
    tiles.nth(0).click(position={"x": 20, "y": 20})
    page.keyboard.press("k")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("d")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("n")
    page.keyboard.press("ArrowDown")  # to the next cluster
    second = int(
        page.locator("#panel-largest .card").nth(1).locator(".tile").first.get_attribute("data-row")
    )
    assert page.locator("#desk-row").inner_text() == f"row {second}"
    page.locator("[data-decide=drop]").click()
    page.keyboard.press("ArrowUp")
    assert page.locator("#desk-row").inner_text() == f"row {rows[0]}"
    wanted = {rows[0]: "keep", rows[1]: "drop", rows[2]: "not-duplicates", second: "drop"}

    def saved():
        with page.expect_download() as download:
            page.click("#save-decisions")
        assert download.value.suggested_filename == "decisions.csv"
        return pd.read_csv(download.value.path())

    table = saved()
    assert list(table.columns) == ["row_id", "decision"]
    assert dict(zip(table["row_id"], table["decision"], strict=True)) == wanted
    assert table["row_id"].is_monotonic_increasing
    page.reload()
    assert page.locator("#desk-count").inner_text() == "4 decisions"
    assert saved().equals(table)
    assert tiles.nth(1).get_attribute("data-decision") == "drop"
    tiles.nth(1).click(position={"x": 20, "y": 20})
    page.keyboard.press("d")  # again: no decision
    assert len(saved()) == 3
    page.click("#clear-decisions")
    assert page.locator("#desk-count").inner_text() == "no decisions"


def test_decisions_of_another_result_are_not_read(browser, out, opened):
    key = "dask-dedup:decisions:of-another"
    opened.page.evaluate("key => localStorage.setItem(key, '[[1, \"drop\"]]')", key)
    opened.page.reload()
    assert opened.page.locator("[data-decision]").count() == 0


def test_stored_nonsense_is_no_decision(opened):
    data = json.loads(opened.page.locator("#data").text_content())
    key = f"dask-dedup:decisions:{data['identity']}"
    for text in ("{", '[["<img>", "drop"], [1.5, "keep"], [2, "evil"]]'):
        opened.page.evaluate("([key, text]) => localStorage.setItem(key, text)", [key, text])
        opened.page.reload()
        assert opened.page.locator("[data-decision]").count() == 0
        assert not opened.page.locator("#desk").is_visible()


def test_tables_are_saved_as_csv(opened, out):
    page = opened.page
    for name, wanted in (
        ("histogram", pd.read_csv(out / "histogram.csv")),
        ("sweep", dask_dedup.open_result(out).sweep()),
    ):
        with page.expect_download() as download:
            page.click(f"[data-save={name}]")
        found = pd.read_csv(download.value.path())
        pd.testing.assert_frame_equal(found, wanted, check_dtype=False)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 768, 1200])
def test_nothing_is_wider_than_the_screen(browser, out, width, scheme):
    opened = Opened(
        browser,
        out / "report" / "index.html",
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
    )
    for tab in ("largest", "unlike"):
        opened.page.click(f"#tab-{tab}")
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.close()


def test_print_shows_all_tabs(opened):
    opened.page.emulate_media(media="print")
    assert opened.page.locator("[role=tabpanel]:visible").count() == 5
    assert not opened.page.locator("#sweep-slider").is_visible()


def test_without_scripts_all_can_be_read(browser, out):
    opened = Opened(browser, out / "report" / "index.html", java_script_enabled=False)
    assert opened.page.locator("[role=tabpanel]:visible").count() == 5
    assert not opened.page.locator("button:visible").count()
    assert opened.asked == []
    opened.close()


def test_local_pictures_are_in_the_page(browser, data, out, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(240):
        Image.new("RGB", (300, 200), (i, 0, 0)).save(folder / f"{i:09d}.png")
    path = dask_dedup.open_result(out).report(
        tmp_path / "page", images=f"{folder}/{{key}}.png", thumbnails=500
    )
    opened = Opened(browser, path)
    first = opened.page.locator("#panel-largest .tile").first
    row = int(first.get_attribute("data-row"))
    image = first.locator("img")
    assert image.evaluate("one => [one.naturalWidth, one.naturalHeight]") == [160, 107]
    red = image.evaluate(
        "one => { const c = document.createElement('canvas').getContext('2d');"
        " c.drawImage(one, 0, 0); return c.getImageData(9, 9, 1, 1).data[0]; }"
    )
    assert abs(red - row) <= 6
    assert opened.asked == opened.errors == []
    opened.close()
