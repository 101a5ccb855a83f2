"""The index of the finder adc, as a plan needs it: what faiss says of it before it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from dask_dedup.ivf.sizes import default_factory, training_rows
from dask_dedup.settings.run_settings import Settings

__all__ = ["IndexWork", "index_work"]


@dataclass(frozen=True)
class IndexWork:
    """The index, and how it is searched.

    Attributes
    ----------
    dim, searched_dim : int
        Of what is indexed, and behind the index's own transforms.
    lists : int
        Inverted lists; 0 where there are none, and a row is compared with all.
    bytes_per_row : int
        Code, and id of 8 bytes.
    sample_rows, iterations : int
        Of its training.
    k, nprobe : int
        Neighbours asked for a row, and lists looked into.
    is_verified : bool
        Whether pairs are compared at full dimension.
    calibration_queries : int
        Rows that the tolerance is calibrated on; 0 where it is given.
    """

    dim: int
    searched_dim: int
    lists: int
    bytes_per_row: int
    sample_rows: int
    iterations: int = 10
    k: int = 16
    nprobe: int = 8
    is_verified: bool = True
    calibration_queries: int = 1000

    @property
    def lists_looked_into(self) -> int:
        """Lists that each row is compared in."""
        return min(self.nprobe, self.lists) or 1

    @property
    def base_bytes(self) -> int:
        """Bytes of the trained, empty index, which every shard repeats.

        Centroids of the lists and of the codes; of a PCA, faiss keeps all axes, too.
        """
        values = self.searched_dim * (self.lists + 256)
        if self.searched_dim != self.dim:
            values += self.dim * (self.dim + self.searched_dim)
        return 4 * values

    def compared(self, rows: int) -> float:
        """Return the codes that each row is compared with, among so many rows."""
        return rows * self.lists_looked_into / max(self.lists, 1)


def index_work(settings: Settings, rows: int, dim: int) -> IndexWork:
    """Describe the index that the settings ask for; loads faiss.

    Raises
    ------
    SettingsError
        Faiss refuses its name.
    InputError
        The compressor cannot be read.
    """
    from dask_dedup.ivf.faiss_index import code_bytes, list_count, take_apart
    from dask_dedup.ivf.shards import open_model
    from dask_dedup.ivf.train_base import make_base

    adc = settings.adc
    dim = open_model(adc.model).dim_out if adc.model else dim
    base = make_base(dim, adc.factory or default_factory(rows, dim))
    lists = list_count(base)
    return IndexWork(
        dim=dim,
        searched_dim=take_apart(base)[1].d,
        lists=lists,
        bytes_per_row=code_bytes(base) or 4 * dim + 8,
        sample_rows=min(rows, adc.sample_rows or training_rows(lists, dim)),
        iterations=adc.iterations or 10,
        k=adc.k,
        nprobe=adc.nprobe,
        is_verified=adc.verify,
        calibration_queries=adc.queries if adc.tolerance is None else 0,
    )
