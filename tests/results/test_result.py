"""A finished run as one object: what it holds, what it shows, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from botocore.session import Session

import dask_dedup
from dask_dedup.errors import OutputError, SettingsError
from dask_dedup.paths import as_path
from dask_dedup.report.notebook import histogram_svg
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.storage.objects import upload


def test_run_returns_what_open_result_opens(finished):
    opened = dask_dedup.open_result(str(finished.out))
    written = json.loads((finished.out / "summary.json").read_text())
    for result in (finished.result, opened):
        assert isinstance(result, dask_dedup.Result)
        assert result.summary == written
        assert dict(result) == written == result
        assert (result["rows"], len(result), list(result)) == (650, len(written), list(written))
        assert result.get("nothing", 3) == 3


def test_run_that_has_finished_before_returns_its_result(finished):
    again = dask_dedup.run(
        finished.data, finished.out, search_threshold=0.85, linkage="components", cells=1,
        audit_queries=0, execute=compute_tasks,
    )  # fmt: skip
    assert isinstance(again, dask_dedup.Result)
    assert again == finished.result


def test_clusters_are_the_files_row_by_row(finished, no_compute):
    with no_compute():
        clusters = dask_dedup.open_result(finished.out).clusters
    assert clusters.divisions == (0, 100, 380, 649)
    frame = clusters.compute()
    paths = sorted((finished.out / "clusters").glob("*.parquet"))
    assert len(paths) == 4  # one of them is empty
    expected = pd.concat([pd.read_parquet(path, dtype_backend="pyarrow") for path in paths])
    assert frame.index.tolist() == expected.pop("row_id").tolist()
    assert frame.columns.tolist() == expected.columns.tolist()
    for name in expected:
        left, right = frame[name].tolist(), expected[name].tolist()
        if name == "tags":
            left, right = [list(one) for one in left], [list(one) for one in right]
        missing = pd.isna(pd.Series(right))
        assert pd.isna(pd.Series(left)).equals(missing)
        pairs = zip(left, right, missing, strict=True)
        assert all(is_missing or a == b for a, b, is_missing in pairs), name
    assert frame["cluster_id"].tolist() == finished.rows["cluster_id"].tolist()


def test_clusters_columns_rows_and_partitions_can_be_selected(finished):
    clusters = finished.result.clusters
    assert clusters["width.px"].compute().tolist() == list(range(650))
    assert len(clusters[[]].compute()) == 650
    assert clusters.loc[378:381, "width.px"].compute().index.tolist() == [378, 379, 380, 381]
    dtypes = clusters.dtypes
    for i in range(clusters.npartitions):
        assert clusters.partitions[i].compute().dtypes.equals(dtypes)


def test_invalid_names_rows_and_reasons(finished):
    invalid = finished.result.invalid
    assert invalid.divisions == finished.result.clusters.divisions
    frame = invalid.compute()
    assert frame.index.tolist() == [40]
    assert frame["url"].tolist() == ["https://example.org/40.jpg"]
    expected = pd.read_parquet(finished.out / "invalid" / "part-00000.parquet")
    assert frame["invalid_reason"].tolist() == expected["invalid_reason"].tolist()


def test_histogram_counts_the_clusters_of_valid_rows(finished):
    labels = finished.rows["cluster_id"].drop(40)
    sizes = Counter(Counter(labels).values())
    histogram = finished.result.histogram
    assert dict(zip(histogram["cluster_size"], histogram["clusters"], strict=True)) == sizes


def test_forest_and_at_answer_from_the_search_s_threshold_up(finished):
    forest = finished.result.forest.compute()
    for threshold in (0.85, 0.9, 0.95, 0.98):
        labels = finished.result.at(threshold).compute()
        rows = [*range(40), *range(41, 650)]
        linked = finished.cosines >= np.float32(threshold)
        alone = [row for row in rows if linked[row].sum() == 1]
        assert sorted({*rows} - {*labels.index}) == alone
        assert len(labels) - labels["cluster_id"].nunique() == int(
            (forest["similarity"] >= np.float32(threshold)).sum()
        )
    at_run = finished.result.at(0.95).compute()["cluster_id"]
    assert (
        at_run.reindex(range(650), fill_value=-1)
        .where(lambda label: label >= 0, finished.rows["row_id"])
        .tolist()
        == finished.rows["cluster_id"].tolist()
    )
    with pytest.raises(SettingsError, match=r"answers thresholds from 0\.85 to"):
        finished.result.at(0.8)


def test_settings_are_those_of_the_run(finished):
    settings = finished.result.settings
    assert settings.search_threshold == 0.85
    assert settings.cells.cells == 1


def test_members_and_path_are_there_with_limits(finished):
    sizes = finished.rows["cluster_id"].value_counts()
    cluster = int(sizes.index[0])
    members = finished.result.members(cluster=cluster)
    assert len(members) == sizes.iloc[0]
    assert members["caption"].tolist() == finished.rows["caption"][members["row_id"]].tolist()
    few = finished.result.members(row=int(members["row_id"].iloc[1]), limit=2)
    assert few["row_id"].tolist() == members["row_id"][:2].tolist()
    path = finished.result.path(int(members["row_id"].iloc[-1]), cluster)
    assert path["to_row"].iloc[-1] == cluster


def test_result_travels_to_workers(finished):
    again = pickle.loads(pickle.dumps(finished.result))
    assert again == finished.result
    assert again.clusters.divisions == finished.result.clusters.divisions


class Tags(HTMLParser):
    """Names of the tags and the text of some HTML."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = Counter(), [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag not in ("circle", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags[tag] += 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.text.append(text)


def test_repr_is_a_line_and_html_has_counts_and_histogram(finished):
    duplicates = 649 - finished.rows["cluster_id"].drop(40).nunique()
    assert repr(finished.result) == (
        f"<Result {finished.out}: 650 rows, {duplicates:,} duplicates at 0.95>"
    )
    html = Tags(finished.result._repr_html_())
    assert html.open == []
    assert {"650", f"{duplicates:,}", "0.95", str(finished.out)} <= set(html.text)
    assert html.tags["circle"] == len(finished.result.histogram)
    assert html.tags["svg"] == 1


def test_html_of_hostile_names_holds_no_tag_of_theirs(finished):
    hostile = dask_dedup.Result(Path("/<script>alert(1)</script>/\"'&"), finished.result.summary)
    hostile.__dict__["histogram"] = finished.result.histogram
    html = hostile._repr_html_()
    assert not Tags(html).tags.keys() & {"script", "img", "a"}
    assert "/<script>alert(1)</script>/\"'&" in Tags(html).text


def test_histogram_svg_of_nothing_and_of_sixty_thousand_sizes_is_small():
    none = pd.DataFrame({"cluster_size": [], "clusters": []}, dtype="int64")
    assert Tags(histogram_svg(none)).tags["circle"] == 0
    sizes = np.arange(1, 60_001)
    many = pd.DataFrame({"cluster_size": sizes, "clusters": 60_000 * 60_000 // sizes**2 + 1})
    drawing = histogram_svg(many)
    assert 100 < Tags(drawing).tags["circle"] < 1000
    assert len(drawing) < 100_000


@pytest.fixture
def copy(finished, tmp_path):
    return Path(shutil.copytree(finished.out, tmp_path / "out"))


def damage_file(path):
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name", ["clusters/part-00002.parquet", "forest/part-00000.parquet", "histogram.csv",
             "invalid/part-00001.parquet", "summary.json"]
)  # fmt: skip
@pytest.mark.parametrize("change", [damage_file, Path.unlink])
def test_open_result_of_a_damaged_run_names_the_file(copy, name, change):
    change(copy / name)
    with pytest.raises(
        OutputError, match=rf"{name}.*the result of a finished run is not whole. Put the file back"
    ):
        dask_dedup.open_result(copy)


def test_open_result_of_what_is_no_finished_run_is_refused(copy, tmp_path, finished):
    for place in (tmp_path / "nowhere", tmp_path, finished.data):
        with pytest.raises(OutputError, match=r"holds no run: there is no run\.json of dask_dedup"):
            dask_dedup.open_result(place)
    (tmp_path / "run.json").write_text('{"tool": "another", "finished": true}')
    with pytest.raises(OutputError, match="holds no run"):
        dask_dedup.open_result(tmp_path)

    def fail(tasks, on_result):
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        dask_dedup.run(finished.data, copy, threshold=0.8, audit_queries=0, execute=fail)
    with pytest.raises(OutputError, match="its run is not finished"):
        dask_dedup.open_result(copy)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_open_result_in_a_bucket_is_that_of_the_disk(finished, endpoint):
    Session().create_client("s3").create_bucket(Bucket="results")
    for path in finished.out.rglob("*"):
        if path.is_file():
            upload(path, as_path(f"s3://results/out/{path.relative_to(finished.out)}"))
    there, here = dask_dedup.open_result("s3://results/out"), finished.result
    assert there == here
    assert (
        there.clusters.drop(columns="tags")
        .compute()
        .equals(here.clusters.drop(columns="tags").compute())
    )
    assert there.histogram.equals(here.histogram)
    assert there.invalid.compute().index.equals(here.invalid.compute().index)
    assert there.at(0.9).compute().equals(here.at(0.9).compute())
    cluster = int(finished.rows["cluster_id"].value_counts().index[0])
    for names in ({"cluster": cluster}, {"url": "https://example.org/3.jpg"}, {"row": 600}):
        left, right = there.members(**names), here.members(**names)
        assert left.drop(columns="tags").equals(right.drop(columns="tags"))
    last = int(here.members(cluster=cluster)["row_id"].iloc[-1])
    assert there.path(last, cluster).equals(here.path(last, cluster))
    assert "s3://results/out" in there._repr_html_()


def test_result_methods_are_those_of_the_package(small_run, small_data, tmp_path):
    result = dask_dedup.open_result(small_run)
    swept = result.sweep([0.95])
    assert swept.loc[0, "duplicates"] == result["duplicates"]
    assert swept.loc[0, "largest_cluster"] == result["largest_cluster"]
    exported = result.export(tmp_path / "kept", execute=compute_tasks)
    assert exported["rows"] == result["kept"]
    applied = result.apply(
        small_data / "metadata", tmp_path / "applied", key="key", execute=compute_tasks
    )
    assert applied["metadata"]["dropped"] == result["dropped"]
