import numpy as np
import pandas as pd
import pytest

from dask_dedup.schema import EDGES, LABELS, check_frame


def test_check_frame_returns_what_fits_and_allows_more():
    frame = EDGES.assign(more="x")
    assert check_frame(frame, EDGES, "edges") is frame


def test_check_frame_missing_column_is_named():
    with pytest.raises(TypeError, match="edges of task 3: expected a column 'dst'"):
        check_frame(EDGES.drop(columns="dst"), EDGES, "edges of task 3")


def test_check_frame_wrong_dtype_is_named():
    with pytest.raises(TypeError, match="column 'src' is expected to be int64, got int32"):
        check_frame(EDGES.astype({"src": np.int32}), EDGES, "edges")


def test_check_frame_wrong_index_is_named():
    with pytest.raises(TypeError, match="expected the index 'row_id', got None"):
        check_frame(pd.DataFrame(LABELS.reset_index(drop=True)), LABELS, "labels")
