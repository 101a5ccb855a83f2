import itertools

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from dask_dedup import label_components, spanning_forest
from dask_dedup.graph import origin
from dask_dedup.graph.forest import forest_of_edges, label_forest
from dask_dedup.graph.origin import Origin, with_origin
from dask_dedup.schema import EDGES


@pytest.fixture
def edges():
    rng = np.random.default_rng(0)
    src, dst = rng.integers(0, 2000, (2, 1500))
    frame = pd.DataFrame({"src": src, "dst": dst, "similarity": rng.random(1500)})
    return frame[frame["src"] != frame["dst"]].astype(EDGES.dtypes)


def partitioned(edges, partitions):
    cuts = np.linspace(0, len(edges), partitions + 1).astype(int)
    cuts[-2] = cuts[-1] if partitions == 7 else cuts[-2]  # the last of seven is empty
    pieces = [edges.iloc[first:last] for first, last in itertools.pairwise(cuts)]
    return dd.from_map(pick, list(range(partitions)), pieces=pieces, meta=EDGES)


def pick(i, pieces):
    return pieces[i]


@pytest.mark.parametrize("partitions", [1, 2, 7])
def test_spanning_forest_equals_its_eager_twin(edges, partitions):
    forest = spanning_forest(partitioned(edges, partitions)).compute()
    pd.testing.assert_frame_equal(forest, forest_of_edges(edges))


@pytest.mark.parametrize("partitions", [1, 3])
def test_label_components_of_own_edges_equals_its_eager_twin(edges, partitions):
    labels = label_components(spanning_forest(partitioned(edges, partitions)), 0.5)
    assert (labels.npartitions, labels.known_divisions) == (1, False)
    pd.testing.assert_frame_equal(labels.compute(), label_forest(forest_of_edges(edges), 0.5))


@pytest.mark.parametrize(
    ("rows", "divisions"),
    [
        (2000, (0, 700, 1400, 1999)),
        (2100, (0, 700, 1400, 2099)),
        (2101, (0, 700, 1400, 2100, 2100)),
    ],
)
def test_label_components_that_know_their_rows_are_cut_and_know_their_divisions(
    edges, monkeypatch, rows, divisions
):
    # A million rows more are needed else: a constant, and no argument of what is public.
    monkeypatch.setattr(origin, "_CUT_ROWS", 700)
    known = dd.from_map(
        pick, [0, 1], pieces=[edges[:700], edges[700:]], meta=with_origin(EDGES, Origin(rows, {}))
    )
    labels = label_components(spanning_forest(known), 0.5)
    assert labels.divisions == divisions
    pd.testing.assert_frame_equal(labels.compute(), label_forest(forest_of_edges(edges), 0.5))
    for i, first in enumerate(divisions[:-1]):
        part = labels.get_partition(i).compute()
        assert ((part.index >= first) & (part.index < first + 700)).all()


def test_label_components_of_edges_in_several_partitions_is_refused(edges):
    with pytest.raises(ValueError, match=r"expected one partition, got 2.*spanning_forest"):
        label_components(partitioned(edges, 2), 0.5)


def test_spanning_forest_and_label_components_are_lazy(edges, no_compute):
    with no_compute():
        forest = spanning_forest(partitioned(edges, 2))
        label_components(forest, 0.5)
