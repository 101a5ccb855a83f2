"""Training cells and writing the layout of a data set, on Dask."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import torch
from dask.delayed import Delayed, delayed

from dask_dedup.compress.pca import PcaModel, filter_radius, load_pca, save_pca
from dask_dedup.compress.sample import sample_row_ids, split_by_part
from dask_dedup.compress.vectors import prepare_block
from dask_dedup.index.assign import set_margins
from dask_dedup.index.cells import (
    CellModel,
    save_cells,
    thin,
    train_coarse,
    train_fine,
)
from dask_dedup.index.layout import CellLayout, layout_part
from dask_dedup.index.leaders import (
    LEADER_SAMPLE,
    SAME_SIMILARITY,
    find_leaders,
    save_leaders,
)
from dask_dedup.index.sizes import default_cells, default_visits
from dask_dedup.io.dataset import Dataset
from dask_dedup.io.objects import make_folder
from dask_dedup.io.part_list import write_parts
from dask_dedup.io.parts import Part, gather_rows
from dask_dedup.places import as_place
from dask_dedup.tasks import Execute, compute_tasks, ignore_result

__all__ = ["begin_layout", "build_cells", "cells_task"]

_PURPOSE, _LEADER_PURPOSE = 2, 4  # of the samples: see compress.sample
_HELD_OUT = 16  # every sixteenth row of the sample is kept from training: margins are set on them
_MARGIN_ROWS = 8_192  # of those, at most so many
_SKETCH = 32  # random directions that tell what an image leaves out, for `thin`
_FINE_TASKS = 16  # the coarse cells are divided in so many tasks


def build_cells(
    dataset: Dataset,
    pca: PcaModel,
    folder: str | os.PathLike,
    *,
    visits: float | None = None,
    cells: int = 0,
    probes: float = 8.0,
    dense_groups: bool = True,
    seed: int = 0,
    execute: Execute = compute_tasks,
) -> CellLayout:
    """Train cells and write the cell-sorted layout of a data set; computes.

    Parameters
    ----------
    dataset : Dataset
    pca : PcaModel
        From `dask_dedup.fit_pca`.
    folder : path
        Where the layout goes; ``visits * (kept + 9)`` bytes a row, filled up to a multiple of 4.
    visits : float, optional
        Cells in which a row is compared on average, its home included; chosen by the number of
        rows if None.
    cells : int
        Number of cells; 0 chooses by the number of rows.
    probes : float
        Coarse cells whose fine cells are considered for a row, on average.
    dense_groups : bool
        Whether rows that nearly equal a percent of the data set visit one cell only and are linked
        to one of them: for thresholds below `dask_dedup.index.leaders.SAME_SIMILARITY`.
    seed : int

    Returns
    -------
    CellLayout
    """
    layout = begin_layout(dataset, folder, pca.kept, cells)
    task = cells_task(
        dataset, pca, layout, visits=visits, probes=probes, dense_groups=dense_groups, seed=seed
    )
    (trained,) = execute([task], ignore_result)
    layout = replace(layout, cells=trained)
    execute([delayed(layout_part)(layout, part) for part in layout.parts], ignore_result)
    return layout


def begin_layout(
    dataset: Dataset, folder: str | os.PathLike, kept: int, cells: int = 0
) -> CellLayout:
    """Make the folder of a layout and write its list of parts; ``cells`` is how many are wanted."""
    make_folder(as_place(folder))
    layout = CellLayout(str(folder), kept, cells or default_cells(dataset.rows))
    write_parts(dataset.filled_parts, as_place(layout.parts_path))
    return layout


def cells_task(
    dataset: Dataset,
    pca: PcaModel | Delayed,
    layout: CellLayout,
    *,
    visits: float | None = None,
    probes: float = 8.0,
    sample_per_cell: int = 24,
    dense_groups: bool = True,
    seed: int = 0,
) -> Delayed:
    """Return the task that trains a layout's cells and writes both models: the number of cells.

    Coarse centroids are trained in one task, the fine ones of each coarse cell in one task with
    one thread, on the rows of smallest hash(seed, row_id).

    Parameters
    ----------
    pca : PcaModel, or the task that makes it
    layout : CellLayout
        From `begin_layout`: with the number of cells that is wanted. Fewer may come of it.
    sample_per_cell : int
        Rows of the sample per cell; others as in `build_cells`.
    """
    wanted = layout.cells
    visits = visits or default_visits(dataset.rows)
    pca_path = delayed(_write_pca)(pca, layout.pca_path)
    chosen = sample_row_ids(dataset.rows, max(4096, sample_per_cell * wanted), seed, _PURPOSE)
    blocks = [
        delayed(_read_images)(part, ids, pca_path, seed)
        for part, ids in split_by_part(chosen, dataset.parts)
    ]
    few = np.empty(0, np.int64)
    if dense_groups:
        few = sample_row_ids(dataset.rows, LEADER_SAMPLE, seed, _LEADER_PURPOSE)
    pieces = [delayed(_read_stored)(part, ids) for part, ids in split_by_part(few, dataset.parts)]
    leaders = delayed(_find_leaders)(few, pieces, pca_path, layout.leaders_path)
    coarse = delayed(_train_coarse)(blocks, layout.kept, wanted, seed)
    thinned = [delayed(_thin_some)(coarse, layout.kept, share) for share in range(_FINE_TASKS)]
    counts = [delayed(_count)(members) for members in thinned]
    fine = [delayed(_train_some)(members, counts, wanted, seed) for members in thinned]
    return delayed(_combine)(coarse, fine, blocks, leaders, probes, visits, layout.cells_path)


def _write_pca(pca: PcaModel, path: str) -> str:
    """Write the PCA where the workers read it; return the path."""
    save_pca(pca, as_place(path))
    return path


def _read_images(part: Part, row_ids: np.ndarray, pca_path: str, seed: int) -> np.ndarray:
    """Return images and sketches of the usable ones of some rows.

    float32, shape (usable, kept + `_SKETCH`).
    """
    torch.set_num_threads(1)
    pca = load_pca(pca_path)
    block = prepare_block(gather_rows(part.embeddings, row_ids - part.row_start))
    sketch = torch.mm(block.rows, pca.sketch_axes(_SKETCH, seed)).div_(block.lengths[:, None])
    both = torch.cat([pca.transform(block)[:, : pca.kept], sketch], dim=1)
    return both[torch.from_numpy(block.reason == 0)].numpy()


def _read_stored(part: Part, row_ids: np.ndarray) -> np.ndarray:
    """Return some rows as they are stored."""
    return gather_rows(part.embeddings, row_ids - part.row_start)


def _find_leaders(
    row_ids: np.ndarray, pieces: list[np.ndarray], pca_path: str, path: str
) -> np.ndarray:
    """Choose the leaders of dense groups and write them; return their images without residual."""
    torch.set_num_threads(1)
    pca = load_pca(pca_path)
    stored = np.concatenate(pieces) if pieces else np.empty((0, len(pca.mean)), np.float32)
    leaders = find_leaders(row_ids, stored, pca)
    save_leaders(leaders, as_place(path))
    return leaders.image[:, : pca.kept]


def _train_coarse(
    blocks: list[np.ndarray], kept: int, cells: int, seed: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the coarse centroids, and image and sketch of the sample rows of each."""
    torch.set_num_threads(1)
    sample = _training_rows(_join_blocks(blocks))
    coarse, nearest = train_coarse(np.ascontiguousarray(sample[:, :kept]), cells, seed)
    counts = np.bincount(nearest, minlength=len(coarse))
    members = np.split(sample[np.argsort(nearest, kind="stable")], np.cumsum(counts)[:-1])
    return coarse, members


def _thin_some(
    coarse: tuple[np.ndarray, list[np.ndarray]], kept: int, share: int
) -> list[np.ndarray]:
    """Return images of the sample rows of every sixteenth coarse cell, near-copies left out."""
    torch.set_num_threads(1)
    return [thin(members, kept) for members in coarse[1][share::_FINE_TASKS]]


def _count(members: list[np.ndarray]) -> list[int]:
    return [len(rows) for rows in members]


def _train_some(
    members: list[np.ndarray], counts: list[list[int]], cells: int, seed: int
) -> list[np.ndarray]:
    """Divide some coarse cells, each into its share of all cells by sample rows."""
    total = sum(sum(some) for some in counts)
    return [train_fine(rows, round(cells * len(rows) / total), seed) for rows in members]


def _combine(
    coarse: tuple[np.ndarray, list[np.ndarray]],
    fine: list[list[np.ndarray]],
    blocks: list[np.ndarray],
    leaders: np.ndarray,
    probes: float,
    visits: float,
    path: str,
) -> int:
    """Put the model together, set its margins, write it; return its number of cells."""
    torch.set_num_threads(1)
    centroids = coarse[0]
    divided = [fine[i % _FINE_TASKS][i // _FINE_TASKS] for i in range(len(centroids))]
    # A coarse cell without a fine one, which k-means makes of equal rows, would swallow rows.
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
    save_cells(set_margins(model, _margin_rows(sample, leaders), probes, visits), as_place(path))
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

    Members of dense groups do not count: they visit their homes only.
    """
    held_out = sample[::_HELD_OUT]
    held_out = held_out[:: -(-len(held_out) // _MARGIN_ROWS)]
    distances = torch.cdist(torch.from_numpy(held_out), torch.from_numpy(leaders))
    others = held_out[(distances > filter_radius(SAME_SIMILARITY)).all(dim=1).numpy()]
    return others if len(others) else held_out
