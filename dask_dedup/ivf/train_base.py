"""Training the empty faiss index that all shards are copies of. Kernels on arrays."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from dask_dedup.errors import InputError, SettingsError
from dask_dedup.ivf.faiss_index import inside, reason, take_apart

__all__ = ["make_base", "train_base"]


def make_base(dim: int, factory: str) -> faiss.Index:
    """Return the untrained index that a factory string names.

    Raises
    ------
    SettingsError
        Faiss refuses the string, or cannot keep ids with such an index.
    """
    try:
        base = faiss.index_factory(dim, factory)
    except Exception as error:  # of several kinds, all from C++
        raise SettingsError(
            f"factory {factory!r}: faiss cannot make such an index for {dim} dimensions "
            f"({reason(error)})."
        ) from error
    if isinstance(take_apart(base)[1], faiss.IndexIVFPQR | faiss.IndexIDMap):
        raise SettingsError(
            f"factory {factory!r}: an index of this kind does not keep ids of its own. "
            f"Use PQ without '+', and leave IDMap out: it is added where it is needed."
        )
    return base


def train_base(
    sample: np.ndarray, factory: str, *, iterations: int = 0, seed: int = 0, threads: int = 1
) -> faiss.Index:
    """Train the empty index that all shards are copies of.

    Parameters
    ----------
    sample : float32 array, shape (n, dim)
        All of it is used.
    factory : str
        As ``faiss.index_factory`` takes it.
    iterations : int
        Of the coarse quantizer's k-means; 0 leaves faiss's own number (10).
    seed : int
    threads : int
        Of the k-means. It does not change the result: the transforms before (PCA, OPQ), whose
        sums over rows depend on it in the last bit, are trained with one. They take no more than
        65,536 rows, and k-means takes rows times lists.

    Raises
    ------
    SettingsError
        Faiss refuses the string, or cannot keep ids with such an index.
    InputError
        The sample has fewer rows than the quantizers have centroids.
    """
    base = make_base(sample.shape[1], factory)
    transforms, behind = take_apart(base)
    inner = inside(behind)
    most = _most_centroids(inner)
    if len(sample) < most:
        raise InputError(
            f"factory {factory!r}: {most} centroids cannot be trained on {len(sample)} rows. "
            f"Take fewer centroids, a larger sample, or an index without training (Flat)."
        )
    if isinstance(inner, faiss.IndexIVF):
        _set_clustering(inner.cp, len(sample), seed)
        if iterations:
            inner.cp.niter = iterations
    if hasattr(inner, "pq"):
        _set_clustering(inner.pq.cp, len(sample), seed)
    if hasattr(inner, "do_polysemous_training"):
        # Orders the codes for a Hamming filter that is not used here: 27 s for PQ8, of 27.5 s.
        inner.do_polysemous_training = False
    codes = []  # of OPQ, which trains some of its own while it turns; faiss does not own them
    rotations = [t for t in transforms if isinstance(t, faiss.OPQMatrix)]
    for rotation in rotations:
        codes.append(faiss.ProductQuantizer(rotation.d_out, rotation.M, 8))
        _set_clustering(codes[-1].cp, len(sample), seed)
        rotation.pq = codes[-1]
    try:
        faiss.omp_set_num_threads(1)
        compressed = np.ascontiguousarray(sample, np.float32)
        for transform in transforms:
            if not transform.is_trained:
                transform.train(compressed)
            compressed = transform.apply(compressed)
        faiss.omp_set_num_threads(threads)
        behind.train(compressed)
        base.is_trained = True
    except RuntimeError as error:
        raise InputError(
            f"factory {factory!r}: faiss cannot train it on {len(sample)} rows ({reason(error)})."
        ) from error
    for rotation in rotations:
        rotation.pq = None
    return base


def _most_centroids(inner: Any) -> int:
    """Return the largest number of centroids that are to be trained."""
    lists = inner.nlist if isinstance(inner, faiss.IndexIVF) else 1
    return max(lists, inner.pq.ksub if hasattr(inner, "pq") else 1)


def _set_clustering(clustering: Any, rows: int, seed: int) -> None:
    """Let k-means use the whole sample, without faiss's warnings about its size."""
    clustering.seed = seed % 2**31
    clustering.min_points_per_centroid = 1
    clustering.max_points_per_centroid = rows
