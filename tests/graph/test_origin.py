import dask.dataframe as dd
import pytest

from dask_dedup.graph.forest_range import ForestRange, range_of, with_range
from dask_dedup.graph.origin import Origin, cut_rows, origin_of, origin_of_notes, with_origin
from dask_dedup.schema import EDGES

ORIGIN = Origin(12, {"folder": "é", "kept": 3})


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (0, [(0, 1)]),
        (1, [(0, 1)]),
        (1 << 20, [(0, 1 << 20)]),
        ((1 << 20) + 1, [(0, 1 << 20), (1 << 20, (1 << 20) + 1)]),
    ],
)
def test_cut_rows_by_hand(rows, expected):
    assert cut_rows(rows) == expected


def test_with_origin_stands_beside_the_range_and_leaves_the_frame_alone():
    known = ForestRange(0.9, None)
    noted = with_origin(with_range(EDGES, known), ORIGIN)
    assert origin_of(noted) == ORIGIN
    assert range_of(noted) == known
    assert origin_of(EDGES) is None
    assert origin_of(with_origin(noted, None)) is None


def nothing(_):
    return EDGES


def test_origin_goes_through_dask_and_a_file_s_notes():
    lazy = dd.from_map(nothing, [1], meta=with_origin(EDGES, ORIGIN))
    for frame in (lazy, lazy.persist(scheduler="synchronous")):
        assert origin_of(frame._meta) == ORIGIN
    notes = {key.encode(): value.encode() for key, value in ORIGIN.notes().items()}
    assert origin_of_notes(notes) == ORIGIN
    assert origin_of_notes(None) is None
