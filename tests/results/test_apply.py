"""Applying decisions to another copy: every count by pandas, resume, refusals, stores."""

import os
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

import dask_dedup
from dask_dedup import InputError, OutputError, SettingsError, apply
from dask_dedup.results.sizes import MATCHED_ROWS
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)

ROWS = 4000


@pytest.fixture(scope="module")
def result(tmp_path_factory, write_dataset):
    """A run over rows of which half are copies, and URLs of which some stand for several rows."""
    rng = np.random.default_rng(3)
    group = np.where(rng.random(ROWS) < 0.5, rng.integers(0, 800, ROWS), np.arange(ROWS) + 10_000)
    embeddings = np.random.default_rng(4).normal(size=(14_000, 24)).astype("f4")[group]
    number = np.where(rng.random(ROWS) < 0.1, rng.integers(0, 300, ROWS), np.arange(ROWS))
    urls = pd.Series([f"http://x/{i}.jpg" for i in number])
    urls[rng.random(ROWS) < 0.01] = None
    metadata = pd.DataFrame(
        {"url": urls, "caption": [f"text {i}" for i in range(ROWS)], "id": np.arange(ROWS)}
    )
    stops = [100, 100, 2500]
    folder = tmp_path_factory.mktemp("applied")
    write_dataset(
        folder / "data", np.split(embeddings, stops),
        [metadata.iloc[rows] for rows in np.split(np.arange(ROWS), stops)],
    )  # fmt: skip
    run_here(folder / "data", folder / "out", {"audit.queries": 0, "cells.cells": 1})
    clusters = pd.read_parquet(folder / "out" / "clusters")
    if "is_kept" not in clusters:
        clusters["is_kept"] = clusters["is_representative"]
        clusters["witness_row_id"] = clusters["cluster_id"].where(~clusters["is_kept"])
    return folder / "out", clusters


@pytest.fixture(scope="module")
def copy(result):
    """The metadata shuffled, a tenth missing, a tenth of foreign rows, some without URL."""
    rng = np.random.default_rng(6)
    clusters = result[1]
    here = clusters.loc[rng.random(ROWS) < 0.9, ["url", "caption", "id"]]
    foreign = pd.DataFrame(
        {"url": [f"http://y/{i}.jpg" for i in range(ROWS // 10)], "caption": "foreign", "id": -1}
    )
    foreign.loc[:4, "url"] = ["", None, None, None, None]
    both = pd.concat([here, foreign, here.sample(50, random_state=1)])
    frame = both.sample(frac=1, random_state=2).reset_index(drop=True)
    return frame.assign(score=rng.random(len(frame)).astype("f4"))


def expected(clusters, copy, ambiguous, keys=("url",)):
    """What becomes of each row of the copy, by pandas."""
    key = list(keys)
    known = clusters.dropna(subset=key)
    of_key = known.groupby(key)["is_kept"].agg(["all", "any"])
    asked = pd.MultiIndex.from_frame(copy[key].dropna()) if len(key) > 1 else copy[key[0]].dropna()
    stays = of_key["all"] | (of_key["any"] & (ambiguous != "drop"))
    there = of_key.index[stays & of_key.index.isin(asked)]
    place = pd.MultiIndex.from_frame(known[key]) if len(key) > 1 else pd.Index(known[key[0]])
    present = set(known.loc[place.isin(there), "row_id"])
    lost = known.loc[~known["is_kept"] & ~known["witness_row_id"].isin(present)]
    alone = lost.groupby(key).size().index
    verdicts = []
    for values in copy[key].itertuples(index=False):
        value = tuple(values) if len(key) > 1 else values[0]
        parts = value if isinstance(value, tuple) else (value,)
        if any(part is None or part != part or part == "" for part in parts):
            verdicts.append("keyless")
        elif value not in of_key.index:
            verdicts.append("unmatched")
        elif of_key.loc[value, "all"]:
            verdicts.append("kept")
        elif of_key.loc[value, "any"]:
            verdicts.append("ambiguous")
        else:
            verdicts.append("without_witness" if value in alone else "dropped")
    return np.array(verdicts)


def check(summary, verdicts, ambiguous):
    counts = {name: int((verdicts == name).sum()) for name in summary["metadata"]}
    assert summary["metadata"] == counts
    assert all(counts.values())
    assert sum(counts.values()) == summary["metadata_rows"] == len(verdicts)
    gone = (verdicts == "dropped") | ((verdicts == "ambiguous") & (ambiguous == "drop"))
    assert summary["rows"] == len(verdicts) - gone.sum()
    return ~gone


@pytest.mark.parametrize("ambiguous", ["keep", "drop"])
@pytest.mark.parametrize("matched_rows", [MATCHED_ROWS, 900])
def test_apply_to_a_shuffled_copy_counts_as_pandas(tmp_path, result, copy, ambiguous, matched_rows):
    out, clusters = result
    table = pa.Table.from_pandas(copy, preserve_index=False).replace_schema_metadata({"mine": "1"})
    (tmp_path / "copy").mkdir()
    for i, (start, stop) in enumerate([(0, 1), (1, 1), (1, 3000), (3000, len(copy))]):
        pq.write_table(table[start:stop], tmp_path / "copy" / f"c_{i}.parquet")
    summary = apply(
        out, tmp_path / "copy", tmp_path / "to", ambiguous=ambiguous, matched_rows=matched_rows
    )
    verdicts = expected(clusters, copy, ambiguous)
    stays = check(summary, verdicts, ambiguous)
    names = sorted(p.name for p in (tmp_path / "to" / "metadata").iterdir())
    assert names == [f"c_{i}.parquet" for i in range(4)]
    made = pa.concat_tables([pq.read_table(tmp_path / "to" / "metadata" / name) for name in names])
    assert made.equals(table.filter(pa.array(stays)), check_metadata=True)
    known = clusters.dropna(subset="url")
    found = known["url"].isin(copy["url"])
    assert summary["result"] == {
        "matched": int(found.sum()),
        "unmatched": int((~found).sum()),
        "keyless": int(clusters["url"].isna().sum()),
    }
    assert summary["result_rows"] == ROWS
    of_url = known.groupby("url")["is_kept"].agg(["sum", "size"])
    assert summary["repeated_keys"] == int((of_url["size"] > 1).sum())
    both = of_url[(of_url["sum"] > 0) & (of_url["sum"] < of_url["size"])]
    assert summary["ambiguous_keys"] == len(both) > 0
    listed = pd.read_parquet(tmp_path / "to" / "ambiguous.parquet").set_index("key")
    assert set(listed.index) == set(both.index)
    both = both.loc[listed.index]
    assert listed["kept_rows"].tolist() == both["sum"].tolist()
    assert listed["dropped_rows"].tolist() == (both["size"] - both["sum"]).tolist()
    times = copy["url"].value_counts()
    assert listed["metadata_rows"].tolist() == [int(times.get(u, 0)) for u in listed.index]
    foreign = pd.read_parquet(tmp_path / "to" / "unmatched_metadata")
    assert sorted(foreign["key"]) == sorted(copy["url"][verdicts == "unmatched"])
    starts = foreign["file"].map({f"c_{i}.parquet": s for i, s in enumerate([0, 1, 1, 3000])})
    assert copy["url"].iloc[starts + foreign["position"]].tolist() == foreign["key"].tolist()
    missing = pd.read_parquet(tmp_path / "to" / "unmatched_result")
    assert sorted(missing["row_id"]) == known["row_id"][~found].tolist()
    buckets = len(list((tmp_path / "to" / "unmatched_result").iterdir()))
    assert buckets == -(-(ROWS + len(copy)) // matched_rows)


def test_apply_drops_no_row_whose_witness_is_missing(tmp_path, result):
    out, clusters = result
    rows = clusters.dropna(subset="url").drop_duplicates("url", keep=False)
    dropped = rows[~rows["is_kept"]].head(1)
    witness = clusters[clusters["row_id"] == dropped["witness_row_id"].iloc[0]]
    dropped[["id"]].to_parquet(tmp_path / "alone.parquet")
    pd.concat([dropped, witness])[["id"]].to_parquet(tmp_path / "both.parquet")
    alone = apply(out, tmp_path / "alone.parquet", tmp_path / "a", key="id")
    assert (alone["rows"], alone["metadata"]["without_witness"]) == (1, 1)
    both = apply(out, tmp_path / "both.parquet", tmp_path / "b", key="id")
    assert (both["rows"], both["metadata"]["dropped"]) == (1, 1)
    assert pd.read_parquet(tmp_path / "b" / "metadata")["id"].tolist() == witness["id"].tolist()


def test_apply_by_several_columns_tells_repeated_urls_apart(tmp_path, result, copy):
    out, clusters = result
    copy.to_parquet(tmp_path / "copy.parquet")
    summary = apply(out, tmp_path / "copy.parquet", tmp_path / "to", key="url,id")
    verdicts = expected(clusters, copy, "keep", ("url", "id"))
    assert summary["metadata"] == {n: int((verdicts == n).sum()) for n in summary["metadata"]}
    assert (summary["ambiguous_keys"], summary["metadata"]["ambiguous"]) == (0, 0)
    assert summary["metadata"]["dropped"] > 1000


def test_apply_to_csv_leaves_values_as_they_stand(tmp_path, result, copy):
    out, clusters = result
    (tmp_path / "copy").mkdir()
    odd = copy.assign(URL=copy["url"], note='say "so",\nor not', price="007").drop(columns="url")
    odd[:2000].to_csv(tmp_path / "copy" / "a.csv", index=False)
    odd[2000:].to_csv(tmp_path / "copy" / "b.tsv", index=False, sep="\t")
    summary = apply(out, tmp_path / "copy", tmp_path / "to")
    stays = check(summary, expected(clusters, copy, "keep"), "keep")
    folder = tmp_path / "to" / "metadata"
    texts = {"dtype": str, "keep_default_na": False}
    found = pd.concat(
        [pd.read_csv(folder / "a.csv", **texts), pd.read_csv(folder / "b.tsv", sep="\t", **texts)]
    )
    before = pd.concat(
        [
            pd.read_csv(tmp_path / "copy" / "a.csv", **texts),
            pd.read_csv(tmp_path / "copy" / "b.tsv", sep="\t", **texts),
        ]
    )
    pd.testing.assert_frame_equal(
        found.reset_index(drop=True), before[stays].reset_index(drop=True)
    )


@pytest.mark.parametrize(
    "quoted",
    ['"Hello" world', '"Hello world'],
    ids=["goes on behind its quote", "ends at a later quote"],
)
def test_apply_to_csv_whose_quotes_make_rows_run_together_is_refused(tmp_path, result, quoted):
    out, clusters = result
    urls = clusters["url"].dropna()
    captions = [quoted if i in (3, 30) else "c" for i in range(len(urls))]
    lines = [f"{caption}\t{url}\n" for caption, url in zip(captions, urls, strict=True)]
    path = tmp_path / "cc.tsv"
    path.write_text("caption\turl\n" + "".join(lines))
    with pytest.raises(InputError, match=r"cc\.tsv: line [\d,]+: .*rows would run together"):
        apply(out, path, tmp_path / "to")
    assert not (tmp_path / "to" / "metadata").exists()
    path.write_text("caption\turl\n" + "".join(lines).replace('"', "'"))
    assert apply(out, path, tmp_path / "to", overwrite=True)["metadata_rows"] == len(urls)


def test_apply_finds_files_whose_names_look_like_patterns(tmp_path, result, copy):
    out, clusters = result
    folder = tmp_path / "copy [v1]*"
    folder.mkdir()
    copy.to_parquet(folder / "a[0].parquet")
    for number, path in enumerate((folder, folder / "a[0].parquet")):
        summary = apply(out, path, tmp_path / f"to-{number}")
        check(summary, expected(clusters, copy, "keep"), "keep")


def test_apply_by_text_that_is_no_utf8_matches_it_byte_by_byte(tmp_path, bytes_run):
    data, out, urls = bytes_run
    summary = apply(out, data, tmp_path / "to", matched_rows=20)
    assert summary["metadata"]["kept"] == 40
    assert summary["metadata"]["dropped"] == 20
    (path,) = (tmp_path / "to" / "metadata").iterdir()
    assert pq.read_table(path)["url"].cast(pa.binary()).to_pylist() == urls[:40]


def test_apply_with_ambiguous_keys_as_an_error_publishes_nothing(tmp_path, result, copy):
    out, _ = result
    copy.to_parquet(tmp_path / "copy.parquet")
    with pytest.raises(InputError, match=r"rows have a key that stands for rows that stay and"):
        apply(out, tmp_path / "copy.parquet", tmp_path / "to", ambiguous="error")
    assert not (tmp_path / "to" / "metadata").exists()
    assert not (tmp_path / "to" / "summary.json").exists()
    done = []

    def counted(tasks, on_result):
        done.append(len(tasks))
        return compute_tasks(tasks, on_result)

    apply(out, tmp_path / "copy.parquet", tmp_path / "to", execute=counted)
    assert sum(done) == 1  # all but the writing was done
    with pytest.raises(SettingsError, match="ambiguous: expected keep, drop, error, got 'maybe'"):
        apply(out, tmp_path / "copy.parquet", tmp_path / "to", ambiguous="maybe")


@pytest.mark.parametrize("stage", range(7))
def test_apply_continues_where_it_was_stopped(tmp_path, result, copy, stage):
    out, _ = result
    copy.to_parquet(tmp_path / "copy.parquet")
    calls, done = [], []

    def stopped(tasks, on_result):
        calls.append(len(tasks))
        if len(calls) == stage + 1:
            compute_tasks(tasks[:-1], on_result)
            raise KeyboardInterrupt
        return compute_tasks(tasks, on_result)

    def counted(tasks, on_result):
        done.append(len(tasks))
        return compute_tasks(tasks, on_result)

    with pytest.raises(KeyboardInterrupt):
        apply(out, tmp_path / "copy.parquet", tmp_path / "to", execute=stopped)
    summary = apply(out, tmp_path / "copy.parquet", tmp_path / "to", execute=counted)
    assert done[:stage] == [0] * stage
    assert done[stage] == 1
    whole = apply(out, tmp_path / "copy.parquet", tmp_path / "whole")
    assert summary == whole
    for path in (tmp_path / "whole").rglob("*.parquet"):
        other = tmp_path / "to" / path.relative_to(tmp_path / "whole")
        assert other.read_bytes() == path.read_bytes()


def test_apply_refuses_what_it_cannot_match(tmp_path, result, copy):
    out, _ = result
    copy.to_parquet(tmp_path / "copy.parquet")
    with pytest.raises(SettingsError, match=r"copy.parquet has no column 'sha256'; it has url"):
        apply(out, tmp_path / "copy.parquet", tmp_path / "to", key="sha256")
    with pytest.raises(SettingsError, match=r"the result .* has no column 'score'; it has url"):
        apply(out, tmp_path / "copy.parquet", tmp_path / "to", key="score")
    for place in (out, out / "new"):
        with pytest.raises(OutputError, match="is the finished run itself, or lies in it"):
            apply(out, tmp_path / "copy.parquet", place)
    assert not (out / "new").exists()
    with pytest.raises(InputError, match="no such file or folder"):
        apply(out, tmp_path / "other", tmp_path / "to")
    with pytest.raises(InputError, match="no file matches this pattern"):
        apply(out, tmp_path / "*.csv", tmp_path / "to")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"expected .parquet, .csv, .tsv files, found none"):
        apply(out, tmp_path / "empty", tmp_path / "to")
    (tmp_path / "twice.csv").write_text("url,url\nu,u\n")
    with pytest.raises(SettingsError, match=r"twice.csv has more than one column 'url'"):
        apply(out, tmp_path / "twice.csv", tmp_path / "to")
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(InputError, match=r"bad.parquet: cannot be read"):
        apply(out, tmp_path / "bad.parquet", tmp_path / "to")
    assert not (tmp_path / "to").exists()
    (tmp_path / "to" / "metadata").mkdir(parents=True)
    shutil.copy(tmp_path / "copy.parquet", tmp_path / "to" / "metadata")
    with pytest.raises(InputError, match="holds files of the input"):
        apply(out, tmp_path / "to", tmp_path / "to")


def test_apply_to_other_files_into_the_same_folder_is_refused(tmp_path, result, copy):
    out, _ = result
    copy.to_parquet(tmp_path / "copy.parquet")
    apply(out, tmp_path / "copy.parquet", tmp_path / "to")
    copy[:100].to_parquet(tmp_path / "copy.parquet")
    with pytest.raises(OutputError, match="was made from another result"):
        apply(out, tmp_path / "copy.parquet", tmp_path / "to")
    again = apply(out, tmp_path / "copy.parquet", tmp_path / "to", overwrite=True)
    assert again["metadata_rows"] == 100


def test_apply_from_a_store_into_a_store_is_the_same(tmp_path, result, copy):
    out, _ = result
    copy.to_parquet(tmp_path / "copy.parquet")
    stored = UPath("memory://applied")
    (stored / "copy.parquet").write_bytes((tmp_path / "copy.parquet").read_bytes())
    there = apply(out, stored / "copy.parquet", stored / "to")
    here = apply(out, tmp_path / "copy.parquet", tmp_path / "to")
    assert there["metadata"] == here["metadata"]
    for name in ("ambiguous.parquet", "metadata/copy.parquet"):
        assert (stored / "to" / name).read_bytes() == (tmp_path / "to" / name).read_bytes()
    stored.fs.rm("/applied", recursive=True)


def test_apply_to_files_changed_with_the_same_size_and_time_does_not_go_on(tmp_path, bytes_run):
    _, out, _ = bytes_run
    path = tmp_path / "a.csv"
    path.write_text("url\nu1\n")
    os.utime(path, (1, 1))
    assert apply(out, path, tmp_path / "to")["metadata"]["unmatched"] == 1
    path.write_text("url\nu2\n")
    os.utime(path, (1, 1))
    with pytest.raises(OutputError, match="was made from another result"):
        apply(out, path, tmp_path / "to")


def test_apply_takes_endings_in_capitals(tmp_path, bytes_run):
    _, out, _ = bytes_run
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "A.CSV").write_text('url,n\nu1,"1,5"\n')
    (tmp_path / "copy" / "B.TSV").write_text("url\tn\nu2\t1,5\n")
    pd.DataFrame({"url": ["u3"]}).to_parquet(tmp_path / "copy" / "C.PARQUET")
    for _ in range(2):  # the second time there is nothing to do
        assert apply(out, tmp_path / "copy", tmp_path / "to")["rows"] == 3
    folder = tmp_path / "to" / "metadata"
    assert [*pd.read_csv(folder / "A.CSV")["n"]] == ["1,5"]
    assert [*pd.read_csv(folder / "B.TSV", sep="\t")["n"]] == ["1,5"]
    assert [*pd.read_parquet(folder / "C.PARQUET")["url"]] == ["u3"]


def test_apply_to_a_packed_file_says_what_to_do(tmp_path, bytes_run):
    _, out, _ = bytes_run
    pd.DataFrame({"url": ["u1"]}).to_csv(tmp_path / "a.csv.gz", index=False)
    with pytest.raises(InputError, match=r"a\.csv\.gz: is compressed as a whole\..* unpack it"):
        apply(out, tmp_path / "a.csv.gz", tmp_path / "to")
