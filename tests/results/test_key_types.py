"""Types of keys: compared, refused, and named where nearly nothing matches."""

import logging
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dask_dedup
from dask_dedup import SettingsError, apply
from dask_dedup.results.key_types import refuse_other_types
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)
ROWS = 400
KINDS = {
    "text": [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.binary(),
        pa.binary(16),
    ],
    "numbers": [pa.int8(), pa.int32(), pa.uint64(), pa.float16(), pa.float64(), pa.decimal128(9)],
    "prices": [pa.decimal128(9, 2)],
    "truth": [pa.bool_()],
    "days": [pa.date32()],
    "times": [pa.timestamp("us")],
    "other times": [pa.timestamp("ns")],
}


@pytest.fixture(scope="module")
def result(tmp_path_factory, write_dataset):
    """A run whose rows 200 to 399 are copies of the first, known by an integer and by a text."""
    folder = tmp_path_factory.mktemp("typed")
    rows = np.random.default_rng(0).normal(size=(ROWS // 2, 16)).astype("f4")
    number = np.arange(ROWS) * 1_000_003_000  # 10¹² and above are written with an exponent
    metadata = pd.DataFrame({"url": [f"u{i}" for i in range(ROWS)], "id": number})
    metadata["name"] = [f"{i:07}" for i in range(ROWS)]
    write_dataset(folder / "data", [np.concatenate([rows, rows])], [metadata])
    run_here(folder / "data", folder / "out", audit_queries=0)
    return folder / "out", metadata


def test_types_are_compared_within_their_kind_alone():
    for kind, types in KINDS.items():
        for one in types:
            for other_kind, others in KINDS.items():
                for other in others:
                    check = partial(refuse_other_types, ["k"], [one], [other], "OUT", "a.parquet")
                    if kind == other_kind:
                        check()
                        continue
                    with pytest.raises(SettingsError, match=r"key: 'k' is .* in the result OUT"):
                        check()
            refuse_other_types(["k"], [one], [None], "OUT", "a.csv")
            refuse_other_types(["k"], [one], [pa.null()], "OUT", "a.parquet")


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.float64(), pa.decimal128(20)])
def test_apply_by_a_number_of_another_type_matches_every_row(tmp_path, result, kind, caplog):
    out, metadata = result
    pq.write_table(pa.table({"id": pa.array(metadata["id"]).cast(kind)}), tmp_path / "copy.parquet")
    with caplog.at_level(logging.WARNING, "dask_dedup"):
        summary = apply(out, tmp_path / "copy.parquet", tmp_path / "to", key="id")
    assert (summary["metadata"]["kept"], summary["metadata"]["dropped"]) == (200, 200)
    assert summary["key_types"] == {"result": ["int64"], "metadata": [str(kind)]}
    assert caplog.messages == []


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.string()])
def test_apply_by_text_of_another_type_matches_every_row(tmp_path, result, kind):
    out, metadata = result
    pq.write_table(
        pa.table({"url": pa.array(metadata["url"]).cast(kind)}), tmp_path / "copy.parquet"
    )
    summary = apply(out, tmp_path / "copy.parquet", tmp_path / "to")
    assert (summary["metadata"]["kept"], summary["metadata"]["dropped"]) == (200, 200)


def test_apply_by_a_number_and_a_text_is_refused_before_any_work(tmp_path, result):
    out, metadata = result
    copy = metadata.assign(id=metadata["id"].astype(str), name=metadata["name"].astype(int))
    copy.to_parquet(tmp_path / "copy.parquet")
    kinds = r"'id' is int64 in the result .*out, and (large_)?string in .*copy\.parquet"
    with pytest.raises(SettingsError, match=kinds):
        apply(out, tmp_path / "copy.parquet", tmp_path / "to", key="id")
    with pytest.raises(SettingsError, match=r"'name' is (large_)?string in .*, and int64 in"):
        apply(out, tmp_path / "copy.parquet", tmp_path / "to", key="name")
    assert not (tmp_path / "to").exists()


def test_apply_says_loudly_where_nothing_or_nearly_nothing_matches(tmp_path, result, caplog):
    out, metadata = result
    text = metadata.assign(name=metadata["name"].str.lstrip("0"))
    text.to_csv(tmp_path / "none.csv", index=False)
    expected = (
        r"none of 399 rows with a key matched one of 400 of the result: 'name' is .*string in the "
        r"result and text of CSV in the metadata"
    )
    for _ in range(2):  # again from the finished folder
        caplog.clear()
        with caplog.at_level(logging.WARNING, "dask_dedup"):
            summary = apply(out, tmp_path / "none.csv", tmp_path / "to", key="name")
        assert summary["metadata"]["unmatched"] == 399 and summary["rows"] == 400
        (line,) = caplog.messages
        assert pd.Series([line]).str.contains(expected).all()
    text.loc[:2, "name"] = metadata["name"][:3]
    text.to_parquet(tmp_path / "few.parquet")
    caplog.clear()
    apply(out, tmp_path / "few.parquet", tmp_path / "few", key="name")
    (line,) = caplog.messages
    assert line.startswith("only 3 of 400 rows")


def test_apply_of_a_small_result_to_a_large_copy_is_not_called_few(tmp_path, result, caplog):
    out, metadata = result
    many = pd.DataFrame({"url": [*metadata["url"], *(f"v{i}" for i in range(100 * ROWS))]})
    many.to_parquet(tmp_path / "many.parquet")
    apply(out, tmp_path / "many.parquet", tmp_path / "to")
    metadata[:2].to_parquet(tmp_path / "two.parquet")
    apply(out, tmp_path / "two.parquet", tmp_path / "two")
    assert caplog.messages == []
