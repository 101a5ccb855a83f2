import itertools

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from dask_dedup import label_components, spanning_forest
from dask_dedup.graph.forest import forest_of_edges, label_forest
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
@pytest.mark.parametrize("divisions", [(0, 1999), (0, 1, 700, 701, 1999)])
def test_label_components_equals_its_eager_twin_and_knows_its_divisions(
    edges, partitions, divisions
):
    labels = label_components(spanning_forest(partitioned(edges, partitions)), 0.5, divisions)
    assert labels.divisions == divisions
    pd.testing.assert_frame_equal(labels.compute(), label_forest(forest_of_edges(edges), 0.5))
    for i in range(labels.npartitions):
        part = labels.get_partition(i).compute()
        assert ((part.index >= divisions[i]) & (part.index <= divisions[i + 1])).all()


def test_spanning_forest_and_label_components_are_lazy(edges, no_compute):
    with no_compute():
        forest = spanning_forest(partitioned(edges, 2))
        label_components(forest, 0.5, (0, 1000, 1999))
