import numpy as np
import pytest

from dask_dedup.errors import InputError
from dask_dedup.evaluate.zeroshot import zeroshot_accuracy


def test_zeroshot_accuracy_by_hand():
    # Seven classes on the axes; the images' coordinates are their cosines, but for length.
    images = np.array(
        [
            [9, 8, 7, 6, 5, 4, 3],  # class 0 is first
            [9, 8, 7, 6, 5, 4, 3],  # class 4 is fifth
            [9, 8, 7, 6, 5, 4, 3],  # class 5 is sixth
            [1, 2, 3, 4, 5, 6, 7],  # class 5 is second
            [3, 3, 1, 1, 1, 1, 1],  # class 1 ties for the first rank: right
        ],
        np.float32,
    )
    result = zeroshot_accuracy(images, np.eye(7), np.array([0, 4, 5, 5, 1]))
    assert (result["rows"], result["classes"]) == (5, 4)
    assert result["top1"] == 2 / 5
    assert result["top5"] == 4 / 5
    assert result["mean_top1"] == (1 + 1 + 0 + 0) / 4  # classes 0, 1, 4, 5
    assert result["mean_top5"] == (1 + 1 + 1 + 1 / 2) / 4
    assert result["tied"] == 1 / 5
    assert result["split1"] == (1 + 1 / 2) / 5  # the tie is decided by a coin
    assert result["split5"] == 4 / 5


def test_zeroshot_accuracy_is_of_cosines_not_products():
    images, classes = np.array([[3.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 100.0]])
    assert zeroshot_accuracy(images, classes, np.array([0]))["top1"] == 1
    assert zeroshot_accuracy(images * 1e-30, classes * 1e30, np.array([0]))["top1"] == 1


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_zeroshot_accuracy_row_without_values_is_wrong(bad):
    images = np.array([[bad, bad], [1.0, 0.0]])
    result = zeroshot_accuracy(images, np.eye(2), np.array([0, 0]))
    assert (result["top1"], result["top5"], result["tied"]) == (0.5, 0.5, 0)


def test_zeroshot_accuracy_against_a_loop_of_argsorts():
    rng = np.random.default_rng(3)
    images, classes = rng.normal(size=(211, 13)), rng.normal(size=(17, 13))
    labels = rng.integers(0, 17, 211)
    unit = classes / np.linalg.norm(classes, axis=1, keepdims=True)
    first = [list(np.argsort(-(unit @ image))) for image in images]
    right = [order[0] == label for order, label in zip(first, labels, strict=True)]
    among = [label in order[:5] for order, label in zip(first, labels, strict=True)]
    result = zeroshot_accuracy(images, classes, labels)
    assert result["top1"] == np.mean(right)
    assert result["top5"] == np.mean(among)
    by_class = [np.mean(np.array(right)[labels == label]) for label in range(17)]
    assert result["mean_top1"] == pytest.approx(np.mean(by_class))


@pytest.mark.parametrize(
    ("images", "classes", "labels", "message"),
    [
        (np.ones((3, 2)), np.ones((2, 5)), [0, 0, 0], "rows of one dimension, got shapes (3, 2)"),
        (np.ones((0, 2)), np.ones((2, 2)), [], "at least one query and one target, got 0 and 2"),
        (np.ones((2, 2)), np.ones((2, 2)), [0, 2], "positions from 0 to 1, got 0 to 2"),
        (np.ones((2, 2)), np.ones((2, 2)), [-1, 1], "positions from 0 to 1, got -1 to 1"),
        (np.ones((2, 2)), np.ones((2, 2)), [0.0, 1.0], "one integer for each of 2 queries, got fl"),
    ],
)
def test_zeroshot_accuracy_refuses_what_does_not_fit(images, classes, labels, message):
    with pytest.raises(InputError) as caught:
        zeroshot_accuracy(images, classes, np.array(labels))
    assert message in str(caught.value)
