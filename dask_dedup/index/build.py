"""Training cells and writing the layout of a data set, on Dask."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from dask.delayed import delayed

from dask_dedup.compress.pca import PcaModel, load_pca, save_pca
from dask_dedup.compress.sample import sample_row_ids, split_by_part
from dask_dedup.compress.vectors import prepare_block
from dask_dedup.index.cells import CellModel, default_cells, save_cells, train_coarse, train_fine
from dask_dedup.index.layout import CellLayout, layout_part
from dask_dedup.io.dataset import Dataset
from dask_dedup.io.parts import Part, gather_rows
from dask_dedup.tasks import Execute, compute_tasks, ignore_result

__all__ = ["build_cells", "train_cells"]

_PURPOSE = 2  # of the sample: see compress.sample
_FINE_TASKS = 16  # the coarse cells are divided in so many tasks


def build_cells(
    dataset: Dataset,
    pca: PcaModel,
    folder: str | os.PathLike,
    *,
    visits: int = 3,
    cells: int = 0,
    probes: int = 3,
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
        Where the layout goes; some ``visits * (2 * kept + 18)`` bytes a row.
    visits : int
        Cells in which each row is compared, its home included.
    cells : int
        Number of cells; 0 chooses by the number of rows.
    probes : int
        Coarse cells whose fine cells are considered for a row.
    seed : int

    Returns
    -------
    CellLayout
    """
    layout = train_cells(
        dataset, pca, folder, visits=visits, cells=cells, probes=probes, seed=seed, execute=execute
    )
    execute([delayed(layout_part)(layout, part) for part in layout.parts], ignore_result)
    return layout


def train_cells(
    dataset: Dataset,
    pca: PcaModel,
    folder: str | os.PathLike,
    *,
    visits: int = 3,
    cells: int = 0,
    probes: int = 3,
    sample_per_cell: int = 40,
    seed: int = 0,
    execute: Execute = compute_tasks,
) -> CellLayout:
    """Do the first half of `build_cells`: train the centroids and write both models.

    Coarse centroids are trained in one task, the fine ones of each coarse cell in one task with
    one thread, on the rows of smallest hash(seed, row_id).

    Parameters
    ----------
    sample_per_cell : int
        Rows of the sample per cell; others as in `build_cells`.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    wanted = cells or default_cells(dataset.rows)
    layout = CellLayout(str(folder), dataset.filled_parts, pca.kept, wanted, visits, probes)
    save_pca(pca, Path(layout.pca_path))
    chosen = sample_row_ids(dataset.rows, max(4096, sample_per_cell * wanted), seed, _PURPOSE)
    blocks = [
        delayed(_read_images)(part, ids, layout.pca_path)
        for part, ids in split_by_part(chosen, dataset.parts)
    ]
    coarse = delayed(_train_coarse)(blocks, wanted, seed)
    fine = [delayed(_train_some)(coarse, share, seed) for share in range(_FINE_TASKS)]
    (trained,) = execute([delayed(_combine)(coarse, fine, layout.cells_path)], ignore_result)
    return CellLayout(str(folder), dataset.filled_parts, pca.kept, trained, visits, probes)


def _read_images(part: Part, row_ids: np.ndarray, pca_path: str) -> np.ndarray:
    """Return the usable ones of some rows in the compressed space: float32, (usable, kept)."""
    torch.set_num_threads(1)
    pca = load_pca(pca_path)
    block = prepare_block(gather_rows(part.embeddings, row_ids - part.row_start))
    return pca.transform(block)[torch.from_numpy(block.reason == 0), : pca.kept].numpy()


def _train_coarse(
    blocks: list[np.ndarray], cells: int, seed: int
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Return the coarse centroids, the sample rows of each, and its number of fine cells."""
    torch.set_num_threads(1)
    sample = np.concatenate(blocks)
    coarse, nearest = train_coarse(sample, cells, seed)
    counts = np.bincount(nearest, minlength=len(coarse))
    members = np.split(sample[np.argsort(nearest, kind="stable")], np.cumsum(counts)[:-1])
    return coarse, members, np.maximum(1, np.round(cells * counts / len(sample)).astype(int))


def _train_some(
    coarse: tuple[np.ndarray, list[np.ndarray], np.ndarray], share: int, seed: int
) -> list[np.ndarray]:
    """Divide every sixteenth coarse cell."""
    _, members, wanted = coarse
    return [
        train_fine(members[i], int(wanted[i]), seed)
        for i in range(share, len(members), _FINE_TASKS)
    ]


def _combine(
    coarse: tuple[np.ndarray, list[np.ndarray], np.ndarray],
    fine: list[list[np.ndarray]],
    path: str,
) -> int:
    """Write the model; return its number of cells."""
    centroids, members, _ = coarse
    divided = [fine[i % _FINE_TASKS][i // _FINE_TASKS] for i in range(len(members))]
    start = np.concatenate([[0], np.cumsum([len(part) for part in divided])]).astype(np.int64)
    save_cells(CellModel(centroids, np.concatenate(divided), start), Path(path))
    return int(start[-1])
