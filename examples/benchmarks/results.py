"""What every rival returns, and what they share: needs no faiss and no torch.

A rival in an environment of its own (`environments.py`) can therefore import it there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

READ_ROWS = 16_384


@dataclass(frozen=True)
class Result:
    """What a baseline found, and how long it took.

    Attributes
    ----------
    name : str
        Of the baseline, with its settings.
    seconds : dict of str to float
        Wall time of each stage, in the order of the stages.
    labels : numpy.ndarray
        int64, (rows,): the smallest row_id of each row's component.
    pairs : pandas.DataFrame or None
        `src`, `dst` int64, `src < dst`, distinct and sorted; `similarity` float32. None where the
        baseline yields no pairs.
    note : str
        What a reader of the figures should know.
    """

    name: str
    seconds: dict[str, float]
    labels: np.ndarray
    pairs: pd.DataFrame | None = None
    note: str = ""

    @property
    def duplicates(self) -> int:
        """Rows minus components, components of one counted."""
        return len(self.labels) - len(np.unique(self.labels))


@dataclass
class Stopwatch:
    """Wall time by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def part_paths(folder: str | Path) -> list[Path]:
    """Return the parts in their natural order; row_id counts over them."""
    paths = sorted(Path(folder, "img_emb").glob("*.npy"), key=_by_number)
    if not paths:
        raise FileNotFoundError(f"{folder}: no img_emb/*.npy. Give the folder that holds img_emb.")
    return paths


def _by_number(path: Path) -> tuple[int, str]:
    return len(path.name), path.name


def shape_of(folder: str | Path) -> tuple[int, int]:
    """Return rows and dimension of a data set."""
    parts = [np.load(path, mmap_mode="r") for path in part_paths(folder)]
    return sum(len(part) for part in parts), parts[0].shape[1]


def read_unit_rows(folder: str | Path) -> np.ndarray:
    """Return all rows scaled to unit length, float32, (rows, dim)."""
    parts = [np.load(path, mmap_mode="r") for path in part_paths(folder)]
    rows = np.empty((sum(len(part) for part in parts), parts[0].shape[1]), dtype=np.float32)
    position = 0
    for part in parts:
        for first in range(0, len(part), READ_ROWS):
            block = rows[position : position + len(part[first : first + READ_ROWS])]
            block[:] = part[first : first + READ_ROWS]
            block /= np.sqrt(np.einsum("ij,ij->i", block, block))[:, None]
            position += len(block)
    return rows


def distinct_pairs(
    query: np.ndarray, neighbour: np.ndarray, similarity: np.ndarray
) -> pd.DataFrame:
    """Return `Result.pairs` of hits that may come from one end, from both, or from a row itself.

    Parameters
    ----------
    query, neighbour : numpy.ndarray
        int64, (hits,): row_ids.
    similarity : numpy.ndarray
        float32, (hits,).
    """
    keep = query != neighbour
    low, high = np.minimum(query, neighbour)[keep], np.maximum(query, neighbour)[keep]
    rows = int(high.max(initial=0)) + 1
    code, position = np.unique(low * rows + high, return_index=True)
    src, dst = np.divmod(code, rows)
    kept = similarity[keep][position].astype(np.float32)
    return pd.DataFrame({"src": src, "dst": dst, "similarity": kept})


def pairs_of_neighbours(
    neighbour: np.ndarray, similarity: np.ndarray, threshold: float
) -> pd.DataFrame:
    """Return `Result.pairs` of a k-nearest-neighbour table.

    Parameters
    ----------
    neighbour : numpy.ndarray
        Integers, (rows, k): row_ids; what is below 0 or beyond the rows stands for no neighbour.
    similarity : numpy.ndarray
        float32, (rows, k).
    threshold : float
        Least similarity of a pair, compared in float32.
    """
    neighbour = neighbour.astype(np.int64)  # uint64 from usearch
    hit = (similarity >= np.float32(threshold)) & (neighbour >= 0) & (neighbour < len(neighbour))
    query, rank = np.nonzero(hit)
    return distinct_pairs(query, neighbour[query, rank], similarity[query, rank])


def label_components(src: np.ndarray, dst: np.ndarray, rows: int) -> np.ndarray:
    """Return int64, (rows,): the smallest row_id of each row's connected component."""
    graph = coo_matrix((np.ones(len(src), dtype=bool), (src, dst)), shape=(rows, rows))
    count, component = connected_components(graph, directed=False)
    smallest = np.empty(count, dtype=np.int64)
    smallest[component[::-1]] = np.arange(rows - 1, -1, -1)  # the last assignment stays
    return smallest[component]


def finish(name: str, watch: Stopwatch, rows: int, pairs: pd.DataFrame, note: str) -> Result:
    """Join the pairs to components, timed as the last stage, and return the result."""
    with watch.stage("components"):
        labels = label_components(pairs["src"].to_numpy(), pairs["dst"].to_numpy(), rows)
    return Result(name, watch.seconds, labels, pairs, note)
