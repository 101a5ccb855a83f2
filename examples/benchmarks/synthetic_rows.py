"""The rows of the synthetic data set: what they are made from, any range of them alone.

`synthetic` says how a row comes about, and writes them.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

TOPICS = 4096
TOPIC_EXPONENT = 0.5  # the share of topic k falls as k^-0.5
RANK = 256  # axes of the topics and of the variation inside them
SPECTRUM_EXPONENT = 1.0  # the variance along axis i falls as i^-1
MEAN_SHARE, TOPIC_SHARE, VARIATION_SHARE, NOISE_SHARE = 0.48, 0.22, 0.26, 0.04  # of squared length
# Of a copy's displacement, 38 % lies in the first 64 PCA axes, half of what these keep of the
# data's own variance. Of real copies (JPEG, crop, watermark, ...; examples/data/clipart) in small
# groups it is 23 % where the axes keep 52 %, of pairs in dense families of drawings 29 to 48 %.
COPY_VARIATION_SHARE, COPY_NOISE_SHARE = 0.39, 0.61
GROUP_EXPONENT = 2.5  # groups of size s >= 2 are as frequent as s^-2.5
EXACT_SHARE = 1 / 3  # of the copies
FARTHEST_COPY = 0.1  # 1 - cosine is 0.1 u^3, u uniform: 79 % of them above 0.95, 74 % above 0.96

# 256 equally likely levels of a normal distribution, integers up to 127: one random byte each.
QUANTILES = [NormalDist().inv_cdf((level + 0.5) / 256) for level in range(256)]
LEVELS = np.rint(44 * np.array(QUANTILES)).astype(np.float32)
LEVELS_DEVIATION = float(LEVELS.std(dtype=np.float64))
EXACT_INTEGERS = 2**24  # float32 holds every integer up to here
GOLDEN = np.uint64(0x9E3779B97F4A7C15)

QUALITIES = (  # noqa: SIM905
    "red blue green white black vintage modern wooden golden silver small large old new handmade "
    "rustic minimalist colorful dark bright abstract classic floral striped leather cotton"
).split()
SUBJECTS = (  # noqa: SIM905
    "cat dog horse bridge castle lighthouse bicycle sofa lamp necklace sneaker dress cake coffee "
    "pizza garden mountain lake beach forest train car truck boat airplane guitar piano clock "
    "poster logo icon portrait bouquet tattoo kitchen window chair table watch ring handbag jacket"
).split()
SETTINGS = (  # noqa: SIM905
    "on white background|in the snow|by the sea|for sale|stock photo|illustration|vector|at night|"
    "in Paris|in Tokyo|for kids|with flowers|close up|wallpaper|women's|men's|royalty free"
).split("|")
SIDES = np.array([225, 236, 300, 320, 400, 480, 500, 600, 640, 736, 800, 960, 1024, 1200, 1600])


@numba.njit
def _mix(word: Any) -> Any:
    """Return splitmix64's output for a uint64 state."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@numba.njit
def _fill_levels(stream: np.uint64, ids: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(ids)):
        state = _mix(stream + np.uint64(ids[i]) * GOLDEN)
        for j in range(0, out.shape[1], 8):
            state += GOLDEN
            word = _mix(state)
            for k in range(j, min(j + 8, out.shape[1])):
                out[i, k] = LEVELS[word & np.uint64(255)]
                word >>= np.uint64(8)


@numba.njit
def _scale_to_unit(rows: np.ndarray) -> None:
    """Divide each row by its length, in place; the sum runs in one fixed order."""
    for i in range(rows.shape[0]):
        square = 0.0
        for j in range(rows.shape[1]):
            square += np.float64(rows[i, j]) * rows[i, j]
        factor = np.float32(1.0 / np.sqrt(square))
        for j in range(rows.shape[1]):
            rows[i, j] *= factor


@numba.njit
def _turn(rows: np.ndarray, directions: np.ndarray, cosines: np.ndarray) -> None:
    """Turn unit row i towards directions[i], in place, until cosines[i] is left to where it was."""
    for i in range(rows.shape[0]):
        along, square = 0.0, 0.0
        for j in range(rows.shape[1]):
            along += np.float64(rows[i, j]) * directions[i, j]
            square += np.float64(directions[i, j]) * directions[i, j]
        sine = np.sqrt((1.0 - cosines[i] ** 2) / (square - along**2))
        for j in range(rows.shape[1]):
            rows[i, j] = (cosines[i] - sine * along) * rows[i, j] + sine * directions[i, j]


def _stream(seed: int, purpose: str) -> np.uint64:
    """Return the number that keeps the draws of one purpose apart from all others."""
    entropy = np.random.SeedSequence([seed, zlib.crc32(purpose.encode())])
    return entropy.generate_state(1, np.uint64)[0]


def levels(seed: int, purpose: str, ids: np.ndarray, width: int) -> np.ndarray:
    """Return normal levels, float32, (ids, width): row i from (seed, purpose, ids[i]) alone."""
    out = np.empty((len(ids), width), dtype=np.float32)
    _fill_levels(_stream(seed, purpose), ids, out)
    return out


def uniforms(seed: int, purpose: str, ids: np.ndarray) -> np.ndarray:
    """Return float64 in [0, 1), (ids,): number i from (seed, purpose, ids[i]) alone."""
    mix = _mix.py_func
    word = mix(mix(_stream(seed, purpose) + ids.astype(np.uint64) * GOLDEN) + GOLDEN)
    return (word >> np.uint64(11)) * 2.0**-53


def choices(seed: int, purpose: str, ids: np.ndarray, count: int) -> np.ndarray:
    """Return int64, (ids,): integers in [0, count), as `uniforms`."""
    return (count * uniforms(seed, purpose, ids)).astype(np.int64)


def group_sizes(duplicates: int) -> np.ndarray:
    """Return the sizes of the groups of two or more, whose rows minus groups are `duplicates`.

    Evenly spaced quantiles of the power law, not draws: the largest group does not depend on luck.

    Returns
    -------
    numpy.ndarray
        int64, descending; what rounding leaves open is closed by groups of two.
    """
    sizes = np.arange(2, max(duplicates, 2) + 2, dtype=np.float64)
    frequency = sizes**-GROUP_EXPONENT
    frequency /= frequency.sum()
    groups = max(1, round(duplicates / float((sizes - 1) @ frequency)))
    quantiles = (groups - 0.5 - np.arange(groups)) / groups
    drawn = np.searchsorted(np.cumsum(frequency), quantiles).astype(np.int64) + 2
    drawn = drawn[np.cumsum(drawn - 1) <= duplicates]
    return np.concatenate([drawn, np.full(duplicates - int((drawn - 1).sum()), 2, dtype=np.int64)])


@dataclass(frozen=True)
class Source:
    """What the rows are made from; `open_source` makes one.

    Attributes
    ----------
    seed : int
        Seed of everything.
    group : numpy.ndarray
        int64, (rows,): the group of each row; its number says nothing of the rows' positions.
    is_copy : numpy.ndarray
        bool, (rows,): True for every row but the one original of each group.
    mean : numpy.ndarray
        float32, (dim,).
    topics : numpy.ndarray
        float32, (TOPICS, dim): what each topic adds to the mean.
    axes : numpy.ndarray
        float32 integers, (rank, dim).
    axes_unit : float
        Factor that gives the product of levels and axes an expected squared length of 1.
    """

    seed: int
    group: np.ndarray
    is_copy: np.ndarray
    mean: np.ndarray
    topics: np.ndarray
    axes: np.ndarray
    axes_unit: float

    def vectors(self, start: int, stop: int) -> np.ndarray:
        """Return rows `start` to `stop` as unit vectors, float32, (stop - start, dim)."""
        group = self.group[start:stop]
        spread = uniforms(self.seed, "topic", group) ** (1 / (1 - TOPIC_EXPONENT))
        rows = self.mean + self.topics[(TOPICS * spread).astype(np.int64)]
        rows += self._scatter("group", group, VARIATION_SHARE, NOISE_SHARE)
        _scale_to_unit(rows)
        row_id = np.arange(start, stop, dtype=np.int64)
        exact = uniforms(self.seed, "exact", row_id) < EXACT_SHARE
        near = np.flatnonzero(self.is_copy[start:stop] & ~exact)
        turned = rows[near]
        cosines = 1 - FARTHEST_COPY * uniforms(self.seed, "cosine", row_id[near]) ** 3
        directions = self._scatter("copy", row_id[near], COPY_VARIATION_SHARE, COPY_NOISE_SHARE)
        _turn(turned, directions, cosines)
        rows[near] = turned
        return rows

    def _scatter(
        self, purpose: str, ids: np.ndarray, variation_share: float, noise_share: float
    ) -> np.ndarray:
        """Return float32, (ids, dim): variation along the spectrum plus isotropic noise."""
        rank, dim = self.axes.shape
        scatter = levels(self.seed, f"{purpose} variation", ids, rank) @ self.axes
        scatter *= np.float32(math.sqrt(variation_share) * self.axes_unit)
        noise = levels(self.seed, f"{purpose} noise", ids, dim)
        noise *= np.float32(math.sqrt(noise_share / dim) / LEVELS_DEVIATION)
        return scatter + noise

    def metadata(self, row_id: np.ndarray, key: pa.Array) -> pa.Table:
        """Return url, caption, width, height and key; half of the copies repeat a caption."""
        own = self.is_copy[row_id] & (uniforms(self.seed, "own caption", row_id) < 0.5)
        text_id = np.where(own, row_id + len(self.group), self.group[row_id])
        words = [
            pa.array(vocabulary).take(
                pa.array(choices(self.seed, f"word {position}", text_id, len(vocabulary)))
            )
            for position, vocabulary in enumerate((QUALITIES, SUBJECTS, SETTINGS))
        ]
        number = pa.array(choices(self.seed, "number", text_id, 10_000)).cast(pa.string())
        host = pa.array(choices(self.seed, "host", row_id, 100)).cast(pa.string())
        name = pc.utf8_lpad(pa.array(row_id).cast(pa.string()), 10, "0")
        url = pc.binary_join_element_wise("https://img", host, ".example.org/", name, ".jpg", "")
        return pa.table(
            {
                "url": url,
                "caption": pc.binary_join_element_wise(*words, number, " "),
                "width": SIDES[choices(self.seed, "width", row_id, len(SIDES))],
                "height": SIDES[choices(self.seed, "height", row_id, len(SIDES))],
                "key": key,
            }
        )


def open_source(rows: int, dim: int, duplicate_fraction: float, seed: int) -> Source:
    """Draw the groups and their rows' positions, the mean, the topics and the axes."""
    sizes = group_sizes(round(rows * duplicate_fraction))
    singles = rows - int(sizes.sum())
    if singles < 0:
        raise ValueError(
            f"duplicate_fraction is {duplicate_fraction}: its groups need {sizes.sum()} rows, but "
            f"there are {rows}. Ask for a smaller fraction."
        )
    sizes = np.concatenate([sizes, np.ones(singles, dtype=np.int64)])
    order = np.random.default_rng(seed).permutation(rows)
    is_original = np.zeros(rows, dtype=bool)
    is_original[np.cumsum(sizes) - sizes] = True

    rank = min(RANK, dim)
    axes = levels(seed, "axes", np.arange(rank), dim).astype(np.float64)
    axes *= np.arange(1, rank + 1)[:, None] ** (-SPECTRUM_EXPONENT / 2)
    largest_sum = EXACT_INTEGERS / np.abs(LEVELS).max() - rank  # rounding adds at most 1/2 per axis
    axes = np.rint(axes * (largest_sum / np.abs(axes).sum(axis=0).max()))
    axes_unit = 1 / (LEVELS_DEVIATION * float(np.linalg.norm(axes)))
    axes = axes.astype(np.float32)
    topics = levels(seed, "topics", np.arange(TOPICS), rank) @ axes
    topics *= np.float32(math.sqrt(TOPIC_SHARE) * axes_unit)
    # Cubed, so that few coordinates hold most of the mean, as in CLIP.
    mean = levels(seed, "mean", np.zeros(1, dtype=np.int64), dim)[0].astype(np.float64) ** 3
    mean *= math.sqrt(MEAN_SHARE) / np.linalg.norm(mean)
    return Source(
        seed=seed,
        group=np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)[order],
        is_copy=~is_original[order],
        mean=mean.astype(np.float32),
        topics=topics,
        axes=axes,
        axes_unit=axes_unit,
    )
