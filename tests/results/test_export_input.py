"""Embeddings of an export: blocks, rows read singly, files of several types."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dask_dedup import read_dataset
from dask_dedup.results.export_input import write_input
from dask_dedup.results.selected_rows import Choice, OutFile, Piece


@pytest.mark.parametrize("block_rows", [1, 10, 16, 1000])
@pytest.mark.parametrize("share", [0, 0.03, 0.3, 1])
def test_write_input_in_blocks_has_the_same_rows(tmp_path, write_dataset, block_rows, share):
    rng = np.random.default_rng(1)
    images = [rng.normal(size=(n, 6)).astype(t) for n, t in ((70, "f2"), (31, "f4"))]
    images[0] = np.asfortranarray(images[0])
    data = read_dataset(write_dataset(tmp_path / "data", images))
    is_kept = rng.random(101) < share
    pieces = []
    for part in data.parts:
        own = np.arange(part.row_start, part.row_stop)
        clusters = pd.DataFrame(
            {
                "row_id": own, "cluster_id": own, "cluster_size": 1,
                "is_representative": is_kept[own],
                "similarity_to_representative": np.ones(len(own), "f4"), "url": "u",
            }
        )  # fmt: skip
        path = str(tmp_path / f"clusters-{part.index}.parquet")
        pq.write_table(pa.Table.from_pandas(clusters), path)
        pieces.append(Piece(path, part))
    file = OutFile({"metadata": "m.parquet", "img_emb": "e.npy"}, tuple(pieces))
    done = write_input(
        [file], tmp_path, Choice("kept", ("url",), {"url": "URL"}), block_bytes=block_rows * 6 * 2
    )
    found = np.load(tmp_path / "img_emb" / "e.npy")
    both = np.concatenate([array.astype("f4") for array in images])
    np.testing.assert_array_equal(found, both[is_kept])
    assert found.dtype == np.float32
    assert done == {"rows": is_kept.sum()}
    frame = pd.read_parquet(tmp_path / "metadata" / "m.parquet")
    assert frame["row_id"].tolist() == np.flatnonzero(is_kept).tolist()
    assert "URL" in frame
