"""The page of finished runs: its numbers beside the summary's and pandas'; odd data."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from html import unescape

import numpy as np
import pandas as pd
import pytest

import dask_dedup
from dask_dedup.errors import InputError, OutputError, SettingsError
from dask_dedup.results.finished_run import open_finished
from dask_dedup.results.pair_sample import sample_pairs, write_pairs
from dask_dedup.results.precision import precision_of, threshold_for
from dask_dedup.results.report import page_path, report
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)


def text_of(html):
    """What is read: without tags, script and style."""
    html = re.sub(r"<(script|style)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def section(html, name):
    (found,) = re.findall(rf'<section id="{name}">(.*?)</section>', html, re.DOTALL)
    return found


def tiles(html, tab):
    """The cards of a tab, each a list of rows."""
    panel = html[html.index(f'id="panel-{tab}"') :]
    panel = panel.split('role="tabpanel"')[0]
    cards = panel.split('<article class="card')[1:]
    return [[int(row) for row in re.findall(r'data-row="(\d+)"', card)] for card in cards]


@pytest.fixture(scope="module")
def page(finished, tmp_path_factory):
    return report(finished.out, tmp_path_factory.mktemp("page")).read_text()


def test_numbers_are_those_of_the_summary(finished, page):
    text, summary = text_of(page), finished.result.summary
    assert f"{summary['dropped']:,} of {summary['rows']:,} rows can go" in text
    for name, value in (
        ("clusters of two or more", summary["clusters_of_two_or_more"]),
        ("rows of the largest", summary["largest_cluster"]),
        ("rows less clusters", summary["duplicates"]),
        ("threshold (cosine)", summary["threshold"]),
        ("invalid rows", summary["invalid_rows"]),
    ):
        assert f"{name} {value} " in text
    assert "the audit was switched off" in text
    assert "1 row without a usable embedding" in text
    assert re.search(r"reason rows nan 1 ", text)


def test_data_in_the_page_are_sweep_and_histogram(finished, page):
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    data = json.loads(data)
    sweep = finished.result.sweep()
    pd.testing.assert_frame_equal(pd.DataFrame(data["sweep"]), sweep, check_dtype=False)
    histogram = finished.result.histogram
    pd.testing.assert_frame_equal(pd.DataFrame(data["histogram"]), histogram, check_dtype=False)


def test_what_holds_arrays_over_all_rows_is_one_task(finished, tmp_path):
    names = []

    def execute(tasks, on_result):
        names.extend(task.key.partition("-")[0] for task in tasks)
        return compute_tasks(tasks, on_result)

    report(finished.out, tmp_path, execute=execute)
    assert names.count("sweep_or_reason") == 1
    assert {*names} == {"scan_files", "sweep_or_reason", "read_wanted"}


def test_gallery_shows_the_clusters_and_pairs_that_it_says(finished, page):
    rows = pd.read_parquet(finished.out / "clusters").set_index("row_id", drop=False)
    sizes = rows[rows["is_representative"]]["cluster_size"].sort_values(ascending=False)
    largest = tiles(page, "largest")
    assert len(largest) == 12
    for card, size in zip(largest, sizes, strict=False):
        own = rows.loc[card]
        assert own["cluster_id"].nunique() == 1
        assert own["cluster_size"].iloc[0] == size
        assert own["is_kept"].iloc[0]
        similarity = own["witness_similarity"].iloc[1:].tolist()
        assert similarity == sorted(similarity, reverse=True)
        whole = rows[rows["cluster_id"] == own["cluster_id"].iloc[0]]
        assert min(similarity) == whole["witness_similarity"].min()
    above, below = tiles(page, "above"), tiles(page, "below")
    pairs = finished.cosines
    for cards, side in ((above, True), (below, False)):
        assert len(cards) > 3
        for one, other in cards:
            assert (pairs[one, other] >= np.float32(0.95)) == side
            assert (rows["cluster_id"][one] == rows["cluster_id"][other]) == side
    least = rows["witness_similarity"].idxmin()
    assert tiles(page, "unlike")[0] == [rows["witness_row_id"][least], least]


def test_sites_and_placeholders_are_counted(finished, page):
    text = text_of(section(page, "placeholders"))
    rows = pd.read_parquet(finished.out / "clusters")
    named = rows[rows["url"].notna()]
    assert f"example.org {(~named['is_kept']).sum()} {len(named)}" in text
    sizes = rows.groupby("cluster_id").agg(
        rows=("row_id", "size"), urls=("url", "nunique"), captions=("caption", "nunique")
    )
    near = rows[rows["similarity_to_representative"] >= np.float32(0.98)].groupby("cluster_id")
    likely = sizes[
        (sizes.min(axis=1) >= 5)
        & (near.size().reindex(sizes.index, fill_value=0) >= 0.8 * sizes["rows"])
    ]
    assert len(likely) > 0
    for cluster, found in likely.sort_values("rows", ascending=False)[:1].iterrows():
        assert f" {cluster} {found['rows']} {found['urls']} {found['captions']} 1 " in text


@pytest.fixture(scope="module")
def odd_runs(tmp_path_factory, write_dataset):
    """Runs over data without duplicates, without URL, without caption, with a placeholder."""
    rng = np.random.default_rng(4)
    far = rng.normal(size=(90, 32)).astype("f4")
    copies = np.repeat(far[:9], 10, axis=0)
    number = [f"{i}" for i in range(90)]
    frames = {
        "none": (far, pd.DataFrame({"url": number, "caption": number})),
        "bare": (copies, pd.DataFrame({"other": number})),
        "urls": (copies, pd.DataFrame({"url": [f"http://a.b/{i}" for i in number]})),
        "texts": (copies, pd.DataFrame({"caption": number, "width": range(90), "height": 2})),
        "lists": (copies, pd.DataFrame({"url": [[i] for i in number], "caption": range(90)})),
        "placeholder": (
            np.vstack([np.tile(far[:1], (40, 1)), far[:50]]),
            pd.DataFrame(
                {"url": [f"https://s{i % 7}.ex/{i}" for i in range(90)], "caption": number}
            ),
        ),
    }
    base = tmp_path_factory.mktemp("odd")
    outs = {}
    for name, (rows, frame) in frames.items():
        try:
            data = write_dataset(base / name, [rows], [frame])
            outs[name] = base / f"{name}-out"
            run_here(data, outs[name], cells=1, audit_queries=20)
        except dask_dedup.InputError:  # a list is no URL
            del outs[name]
    return outs


def test_every_odd_run_has_its_page(odd_runs):
    assert len(odd_runs) >= 5
    for out in odd_runs.values():
        assert "can go" in (out / "report" / "index.html").read_text()


def test_page_without_duplicates_says_so(odd_runs):
    text = text_of((odd_runs["none"] / "report" / "index.html").read_text())
    assert "0 of 90 rows can go" in text
    assert "None of 20 rows drawn at random has a duplicate" in text
    assert text.count("No row has a duplicate at this threshold.") == 4
    assert "No row goes." in text
    assert "A run with --search-threshold 0.9 finds them" in text


def test_page_without_url_or_caption_says_so(odd_runs):
    bare = text_of((odd_runs["bare"] / "report" / "index.html").read_text())
    assert "no URL" in bare
    assert "no caption" in bare
    urls = (odd_runs["urls"] / "report" / "index.html").read_text()
    assert 'data-url="http://a.b/' in urls
    assert "img-src data: http: https:" in urls
    texts = (odd_runs["texts"] / "report" / "index.html").read_text()
    assert "img-src data:; " in texts
    assert "1 × 2" in texts


def test_a_placeholder_is_found(odd_runs):
    html = (odd_runs["placeholder"] / "report" / "index.html").read_text()
    text = text_of(section(html, "placeholders"))
    # 40 rows beside the one that is copied: 41 URLs and captions, 7 sites.
    assert re.search(r"\b0 41 41 41 7 0\b", text)
    assert "s0.ex" in text


def test_a_placeholder_smaller_than_a_hundred_clusters_is_found(tmp_path, write_dataset):
    far = np.random.default_rng(8).normal(size=(320, 32)).astype("f4")
    group = np.concatenate([np.repeat(np.arange(100), 7), np.full(6, 100), np.arange(101, 320)])
    own = np.where(group == 100, np.arange(len(group)), group)  # other clusters: one URL each
    frame = pd.DataFrame({"url": [f"https://h{i}/x" for i in own], "caption": own.astype(str)})
    data = write_dataset(tmp_path / "data", [far[group]], [frame])
    run_here(data, tmp_path / "out", cells=1, audit_queries=0)
    text = text_of(
        section((tmp_path / "out" / "report" / "index.html").read_text(), "placeholders")
    )
    assert " 700 6 6 6 6 " in text
    assert "All 101 clusters of two or more were looked at." in text


def test_the_page_says_how_many_clusters_were_looked_at_for_placeholders(tmp_path, write_dataset):
    far = np.random.default_rng(9).normal(size=(300, 32)).astype("f4")
    group = np.concatenate([np.repeat(np.arange(200), 3), np.repeat(np.arange(200, 300), 2)])
    run_here(
        write_dataset(tmp_path / "data", [far[group]]), tmp_path / "out", cells=1, audit_queries=0
    )
    text = text_of(
        section((tmp_path / "out" / "report" / "index.html").read_text(), "placeholders")
    )
    looked = "Looked at were the 256 largest of 300 clusters of two or more, down to 2 rows."
    assert looked in text


def test_page_is_a_result_with_a_checksum(odd_runs, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(odd_runs["urls"], out)
    results = json.loads((out / "results.json").read_text())
    listed = results.get("content", results)["files"]["report/index.html"]
    assert listed[0] == (out / "report" / "index.html").stat().st_size
    (out / "report" / "index.html").write_text("another")
    with pytest.raises(OutputError, match=r"report/index\.html"):
        dask_dedup.open_result(out)
    assert report(out) == out / "report" / "index.html"  # makes it anew
    assert dask_dedup.open_result(out).report() == out / "report" / "index.html"


def test_a_run_without_page_has_none(odd_runs, tmp_path, write_dataset):
    data = write_dataset(tmp_path / "data", [np.eye(9, dtype="f4")])
    run_here(data, tmp_path / "out", report=False, audit_queries=0)
    assert not (tmp_path / "out" / "report").exists()
    dask_dedup.open_result(tmp_path / "out").report()
    assert dask_dedup.open_result(tmp_path / "out").summary["rows"] == 9
    # One for other settings, without a page, leaves none of before.
    run_here(data, tmp_path / "out", threshold=0.96, report=False, audit_queries=0)
    assert not (tmp_path / "out" / "report" / "index.html").exists()
    dask_dedup.open_result(tmp_path / "out")


@pytest.mark.parametrize(
    ("dest", "path"),
    [
        (None, "out/report/index.html"),
        ("a", "a/index.html"),
        ("a.html", "a.html"),
        ("b/A.HTM", "b/A.HTM"),
    ],
)
def test_page_path_is_a_file_or_in_a_folder(dest, path):
    assert str(page_path("out", dest)) == path


def test_wrong_pictures_are_refused_before_anything_is_written(odd_runs, tmp_path, write_dataset):
    for options, message in (
        ({"images": "x/{nokey}.jpg"}, "there is no column 'nokey'"),
        ({"images": "x.jpg"}, "expected columns in braces"),
        ({"thumbnails": 3}, "there are no local pictures in"),
        ({"thumbnails": -1}, "thumbnails"),
    ):
        with pytest.raises(SettingsError, match=message):
            report(odd_runs["urls"], tmp_path / "page.html", **options)
        data = tmp_path / "data"
        if not data.exists():
            write_dataset(data, [np.eye(9, dtype="f4")])
        with pytest.raises(SettingsError, match=message):
            run_here(data, tmp_path / "out", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_no_page_of_what_is_no_run(tmp_path):
    with pytest.raises(OutputError, match="holds no run"):
        report(tmp_path)


def test_a_relabelled_run_has_its_own_page(finished, tmp_path):
    dask_dedup.relabel(finished.out, tmp_path / "out", 0.9, execute=compute_tasks)
    html = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "threshold (cosine) 0.9 " in text_of(html)
    assert len(tiles(html, "below")) > 3


def test_quantized_distances_have_no_sweep_and_no_pairs(clipart, tmp_path, write_dataset):
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(60, 16)), 2, axis=0).astype("f4")
    data = write_dataset(tmp_path / "data", [rows])
    run_here(
        data, tmp_path / "out", finder="adc", verify=False, factory="IVF4,PQ4x6", tolerance=1.0,
        audit_queries=0,
    )  # fmt: skip
    text = text_of((tmp_path / "out" / "report" / "index.html").read_text())
    assert "holds quantized distances of a run with --no-verify" in text
    assert text.count("are quantized distances, not cosines (--no-verify)") == 2


def test_page_of_the_example_has_its_pictures_and_is_small(clipart, tmp_path):
    run_here(clipart, tmp_path / "out", cells=6, audit_queries=100)
    html = (tmp_path / "out" / "report" / "index.html").read_text()
    shown = html.count('<span class="picture')
    assert html.count('src="data:image/webp;base64,') == shown > 150
    without = re.sub(r'src="data:[^"]*"', "", html)
    assert len(without) < 400_000
    assert len(html) < 3_000_000
    assert "img-src data:; " in html  # its URLs are none of the web


def test_precision_of_labelled_pairs_stands_in_the_page(finished, page, tmp_path):
    pairs = sample_pairs(finished.out, 100)
    pairs["label"] = np.where(pairs["similarity"] >= 0.93, "yes", "no")
    write_pairs(pairs, tmp_path / "pairs.csv")
    found = precision_of(open_finished(finished.out), tmp_path / "pairs.csv")
    html = report(finished.out, tmp_path, precision=tmp_path / "pairs.csv").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    assert data["precision"]["precision"] == found["precision"].tolist()
    text = text_of(section(html, "threshold"))
    assert f"by {len(pairs)} labelled pairs, with its 95 % interval" in text
    for target in (0.8, 0.9, 0.95, 0.99):
        both = ["at none" if t is None else f"from {t:g}" for t in threshold_for(found, target)]
        assert f"{100 * target:.0f} % {' '.join(both)}" in text
    assert "precision" not in text_of(section(page, "threshold"))
    pairs.assign(label="").to_csv(tmp_path / "none.csv", index=False)
    for name in ("none", "missing"):
        with pytest.raises(InputError, match=name):
            report(finished.out, tmp_path / "not", precision=tmp_path / f"{name}.csv")
    assert not (tmp_path / "not").exists()
