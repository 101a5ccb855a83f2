"""Settings of the evaluations: one frozen object each, from TOML tables and the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dask_dedup.errors import SettingsError
from dask_dedup.paths import AnyPath, read_text, words_of

__all__ = ["ParetoSettings", "SpaceSettings", "load_table", "read_toml"]

_Count = Annotated[int, Field(ge=1)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ParetoSettings(_Table):
    """``[pareto]``: the searches that are compared."""

    models: Annotated[tuple[str, ...], Field(min_length=1)] = ("raw",)
    """compressors: raw, pca:DIM, mse:DIM, snip:DIM (fitted on the data set), or a model's folder"""

    factories: Annotated[tuple[str, ...], Field(min_length=1)] = ("IVF{C},PQ{M}",)
    """faiss factory strings; {M} takes each value of --m that divides the dimension, {C} the
    number of centroids"""

    m: Annotated[tuple[_Count, ...], Field(min_length=1)] = (4, 8, 16, 32, 64)
    """sub-quantizers for {M}"""

    centroids: Annotated[int, Field(ge=0)] = 0
    """lists for {C}; 0 takes the power of two nearest to four times the root of the rows"""

    nprobe: Annotated[tuple[_Count, ...], Field(min_length=1)] = (1, 2, 4, 8, 16, 32, 64)
    """lists looked at, of an inverted file"""

    ef_search: Annotated[tuple[_Count, ...], Field(min_length=1)] = (16, 64, 256)
    """candidates kept, of an HNSW graph"""

    queries: _Count = 1000
    """rows of the seeded sample that are searched for"""

    ks: Annotated[tuple[_Count, ...], Field(min_length=1)] = (1, 5, 10)
    """numbers of neighbours at which recall is measured"""

    train_rows: _Count = 131_072
    """rows of the seeded sample that indexes are trained on"""

    repeats: _Count = 5
    """timed searches, of which the median counts"""

    tie_epsilon: Annotated[float, Field(ge=0, le=1)] = 1e-6
    """cosine by which a result may miss the k-th true neighbour and still be right"""

    threads: _Count = 1
    """threads of training, building and searching"""

    clock: Literal["wall", "cpu"] = "wall"
    """times in seconds that pass, or in processor time: of one thread the same on an idle machine,
    and steadier on a busy one"""

    modality: Literal["image", "text"] = "image"
    """embeddings that are searched"""

    seed: Annotated[int, Field(ge=0)] = 0
    """seed of samples, training and fits"""


class SpaceSettings(_Table):
    """``[zeroshot]`` and ``[retrieval]``: what the joint space of images and texts can do."""

    models: Annotated[tuple[str, ...], Field(min_length=1)] = ("raw",)
    """compressors: raw, pca:DIM, mse:DIM, snip:DIM (fitted on the data set), or a model's folder"""

    factories: tuple[str, ...] = ()
    """faiss factory strings: rows are also quantized by each, and decoded; {M} and {C} as in
    pareto"""

    m: Annotated[tuple[_Count, ...], Field(min_length=1)] = (4, 8, 16, 32)
    """sub-quantizers for {M}"""

    centroids: Annotated[int, Field(ge=0)] = 0
    """lists for {C}; 0 takes the power of two nearest to four times the root of the rows"""

    train_rows: _Count = 131_072
    """rows of the seeded sample that quantizers are trained on; none of those evaluated"""

    rows: _Count = 10_000
    """without a table of rows: size of the seeded sample that is evaluated"""

    seed: Annotated[int, Field(ge=0)] = 0
    """seed of samples, training and fits"""


_Settings = TypeVar("_Settings", bound=_Table)


def load_table(
    kind: type[_Settings], content: Any, overrides: Mapping[str, Any], origin: str
) -> _Settings:
    """Check settings: a table of a TOML file, then single values, of which None is passed over.

    Raises
    ------
    SettingsError
        Naming each one that is unknown or out of range, and where it came from.
    """
    if not isinstance(content, Mapping):
        raise SettingsError(f"{origin}: expected a table, got {content!r}.")
    given = {key: value for key, value in overrides.items() if value not in (None, ())}
    try:
        return kind.model_validate({**content, **given})
    except ValidationError as error:
        known = ", ".join(kind.model_fields)
        raise SettingsError(
            "\n".join(
                f"{origin}: unknown setting {problem['loc'][0]}; known here: {known}."
                if problem["type"] == "extra_forbidden"
                else f"{origin}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}, "
                f"got {problem['input']!r}."
                for problem in error.errors()
            )
        ) from error


def read_toml(path: str | AnyPath | None) -> dict[str, Any]:
    """Return the content of a TOML file; empty where there is none to read.

    Raises
    ------
    SettingsError
        It cannot be read, or is no TOML.
    """
    if path is None:
        return {}
    try:
        return tomllib.loads(read_text(path))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({words_of(error)}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not a TOML file ({error}).") from error
