"""Assignment to cells on another device, such as a GPU: all scores in one product.

The cells are those of `dask_dedup.cells.assign`: scores outside the probed coarse cells are masked,
and what depends on a difference below the error of float32 is decided again in float64, as there.
"""

from __future__ import annotations

import numpy as np
import torch

from dask_dedup.cells.assign import (
    MOST_PROBES,
    SCORE_ERROR,
    coarse_limits,
    cut_to_margin,
    pick_within,
)
from dask_dedup.cells.kmeans import CellModel
from dask_dedup.cells.sizes import MOST_CELLS_PER_ROW
from dask_dedup.vectors.device import check_float32_products

__all__ = ["DeviceCells"]

_SCORE_BYTES = 2 << 30  # of the scores held at a time


class DeviceCells:
    """The cells of a model on a device.

    Parameters
    ----------
    model : CellModel
    device : torch.device
    score_bytes : int
        Of the scores held at a time.

    Raises
    ------
    SettingsError
        The device rounds products of float32.
    """

    def __init__(
        self, model: CellModel, device: torch.device, score_bytes: int = _SCORE_BYTES
    ) -> None:
        check_float32_products(device, float(SCORE_ERROR))
        self.model = model
        self.device = device
        self.score_bytes = score_bytes
        self._limits = coarse_limits(
            model.coarse, model.weights, model.margins[0], model.reaches[0]
        )
        self._coarse, self._coarse_half = self._columns(model.coarse)
        self._fine, self._fine_half = self._columns(model.fine)
        sizes = torch.from_numpy(np.diff(model.fine_start))
        self._coarse_of = torch.arange(len(sizes)).repeat_interleave(sizes).to(device)

    def assign(self, projection: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Do `dask_dedup.cells.assign.assign_cells`: 5 bytes a row and cell on the device."""
        rows = max(1, self.score_bytes // (5 * self.model.cells))
        cells, unsure = zip(*(self._assign(some) for some in projection.split(rows)), strict=True)
        return np.concatenate(cells), np.concatenate(unsure)

    def _assign(self, projection: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        model, moved = self.model, projection.to(self.device)
        unsure = np.zeros(len(projection), np.bool_)
        probed = np.full((len(projection), MOST_PROBES), -1, np.int32)
        coarse_scores = torch.addmm(self._coarse_half, moved, self._coarse, beta=-1)
        pick_within(coarse_scores.cpu().numpy(), self._limits, SCORE_ERROR, probed, unsure)

        may = torch.zeros(
            len(projection), len(model.coarse) + 1, dtype=torch.bool, device=self.device
        )
        # Absent probes (-1) fall into the last column, which stands for no cell.
        may.scatter_(1, torch.from_numpy(probed % (len(model.coarse) + 1)).long().to(may.device), 1)
        scores = torch.addmm(self._fine_half, moved, self._fine, beta=-1)
        scores.masked_fill_(~may[:, self._coarse_of], -torch.inf)
        found = scores.topk(min(MOST_CELLS_PER_ROW + 1, model.cells), dim=1)
        best = np.full((len(projection), MOST_CELLS_PER_ROW + 1), -np.inf, np.float32)
        cells = np.full((len(projection), MOST_CELLS_PER_ROW + 1), -1, np.int32)
        best[:, : found.values.shape[1]] = found.values.cpu().numpy()
        cells[:, : found.values.shape[1]] = found.indices.cpu().numpy()
        cells[best == -np.inf] = -1
        margin, reach = model.margins[1], np.float32(model.reaches[1])
        cut_to_margin(best, cells, model.fine, model.weights, margin, reach, SCORE_ERROR, unsure)
        return cells[:, :MOST_CELLS_PER_ROW], unsure

    def _columns(self, centroids: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return centroids as columns, and half of their squared lengths."""
        rows = torch.from_numpy(centroids)
        half = torch.linalg.vecdot(rows, rows).mul_(0.5)
        return rows.T.contiguous().to(self.device), half.to(self.device)
