import numpy as np
import pandas as pd
import pytest

from dask_dedup.results.page_cards import Tiles, shown_steps, size_columns
from dask_dedup.results.page_edges import LongPath
from dask_dedup.results.page_rows import COLUMN


def tiles(**changes):
    rows = {
        i: {
            "row_id": i,
            "cluster_id": 0,
            "cluster_size": 9,
            "is_kept": i in (0, 5),
            "witness_row_id": i if i in (0, 5) else 0,
            "similarity": 1 - i / 100,
            "url": f"https://a.b/{i}",
            "caption": "a cat" if i % 2 else "a dog",
            "site": "a.b",
            f"{COLUMN}width": str(i + 1),
            f"{COLUMN}height": None if i == 3 else "7",
        }
        for i in range(9)
    }
    return Tiles(
        rows, ("width", "height"), 0.95, {1: "data:image/webp;base64,AA"}, **{"rule": "", **changes}
    )


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["url", "width", "height"], ("width", "height")),
        (["width"], None),
        (["WIDTH", "HEIGHT"], ("WIDTH", "HEIGHT")),
        (["height", "original_width", "original_height"], ("original_width", "original_height")),
    ],
)
def test_size_columns_are_found_by_their_names(columns, expected):
    assert size_columns(columns) == expected


def test_a_cluster_has_a_row_that_stays_first_and_the_others_falling():
    card = tiles().cluster([3, 5, 8, 0, 1])
    assert card.first.row_id == 0
    assert [one.row_id for one in card.others] == [1, 3, 5, 8]
    assert [one.verdict for one in card.others] == ["goes", "goes", "stays", "goes"]
    assert card.note == "5 shown: the least alike, others at random"
    assert [one.note for one in card.others] == ["", "", "no row that stays is at 0.95 to it", ""]
    assert [one.is_same_caption for one in card.others] == [False, False, False, True]
    assert [one.size for one in card.others] == ["2 × 7", "", "6 × 7", "9 × 7"]
    assert card.others[0].picture == "data:image/webp;base64,AA"
    assert tiles().cluster([*range(9)]).note == ""


def test_what_rows_stay_by_is_said():
    assert tiles().tile(0).note == "the first row of its cluster"
    assert tiles(rule="by width desc").tile(0).note == "by width desc"
    assert tiles(rule="by width desc").tile(1, 5).note == "for row 0"


def test_a_pair_has_the_row_that_stays_first():
    for one, other in ((8, 5), (5, 8)):
        card = tiles().pair(one, other, 0.9, "title")
        assert (card.first.row_id, card.others[0].row_id) == (5, 8)
        assert card.others[0].similarity == 0.9


@pytest.mark.parametrize(
    ("nodes", "weakest", "expected"),
    [
        (2, 0, [0, 1]),
        (6, 2, [0, 1, 2, 3, 4, 5]),
        (100, 0, [0, 1, 2, 97, 98, 99]),
        (100, 50, [0, 1, 2, 50, 51, 97, 98, 99]),
        (100, 98, [0, 1, 2, 97, 98, 99]),
    ],
)
def test_of_a_path_both_ends_and_the_weakest_edge_are_shown(nodes, weakest, expected):
    assert shown_steps(nodes, weakest) == expected


def test_a_path_says_what_it_leaves_out():
    edges = pd.DataFrame(
        {
            "from_row": np.arange(8, 0, -1),
            "to_row": np.arange(7, -1, -1),
            "similarity": np.float32([0.99, 0.98, 0.97, 0.951, 0.97, 0.98, 0.99, 0.99]),
            "is_weakest": [i == 3 for i in range(8)],
        }
    )
    card = tiles().path(LongPath(0, 9, 8, True, edges), 0.5)
    assert [step.tile.row_id for step in card.path] == [8, 7, 6, 5, 4, 2, 1, 0]
    assert [step.left_out for step in card.path] == [0, 0, 0, 0, 1, 0, 0, 0]
    assert [step.is_weakest for step in card.path] == [i == 3 for i in range(8)]
    assert card.path[-1].similarity is None
    assert card.note == "the two ends have 0.5000; 8 pairs link them, the weakest 0.9510"
