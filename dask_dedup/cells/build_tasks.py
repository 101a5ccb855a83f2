"""What the workers do to train the cells of a layout: one function per kind of task."""

from __future__ import annotations

import numpy as np
import torch

from dask_dedup.cells.assign import set_margins
from dask_dedup.cells.kmeans import CellModel, save_cells, thin, train_coarse, train_fine
from dask_dedup.cells.layout_files import SAME_SIMILARITY
from dask_dedup.cells.leaders import find_leaders, save_leaders
from dask_dedup.cells.sizes import FINE_TASKS
from dask_dedup.data.spans import Span
from dask_dedup.paths import as_path
from dask_dedup.vectors.pca import PcaModel, filter_radius, load_pca, save_pca
from dask_dedup.vectors.unit import prepare_block

__all__ = [
    "choose_leaders",
    "combine",
    "count_rows",
    "read_projections",
    "read_stored",
    "thin_some",
    "train_coarse_cells",
    "train_some",
    "write_pca",
]

_HELD_OUT = 16  # every sixteenth row of the sample is kept from training: margins are set on them
_MARGIN_ROWS = 8_192  # of those, at most so many
_SKETCH = 32  # random directions for what a projection leaves out: see `thin`


def write_pca(pca: PcaModel, path: str) -> str:
    """Write the PCA where the workers read it; return the path."""
    save_pca(pca, as_path(path))
    return path


def read_projections(span: Span, row_ids: np.ndarray, pca_path: str, seed: int) -> np.ndarray:
    """Return projections and sketches of the usable ones of some rows.

    float32, shape (usable, kept + `_SKETCH`).
    """
    torch.set_num_threads(1)
    pca = load_pca(pca_path)
    block = prepare_block(span.embeddings.gather(row_ids))
    sketch = torch.mm(block.rows, pca.sketch_axes(_SKETCH, seed)).div_(block.lengths[:, None])
    both = torch.cat([pca.transform(block)[:, : pca.kept], sketch], dim=1)
    return both[torch.from_numpy(block.reason == 0)].numpy()


def read_stored(span: Span, row_ids: np.ndarray) -> np.ndarray:
    """Return some rows as they are stored."""
    return span.embeddings.gather(row_ids)


def choose_leaders(
    row_ids: np.ndarray, pieces: list[np.ndarray], pca_path: str, path: str
) -> np.ndarray:
    """Choose the leaders of dense groups and write them; return their images without residual."""
    torch.set_num_threads(1)
    pca = load_pca(pca_path)
    stored = np.concatenate(pieces) if pieces else np.empty((0, len(pca.mean)), np.float32)
    leaders = find_leaders(row_ids, stored, pca)
    save_leaders(leaders, as_path(path))
    return leaders.projection[:, : pca.kept]


def train_coarse_cells(
    blocks: list[np.ndarray], kept: int, cells: int, seed: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the coarse centroids, and projection and sketch of the sample rows of each."""
    torch.set_num_threads(1)
    sample = _training_rows(_join_blocks(blocks))
    coarse, nearest = train_coarse(np.ascontiguousarray(sample[:, :kept]), cells, seed)
    counts = np.bincount(nearest, minlength=len(coarse))
    members = np.split(sample[np.argsort(nearest, kind="stable")], np.cumsum(counts)[:-1])
    return coarse, members


def thin_some(
    coarse: tuple[np.ndarray, list[np.ndarray]], kept: int, share: int
) -> list[np.ndarray]:
    """Return projections of the sample of every sixteenth coarse cell, without near-copies."""
    torch.set_num_threads(1)
    return [thin(members, kept) for members in coarse[1][share::FINE_TASKS]]


def count_rows(members: list[np.ndarray]) -> list[int]:
    """Return the numbers of rows that are left, which the shares go by."""
    return [len(rows) for rows in members]


def train_some(
    members: list[np.ndarray], counts: list[list[int]], cells: int, seed: int
) -> list[np.ndarray]:
    """Divide some coarse cells, each into its share of all cells by sample rows."""
    total = sum(sum(some) for some in counts)
    return [train_fine(rows, round(cells * len(rows) / total), seed) for rows in members]


def combine(
    coarse: tuple[np.ndarray, list[np.ndarray]],
    fine: list[list[np.ndarray]],
    blocks: list[np.ndarray],
    leaders: np.ndarray,
    probes: float,
    cells_per_row: float,
    path: str,
) -> int:
    """Put the model together, set its margins, write it; return its number of cells."""
    torch.set_num_threads(1)
    centroids = coarse[0]
    divided = [fine[i % FINE_TASKS][i // FINE_TASKS] for i in range(len(centroids))]
    # Rows in a coarse cell without a fine one, which k-means makes of equal rows, would be lost.
    filled = [i for i, part in enumerate(divided) if len(part)]
    centroids, divided = centroids[filled], [divided[i] for i in filled]
    sample = np.ascontiguousarray(_join_blocks(blocks)[:, : centroids.shape[1]])
    start = np.concatenate([[0], np.cumsum([len(part) for part in divided])]).astype(np.int64)
    variances = torch.from_numpy(sample).var(dim=0, correction=0).numpy()
    weights = 0.5 + 0.5 * variances / (variances.mean() or 1.0)
    model = CellModel(
        centroids,
        np.concatenate(divided),
        start,
        weights.astype(np.float32),
        np.zeros(2),
        np.zeros(2),
    )
    save_cells(
        set_margins(model, _margin_rows(sample, leaders), probes, cells_per_row), as_path(path)
    )
    return model.cells


def _join_blocks(blocks: list[np.ndarray]) -> np.ndarray:
    """Return the sample as one array; the origin where no sampled row is usable."""
    sample = np.concatenate(blocks)
    return sample if len(sample) else np.zeros((1, sample.shape[1]), np.float32)


def _training_rows(sample: np.ndarray) -> np.ndarray:
    """Return the rows of a sample that the centroids are trained on."""
    held_out = np.arange(len(sample)) % _HELD_OUT == 0
    return sample if len(sample) <= _HELD_OUT else sample[~held_out]


def _margin_rows(sample: np.ndarray, leaders: np.ndarray) -> np.ndarray:
    """Return some of the others: rows that the centroids have not seen lie further from them.

    Members of dense groups do not count: they are entered into their nearest cell only.
    """
    held_out = sample[::_HELD_OUT]
    held_out = held_out[:: -(-len(held_out) // _MARGIN_ROWS)]
    distances = torch.cdist(torch.from_numpy(held_out), torch.from_numpy(leaders))
    others = held_out[(distances > filter_radius(SAME_SIMILARITY)).all(dim=1).numpy()]
    return others if len(others) else held_out
