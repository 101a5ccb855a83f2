import numpy as np
import pandas as pd

from dask_dedup.results.members import rows_below, with_witnesses


def members():
    """A cluster of five, one of two: the representative is a witness of the rows 1 and 8."""
    edge = np.float32(0.95)
    return pd.DataFrame(
        {
            "cluster_id": [0, 0, 0, 0, 0, 7, 7],
            "cluster_size": [5, 5, 5, 5, 5, 2, 2],
            "similarity": np.array([1, edge, 0.94, 0.2, 0.1, 1, 0.99], "f4"),
        },
        index=pd.Index([0, 1, 2, 3, 4, 7, 8], name="row_id"),
    )


def test_rows_below_are_those_that_the_representative_is_no_witness_of():
    below = rows_below(members(), 0.95)
    assert below.to_dict("list") == {"row_id": [2, 3, 4], "cluster_id": [0, 0, 0]}


def test_with_witnesses_takes_the_representative_or_what_was_found():
    dropped = pd.DataFrame({"row_id": [1, 3, 9], "witness_row_id": [8, 2, 8]})
    dropped["witness_similarity"] = np.array([0.5, 0.96, 0.97], "f4")
    found = with_witnesses(members(), dropped, 0.95)
    assert found["witness_row_id"].tolist() == [0, 0, 2, 2, 4, 7, 7]
    assert found["witness_similarity"].tolist() == [
        np.float32(one) for one in (1, 0.95, 1, 0.96, 1, 1, 0.99)
    ]
    nothing = with_witnesses(members(), dropped[:0], 0.95)
    assert nothing["witness_row_id"].tolist() == [0, 0, 2, 3, 4, 7, 7]


def test_with_witnesses_of_components_takes_the_representative_however_unlike():
    found = with_witnesses(members(), None, None)
    assert found["witness_row_id"].tolist() == [0, 0, 0, 0, 0, 7, 7]
    pd.testing.assert_series_equal(
        found["witness_similarity"], found["similarity"], check_names=False
    )
