"""Which copies stay by ``[keep]``: by brute force on all pairs, and by DuckDB's own sort."""

from __future__ import annotations

from functools import partial

import duckdb
import numpy as np
import pandas as pd
import pytest

import dask_dedup
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks, audit_queries=0)
KEPT = ["row_id", "cluster_id", "is_kept", "witness_row_id", "witness_similarity"]
ORDER = "width*height desc, length(caption) desc, row_id"
ROWS, THRESHOLD = 900, 0.95  # of the runs in conftest.py


def sql_order(metadata, order):
    """All rows in an order, by DuckDB's own sort; nulls last."""
    wide = {name: metadata[name].astype("Int64") for name in ("width", "height")}
    rows = metadata.assign(row_id=np.arange(ROWS), **wide)
    with duckdb.connect() as connection:
        connection.execute("SET default_null_order = 'nulls_last'")
        connection.register("rows", rows)
        found = connection.sql(f"SELECT row_id FROM rows ORDER BY {order}").df()
    return found["row_id"].to_numpy()


def greedy(near, clusters, order, protected=(), unwanted=(), single=(), most=0):
    """Who stays, in an order; of the others the witness, -1 for none."""
    kept = {}
    witness = np.full(ROWS, -1)
    protected, unwanted, single = set(protected), set(unwanted), set(single)
    tier = {row: 0 if row in protected else 2 if row in unwanted else 1 for row in order}
    for row in sorted(order, key=tier.get):
        if row in single:
            witness[row] = row
            continue
        own = kept.setdefault(clusters[row], [])
        by = [other for other in own if near[row, other]]
        if row in protected:
            own.append(row)
            witness[row] = row
        elif by or row in unwanted:
            witness[row] = by[0] if by else -1
        elif not most or len(own) < most:
            own.append(row)
            witness[row] = row
        else:
            witness[row] = -2  # past the limit
    return witness, kept


def check(found, witness, cosines):
    kept = witness == np.arange(ROWS)
    np.testing.assert_array_equal(found["is_kept"], kept)
    has = ~kept & (witness >= 0)
    np.testing.assert_array_equal(found["witness_row_id"].to_numpy()[has], witness[has])
    np.testing.assert_allclose(
        found["witness_similarity"].to_numpy()[has].astype("f8"),
        cosines[np.arange(ROWS), witness][has],
        atol=2e-7,
        rtol=0,
    )
    assert found.loc[~has, ["witness_row_id", "witness_similarity"]].isna().all(axis=None)


@pytest.mark.parametrize("parts", [1, 2, 7])
@pytest.mark.parametrize(
    ("order", "sql"),
    [
        (ORDER, ORDER),
        ("caption desc nulls first, row_id desc", "caption desc nulls first, row_id desc"),
        ("score desc", "nullif(score, 'NaN'::DOUBLE) desc, row_id"),
        ("score", "nullif(score, 'NaN'::DOUBLE), row_id"),
        ("SOURCE, tags[1] desc, length(tags)", "source, tags[1] desc, length(tags), row_id"),
        ("first", "row_id"),
    ],
)
def test_keep_in_an_order_is_the_greedy_choice_by_brute_force(
    keep, metadata, cosines, clusters, order, sql, parts
):
    found, summary = keep(parts, keep=order)
    near = cosines >= np.float32(THRESHOLD)
    witness, _ = greedy(near, clusters, sql_order(metadata, sql))
    check(found, witness, cosines)
    np.testing.assert_array_equal(found["cluster_id"], clusters)
    assert summary["kept"] == (witness == np.arange(ROWS)).sum() > summary["clusters"]
    assert summary["dropped_by_cap"] == summary["dropped_by_decision"] == 0


def test_keep_medoid_keeps_the_row_of_the_highest_mean_cosine(keep, cosines, clusters):
    found, _ = keep(2, keep="medoid")
    again, _ = keep(7, keep="medoid")
    pd.testing.assert_frame_equal(found[KEPT], again[KEPT])
    sizes = np.bincount(clusters, minlength=ROWS)[clusters]
    same = clusters[:, None] == clusters[None, :]
    mean = (cosines.astype("f8") * same).sum(axis=1)  # its own cosine is 1, or 0 of an invalid row
    kept = found["is_kept"].to_numpy()
    for cluster in np.unique(clusters[sizes > 1]):
        own = np.flatnonzero(clusters == cluster)
        assert kept[own[mean[own] >= mean[own].max() - 1e-5]].any()
    near = cosines >= np.float32(THRESHOLD)
    witness, _ = greedy(near, clusters, np.lexsort((np.arange(ROWS), -mean.astype("f4"))))
    assert abs((witness == np.arange(ROWS)).sum() - kept.sum()) <= 3  # ties of float32
    dropped = np.flatnonzero(~kept)
    by = found["witness_row_id"].to_numpy()[dropped].astype(int)
    assert near[dropped, by].all() and kept[by].all()
    assert not np.triu(near[np.ix_(kept, kept)], 1).any()


@pytest.mark.parametrize("parts", [1, 7])
@pytest.mark.parametrize(
    ("protect", "select"),
    [
        ("source = 'gold'", lambda frame: frame["source"] == "gold"),
        ("width > 3", lambda frame: (frame["width"] > 3).fillna(False)),
        ("false", lambda frame: frame["height"] < 0),
        ("true", lambda frame: frame["height"] > 0),
    ],
)
def test_protected_rows_stay_and_are_preferred_as_witnesses(
    keep, metadata, cosines, clusters, protect, select, parts
):
    found, summary = keep(parts, keep=ORDER, protect=protect)
    protected = np.flatnonzero(select(metadata).to_numpy(bool))
    near = cosines >= np.float32(THRESHOLD)
    witness, _ = greedy(near, clusters, sql_order(metadata, ORDER), protected)
    check(found, witness, cosines)
    sizes = np.bincount(clusters, minlength=ROWS)[clusters]
    assert summary["protected"] == (sizes[protected] > 1).sum()


def test_protect_without_an_order_leaves_the_choice_of_the_others_as_it_is(
    keep, metadata, cosines, clusters, finished
):
    found, _ = keep(protect="source = 'gold'")
    again, _ = keep(7, protect="source = 'gold'")
    pd.testing.assert_frame_equal(found[KEPT], again[KEPT])
    near = cosines >= np.float32(THRESHOLD)
    kept, gold = found["is_kept"].to_numpy(), (metadata["source"] == "gold").to_numpy()
    assert kept[gold].all()
    dropped = np.flatnonzero(~kept)
    by = found["witness_row_id"].to_numpy()[dropped].astype(int)
    assert near[dropped, by].all() and kept[by].all()
    gold_near = (near & gold).any(axis=1)[dropped]
    assert gold[by[gold_near]].all()
    others = np.flatnonzero(kept & ~gold)
    assert not (near[np.ix_(others, kept)].sum(axis=1) > 1).any()
    nobody, _ = keep(protect="false")
    plain = pd.read_parquet(finished[2] / "clusters")
    pd.testing.assert_frame_equal(nobody, plain)


@pytest.mark.parametrize("most", [1, 2, 5])
@pytest.mark.parametrize("parts", [1, 7])
def test_max_per_cluster_keeps_the_first_and_counts_those_without_a_witness(
    keep, metadata, cosines, clusters, most, parts
):
    found, summary = keep(
        parts, keep=ORDER, max_per_cluster=most, protect="source = 'gold' and row_id < 100"
    )
    protected = np.flatnonzero((metadata["source"] == "gold") & (np.arange(ROWS) < 100))
    near = cosines >= np.float32(THRESHOLD)
    order = sql_order(metadata, ORDER)
    witness, kept = greedy(near, clusters, order, protected, most=most)
    capped = np.flatnonzero(witness == -2)
    for row in capped:
        own = kept[clusters[row]]
        witness[row] = own[np.argmax(cosines[row, own])]
    check_but_for_ties(found, witness, cosines, capped)
    far = found.loc[capped, "witness_similarity"] < np.float32(THRESHOLD)
    assert summary["dropped_by_cap"] == far.sum() == len(capped) > 100
    counts = found[found["is_kept"]].groupby("cluster_id").size()
    gold = found.loc[protected].groupby("cluster_id").size()
    assert (counts <= np.maximum(most, gold.reindex(counts.index, fill_value=0))).all()


def check_but_for_ties(found, witness, cosines, loose):
    """As `check`; of ``loose`` rows any witness as similar does."""
    own = found["witness_row_id"].to_numpy(dtype=float, na_value=-1)[loose].astype(int)
    np.testing.assert_allclose(cosines[loose, own], cosines[loose, witness[loose]], atol=2e-7)
    assert found["is_kept"].to_numpy()[own].all()
    witness = witness.copy()
    witness[loose] = own
    check(found, witness, cosines)


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_decisions_are_followed(
    keep, metadata, cosines, clusters, write_decisions, tmp_path, parts
):
    rng = np.random.default_rng(5)
    chosen = rng.choice(ROWS, 450, replace=False)
    chosen = np.unique(np.append(chosen, [17, np.flatnonzero(clusters == np.arange(ROWS))[-1]]))
    words = rng.choice(["keep", "drop", "not-duplicates"], len(chosen), p=[0.05, 0.9, 0.05])
    words[chosen == 17] = "drop"  # no usable embedding
    whole = np.flatnonzero(clusters == clusters[np.bincount(clusters).argsort()[-4]])
    extra = np.setdiff1d(whole, chosen)  # a whole cluster is dropped
    words = np.where(np.isin(chosen, whole), "drop", words)
    pairs = [*zip(chosen, words, strict=True), *((row, "drop") for row in extra)]
    path = write_decisions(tmp_path / "d.csv", [f"{row},{word}" for row, word in pairs])
    found, summary = keep(
        parts, keep=ORDER, decisions=str(path), protect="source='gold' and height=50000"
    )
    by_word = {word: np.array([r for r, w in pairs if w == word]) for word in set(words)}
    gold = np.flatnonzero((metadata["source"] == "gold") & (metadata["height"] == 50_000))
    decided = np.array([row for row, _ in pairs])
    protected = np.union1d(np.setdiff1d(gold, decided), by_word["keep"])
    near = cosines >= np.float32(THRESHOLD)
    witness, kept = greedy(
        near,
        clusters,
        sql_order(metadata, ORDER),
        protected,
        by_word["drop"],
        by_word["not-duplicates"],
    )
    loose = []
    far = 0
    for row in by_word["drop"]:
        if witness[row] == -1:
            far += 1
            own = kept.get(clusters[row], [])
            if own:
                witness[row] = own[np.argmax(cosines[row, own])]
                loose.append(row)
    assert loose and (witness[by_word["drop"]] == -1).sum() > len(whole)
    check_but_for_ties(found, witness, cosines, np.array(loose))
    assert summary["dropped_by_decision"] == far
    assert summary["decisions"] == {word: len(own) for word, own in by_word.items()}
    single = set(by_word["not-duplicates"])
    assert not single & set(found["witness_row_id"].dropna())
    assert (
        dask_dedup.open_result(summary.out).out / "decisions.csv"
    ).read_bytes() == path.read_bytes()


def test_decisions_by_a_column_decide_all_rows_with_the_value(keep, metadata, tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("\ufeffurl,decision\r\nhttp://x/5,keep\r\n\r\nhttp://x/650,drop\r\n")
    for parts in (1, 7):
        found, summary = keep(parts, decisions=str(path))
        assert found["is_kept"][[5, 705]].all() and not found["is_kept"][650]
        assert summary["decisions"] == {"keep": 2, "drop": 1, "not-duplicates": 0}


def test_keep_with_linkage_components_keeps_the_first_and_protected_rows(
    metadata, cosines, clusters, finished, tmp_path
):
    settings = {"cells.cells": 1, "clusters.linkage": "components", "keep.order": ORDER}
    data = finished[2].parent / "data-2"
    run_here(data, tmp_path / "out", {**settings, "keep.protect": "source = 'gold'"})
    found = pd.read_parquet(tmp_path / "out" / "clusters")
    same = clusters[:, None] == clusters[None, :]
    gold = np.flatnonzero(metadata["source"] == "gold")
    witness, _ = greedy(same, clusters, sql_order(metadata, ORDER), gold)
    check(found, witness, cosines)
