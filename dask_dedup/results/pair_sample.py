"""Pairs to look at: edges of a finished run's forest, as many of each similarity.

1. The range of similarities is cut into bins: equal widths from the search threshold to 1, and one
   of similarity 1 alone.
2. Of each bin the edges of smallest hash(seed, src, dst) are taken, as many of each bin; where one
   has fewer, the others give more.
3. The file carries how many edges each bin has, so that `dask_dedup.results.precision` can weigh
   what a person says of the sample.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from dask_dedup.data.readable_text import readable
from dask_dedup.errors import SettingsError
from dask_dedup.graph.stream import read_in_order
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.results.cluster_files import list_files
from dask_dedup.results.finished_run import open_finished
from dask_dedup.results.pictures import PictureTemplate, find_template, make_thumbnails
from dask_dedup.results.result_rows import read_result_rows
from dask_dedup.storage.files import write_aside
from dask_dedup.vectors.sample import hash_rows

__all__ = ["allot", "bin_limits", "sample_pairs", "small_pictures", "write_pairs"]

_BINS = 10  # below similarity 1
_TEXTS = ("url", "caption")
_PURPOSE = 21  # of the sample: see `dask_dedup.vectors.sample`


def sample_pairs(out: str | AnyPath, pairs: int = 200, seed: int = 0) -> pd.DataFrame:
    """Sample edges of a finished run's forest, stratified by similarity; computes.

    Parameters
    ----------
    out : path or URL
        OUT of a finished run.
    pairs : int
        How many; fewer where the forest has fewer edges.
    seed : int

    Returns
    -------
    DataFrame
        In the order of a hash, so that of whoever stops early each bin has some: ``label``, empty;
        ``similarity`` float32; ``src_url``, ``dst_url``, ``src_caption``, ``dst_caption``; ``src``,
        ``dst``, the ``row_id`` of the two; ``bin``, ``bin_low``, ``bin_high``, between which the
        similarity lies (at least, below; the last bin is 1 alone); ``bin_edges``, the edges of the
        forest in the bin; ``edges_from_low``, those from ``bin_low`` up.

    Raises
    ------
    OutputError
        OUT holds no finished run.
    SettingsError
        The forest holds quantized distances, or there are more bins with edges than pairs.
    """
    if seed < 0:
        raise SettingsError(f"seed: expected 0 or more, got {seed}.")
    run = open_finished(out)
    limits = bin_limits(run.forest_range().lowest)
    chosen, edges = _choose(read_in_order(run.forest_path), limits, pairs, seed)
    filled = int((edges > 0).sum())
    if pairs < filled:
        raise SettingsError(
            f"pairs: expected at least {filled}, one for each bin of similarities with edges, got "
            f"{pairs}."
        )
    quotas = allot(edges, pairs)
    table = chosen[chosen.groupby("bin").cumcount() < quotas[chosen["bin"]]]
    table = table.sort_values("key", ignore_index=True).drop(columns="key")
    own = table["bin"].to_numpy()
    table["bin_low"], table["bin_high"] = limits[own], limits[own + 1].clip(max=1)
    table["bin_edges"] = edges[own]
    table["edges_from_low"] = np.cumsum(edges[::-1])[::-1][own]
    ends = np.concatenate([table["src"], table["dst"]])
    names = list_files(run.path / "clusters").schema.names
    there = [name for name in _TEXTS if name in names]  # none without metadata
    texts = read_result_rows(run.path, ends, ["row_id", *there])
    for place, side in enumerate(("src", "dst")):
        rows = texts.slice(place * len(table), len(table))
        for name in _TEXTS:
            values = readable(rows[name]).to_pylist() if name in there else [None] * len(table)
            table[f"{side}_{name}"] = ["" if one is None else str(one) for one in values]
    table["label"] = ""
    first = ["label", "similarity", "src_url", "dst_url", "src_caption", "dst_caption"]
    return table[[*first, *(name for name in table if name not in first)]]


def small_pictures(
    out: str | AnyPath, row_ids: np.ndarray, images: str | None = None
) -> dict[int, bytes]:
    """Return small local pictures of some rows, WebP, of at most 160 pixels a side; computes.

    Parameters
    ----------
    out : path or URL
        OUT of a finished run.
    row_ids : int64 array
    images : str, optional
        Template of the pictures' files: see `dask_dedup.results.report.report`. By default those
        beside the data set, if there are any; without, there are no pictures.
    """
    run = open_finished(out)
    columns = run.user_columns()
    data = as_path(str(run.summary["dataset"]))
    text = images or find_template(data, columns)
    if text is None:
        return {}
    template = PictureTemplate(text, data, columns)
    ids = np.unique(row_ids)
    rows = read_result_rows(run.path, ids, template.columns).to_pylist()
    places = []
    for row_id, row in zip(ids.tolist(), rows, strict=True):
        place = template.place_of({k: None if v is None else str(v) for k, v in row.items()})
        if place is not None:
            places.append((row_id, place))
    return make_thumbnails(places)


def write_pairs(pairs: pd.DataFrame, path: AnyPath) -> None:
    """Write what `sample_pairs` returns as CSV."""
    shown = pairs.assign(similarity=[str(one) for one in pairs["similarity"].to_numpy()])
    with write_aside(path) as temporary:
        shown.to_csv(temporary, index=False)


def bin_limits(lowest: float) -> np.ndarray:
    """Return the limits of the bins: float64, the last two 1 and what is above it."""
    below = np.linspace(lowest, 1, _BINS + 1) if lowest < 1 else np.ones(1)
    limits = np.round(np.append(below, 1.0 + 1e-6), 6)
    limits[0] = lowest  # of which no edge may lie below by rounding
    return limits


def allot(sizes: np.ndarray, total: int) -> np.ndarray:
    """Return how many to take of each of some groups: as equal as their sizes allow, int64.

    What does not come out even goes to the last groups.
    """
    quotas = np.zeros(len(sizes), np.int64)
    while True:
        left = total - int(quotas.sum())
        open_groups = np.flatnonzero(quotas < sizes)
        if not left or not len(open_groups):
            return quotas
        share = left // len(open_groups)
        if not share:
            open_groups, share = open_groups[-left:], 1
        quotas[open_groups] = np.minimum(quotas[open_groups] + share, sizes[open_groups])


def _choose(
    pieces: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    limits: np.ndarray,
    pairs: int,
    seed: int,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the edges of smallest hash of each bin, by rising hash, and the edges of each bin."""
    bins = len(limits) - 1
    edges = np.zeros(bins, np.int64)
    bounds = np.full(bins, np.iinfo(np.uint64).max)  # no larger hash is taken
    kept: pd.DataFrame | None = None
    for similarity, src, dst in pieces:
        own = np.searchsorted(limits.astype(np.float32), similarity, "right") - 1
        edges += np.bincount(own, minlength=bins)
        key = _hash_edges(src, dst, seed)
        near = key <= bounds[own]
        columns = {"src": src, "dst": dst, "similarity": similarity, "bin": own, "key": key}
        found = pd.DataFrame({name: values[near] for name, values in columns.items()})
        kept = found if kept is None else pd.concat([kept, found], ignore_index=True)
        kept = kept.sort_values(["key", "src", "dst"], ignore_index=True)
        kept = kept[kept.groupby("bin").cumcount() < pairs]
        full = kept.groupby("bin")["key"].agg(["size", "max"]).query("size >= @pairs")
        bounds[full.index] = full["max"]
    if kept is None:
        names = {"src": "i8", "dst": "i8", "similarity": "f4", "bin": "i8", "key": "u8"}
        kept = pd.DataFrame({name: np.empty(0, kind) for name, kind in names.items()})
    return kept, edges


def _hash_edges(src: np.ndarray, dst: np.ndarray, seed: int) -> np.ndarray:
    """Hash pairs of rows: uint64."""
    mixed = hash_rows(src, seed, _PURPOSE) ^ dst.astype(np.uint64)
    return hash_rows(mixed, seed, _PURPOSE)
