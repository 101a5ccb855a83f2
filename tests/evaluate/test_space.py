import numpy as np
import pandas as pd
import pytest

from dask_dedup.data.dataset import read_dataset
from dask_dedup.errors import InputError, SettingsError
from dask_dedup.evaluate.evaluation_settings import SpaceSettings
from dask_dedup.evaluate.indexes import decode_rows
from dask_dedup.evaluate.retrieval import retrieval_recall
from dask_dedup.evaluate.row_table import LabelledRows, read_row_ids, read_row_labels
from dask_dedup.evaluate.space import choose_rows, measure_retrieval, measure_zeroshot
from dask_dedup.evaluate.zeroshot import zeroshot_accuracy
from dask_dedup.ivf.train_base import train_base


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    classes = rng.normal(size=(7, 16))
    labels = rng.integers(0, 7, 500)
    images = classes[labels] + 1.5 * rng.normal(size=(500, 16))
    texts = images + 0.8 * rng.normal(size=(500, 16))
    return images.astype("f2"), texts.astype("f2"), classes.astype("f4"), labels


@pytest.fixture
def data(tmp_path, write_dataset, arrays):
    images, texts, _, _ = arrays
    cuts = [130, 131]
    folder = write_dataset(tmp_path / "data", np.split(images, cuts), texts=np.split(texts, cuts))
    return read_dataset(folder)


def labelled(labels, row_ids, groups=None):
    return LabelledRows(row_ids, labels[row_ids], groups or {})


def test_measure_zeroshot_raw_is_the_kernel_on_the_rows(data, arrays, tmp_path):
    images, _, classes, labels = arrays
    row_ids = np.arange(3, 500, 3)
    clothes = (labels[row_ids] < 3, np.arange(3))
    found = measure_zeroshot(
        data, classes, labelled(labels, row_ids, {"clothes": clothes}), SpaceSettings(), tmp_path
    )
    assert [row["group"] for row in found] == ["all", "clothes"]
    assert (found[0]["model"], found[0]["factory"], found[0]["bytes_per_vector"]) == ("raw", "", 64)
    expected = zeroshot_accuracy(images[row_ids], classes, labels[row_ids])
    assert {key: found[0][key] for key in expected} == pytest.approx(expected)
    some = row_ids[labels[row_ids] < 3]
    expected = zeroshot_accuracy(images[some], classes[:3], labels[some])
    assert {key: found[1][key] for key in expected} == pytest.approx(expected)


def test_measure_zeroshot_quantizes_images_with_what_other_rows_taught(data, arrays, tmp_path):
    images, _, classes, labels = arrays
    row_ids, others = np.arange(100), np.arange(100, 500)
    settings = SpaceSettings(factories=("PQ{M}",), m=(2, 3))
    found = measure_zeroshot(data, classes, labelled(labels, row_ids), settings, tmp_path)
    assert [row["factory"] for row in found] == ["", "PQ2"]  # 3 does not divide 16
    unit = images.astype("f4") / np.linalg.norm(images.astype("f4"), axis=1, keepdims=True)
    index = train_base(unit[others], "PQ2")
    expected = zeroshot_accuracy(decode_rows(index, unit[row_ids]), classes, labels[row_ids])
    assert found[1]["top1"] == pytest.approx(expected["top1"], abs=0.011)  # a bit of a row's length
    assert found[1]["bytes_per_vector"] == 2
    assert found[1]["top1"] != found[0]["top1"]


def test_measure_retrieval_both_ways_of_raw_and_pca(data, arrays, tmp_path):
    images, texts, _, _ = arrays
    row_ids = np.arange(0, 500, 2)
    settings = SpaceSettings(models=("raw", "pca:4"))
    found = pd.DataFrame(measure_retrieval(data, row_ids, settings, tmp_path))
    raw = found[found["model"] == "raw"].set_index("direction")
    there = retrieval_recall(images[row_ids], texts[row_ids])
    back = retrieval_recall(texts[row_ids], images[row_ids])
    assert raw.loc["image → text", "recall@1"] == there["recall@1"]
    assert raw.loc["text → image", "recall@5"] == back["recall@5"]
    small = found[found["model"] == "pca-4"].set_index("direction")
    assert small.loc["image → text", "dim"] == 4
    assert (small["recall@1"] < raw["recall@1"]).all()
    assert (tmp_path / "pca-4").is_dir()


def test_measure_retrieval_quantizes_the_side_that_is_searched(data, arrays, tmp_path):
    row_ids, others = np.arange(200), np.arange(200, 500)
    found = measure_retrieval(data, row_ids, SpaceSettings(factories=("PQ1x4",)), tmp_path)
    rows = {row["direction"]: row for row in found if row["factory"]}
    unit = [
        a.astype("f4") / np.linalg.norm(a.astype("f4"), axis=1, keepdims=True) for a in arrays[:2]
    ]
    for source, target, name in ((0, 1, "image → text"), (1, 0, "text → image")):
        index = train_base(unit[target][others], "PQ1x4")
        expected = retrieval_recall(
            unit[source][row_ids], decode_rows(index, unit[target][row_ids])
        )
        # Sixteen codes: nearly all targets tie, in favour of the pair.
        assert rows[name]["recall@1"] == pytest.approx(expected["recall@1"], abs=0.02)
        assert rows[name]["tied"] > 0.9
        assert rows[name]["split@1"] < rows[name]["recall@1"] / 2


def test_measure_space_refuses_what_does_not_fit(data, arrays, tmp_path, write_dataset):
    images, texts, classes, labels = arrays
    with pytest.raises(InputError, match="classes: embeddings have dimension 5, but"):
        measure_zeroshot(
            data, classes[:, :5], labelled(labels, np.arange(9)), SpaceSettings(), tmp_path
        )
    other = read_dataset(write_dataset(tmp_path / "other", [images[:9]], texts=[texts[:9, :5]]))
    with pytest.raises(InputError, match="Retrieval needs one space for both"):
        measure_retrieval(other, np.arange(9), SpaceSettings(), tmp_path)
    alone = read_dataset(write_dataset(tmp_path / "alone", [images[:9]]))
    with pytest.raises(InputError, match="has no text embeddings"):
        measure_retrieval(alone, np.arange(9), SpaceSettings(), tmp_path)


def test_choose_rows_is_a_seeded_sample(data):
    one, again = (choose_rows(data, SpaceSettings(rows=50)) for _ in range(2))
    assert len(np.unique(one)) == 50
    assert np.array_equal(one, again)
    assert not np.array_equal(one, choose_rows(data, SpaceSettings(rows=50, seed=1)))


@pytest.fixture
def table(tmp_path):
    frame = pd.DataFrame(
        {
            "row": [9, 3, 5, 7, 1, 0],
            "class_id": [2, 0, -1, 1, 2, 1],
            "split": ["test", "test", "test", "train", "test", "test"],
            "pool": [True, True, True, True, False, False],
            "kind": ["b", "a", "a", "a", "b", None],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def labels_of(table, **changes):
    options = {
        "row_column": "row", "label_column": "class_id", "filters": ("split=test",), "by": "kind",
        "rows": 10, "classes": 3,
    }  # fmt: skip
    return read_row_labels(table, **{**options, **changes})


def test_read_row_labels_by_hand(table):
    found = labels_of(table)
    assert found.row_ids.tolist() == [0, 1, 3, 9]  # 5 has no class, 7 is for training
    assert found.labels.tolist() == [1, 2, 0, 2]
    # Classes of kind a are those of all its rows, row 7 in training included.
    assert {name: (m.tolist(), c.tolist()) for name, (m, c) in found.groups.items()} == {
        "a": ([False, False, True, False], [0, 1]),
        "b": ([False, True, False, True], [2]),
    }


def test_read_row_ids_filters_booleans_and_text(table):
    def ids(*filters):
        return read_row_ids(table, row_column="row", filters=filters, rows=10).tolist()

    assert ids("pool=true", "split=test") == [3, 5, 9]
    assert ids("pool=False") == [0, 1]
    assert ids() == [0, 1, 3, 5, 7, 9]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"classes": 2}, InputError, "label 2 in column 'class_id', but there are 2 classes"),
        ({"rows": 9}, InputError, "row ids from 0 to 9 in column 'row', but the data set has 9"),
        ({"label_column": "no"}, InputError, "no column 'no'; the columns are row, class_id, spl"),
        ({"label_column": "kind"}, InputError, "column 'kind' is expected to hold integers"),
        ({"row_column": "split"}, InputError, "column 'split' is expected to hold row ids"),
        ({"row_column": "class_id"}, InputError, "row 2 occurs more than once"),
        ({"filters": ("split=none",)}, InputError, "has no rows that pass split=none"),
        ({"filters": ("split",)}, SettingsError, "filter: expected COLUMN=VALUE, got 'split'"),
    ],
)
def test_read_row_labels_refuses_in_our_words(table, changes, kind, message):
    with pytest.raises(kind) as caught:
        labels_of(table, **changes)
    assert message in str(caught.value)


def test_read_row_ids_of_no_parquet_says_so(tmp_path):
    (tmp_path / "x.parquet").write_text("no")
    for name in ("x.parquet", "gone.parquet"):
        with pytest.raises(InputError, match=f"{name}: cannot be read as parquet"):
            read_row_ids(tmp_path / name, row_column="row", filters=(), rows=3)
