"""Settings: one frozen object per stage; TOML, command line and Python share names and defaults."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from dask_dedup.errors import SettingsError
from dask_dedup.paths import AnyPath, read_text, refuse_secrets, words_of
from dask_dedup.settings.dask_cluster_settings import DaskClusterSettings, parse_memory
from dask_dedup.settings.encoders import ENCODERS
from dask_dedup.settings.keep_settings import KeepSettings

__all__ = [
    "AdcSettings",
    "AuditSettings",
    "CellSettings",
    "ClusterSettings",
    "ComputeSettings",
    "DaskClusterSettings",
    "JoinSettings",
    "KeepSettings",
    "ProjectionSettings",
    "ReadSettings",
    "ReportSettings",
    "Settings",
    "load_settings",
]


def _without_credentials(path: str | None) -> str | None:
    if path is not None:
        refuse_secrets(path)
    return path


def _split_names(value: Any) -> Any:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


#: Names of columns; on the command line as text with commas, in TOML also as a list.
Names = Annotated[list[str] | None, BeforeValidator(_split_names)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ReadSettings(_Table):
    """``[read]``: what is compared, and how metadata columns are found."""

    modality: Literal["image", "text"] = "image"
    """embeddings that are compared: image (img_emb) or text (text_emb)"""

    url_column: str | None = None
    """metadata column that holds the URL [default: url or URL]"""

    caption_column: str | None = None
    """metadata column that holds the caption [default: caption or TEXT]"""

    columns: Names = None
    """metadata columns that are carried beside URL and caption, as A,B [default: all]"""

    drop_columns: Names = None
    """metadata columns that are not carried, as A,B [default: none]"""

    metadata: Annotated[str | None, AfterValidator(_without_credentials)] = None
    """metadata files, as a pattern from the data set [default: metadata/*.parquet]"""

    image_embeddings: Annotated[str | None, AfterValidator(_without_credentials)] = None
    """files of image embeddings, as a pattern [default: img_emb/*.npy]"""

    text_embeddings: Annotated[str | None, AfterValidator(_without_credentials)] = None
    """files of text embeddings, as a pattern [default: text_emb/*.npy]"""

    embedding_column: str | None = None
    """list column of the metadata files with the embeddings, instead of files of their own"""

    skip_bad_parts: bool = False
    """quarantine files that cannot be read, and go on: their rows are kept, each alone"""


class ProjectionSettings(_Table):
    """``[projection]``: the PCA in whose space candidates are found."""

    dim: Annotated[int, Field(ge=1, le=1024)] = 64
    """dimensions kept by the PCA; never changes which pairs pass, only how fast"""

    sample_rows: Annotated[int, Field(ge=2)] = 16_384
    """rows of the seeded sample that the PCA is fitted on"""


class CellSettings(_Table):
    """``[cells]``: the Voronoi cells in which rows are compared."""

    cells_per_row: Annotated[float, Field(ge=1, le=16)] | None = None
    """cells in which a row is compared on average, the nearest included; more find more [default:
    4.5, above a million rows more: 6.4 at ten million]"""

    cells: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """number of cells; 0 chooses by the number of rows"""

    probes: Annotated[float, Field(ge=1, le=32)] = 8.0
    """coarse cells whose fine cells are considered for a row, on average"""

    sample_per_cell: Annotated[int, Field(ge=1)] = 24
    """rows of the k-means sample per cell"""


class JoinSettings(_Table):
    """``[join]``: which pairs become edges."""

    search_threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """lowest cosine that is searched for and kept in the forest [default: the threshold]"""


class AdcSettings(_Table):
    """``[adc]``: search by quantized distances (finder adc)."""

    model: Annotated[str | None, AfterValidator(_without_credentials)] = None
    """folder of a compressor that is applied to rows before they are indexed [default: none]"""

    factory: str | None = None
    """index, as faiss's factory names it [default: by the number of rows]"""

    sample_rows: Annotated[int, Field(ge=0)] = 0
    """rows of the seeded sample that the index is trained on; 0 chooses by the factory"""

    iterations: Annotated[int, Field(ge=0)] = 0
    """iterations of the k-means that makes the lists; 0 leaves them to faiss"""

    k: Annotated[int, Field(ge=2)] = 16
    """neighbours searched per row; more for rows whose neighbours all pass"""

    nprobe: Annotated[int, Field(ge=1)] = 8
    """inverted lists that each row looks into"""

    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """T of the adaptive threshold [default: calibrated on a sample]"""

    verify: bool = True
    """whether pairs are verified at full dimension; if not, T alone decides"""

    recall: Annotated[float, Field(gt=0, le=1)] = 0.99
    """recall that T is calibrated to where pairs are verified"""

    precision: Annotated[float, Field(gt=0, le=1)] = 0.9
    """precision that T is calibrated to where they are not"""

    queries: Annotated[int, Field(ge=1)] = 1000
    """rows with exact truth that T is calibrated on"""


class ClusterSettings(_Table):
    """``[clusters]``: which edges make clusters, and which of their rows stay."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.95
    """lowest cosine at which two rows are duplicates"""

    linkage: Literal["star", "components"] = "star"
    """which rows are dropped: those at the threshold or above to a row that stays (star), or all of
    a cluster but one, as in the paper, however unlike they are (components)"""


class AuditSettings(_Table):
    """``[audit]``: the run's own measurement of what it found."""

    queries: Annotated[int, Field(ge=0)] = 1000
    """rows whose pairs are found by brute force to measure recall; 0 switches the audit off"""


class ReportSettings(_Table):
    """``[report]``: the page that a run ends with; none of it changes the other results."""

    page: bool = True
    """whether OUT/report/index.html is made"""

    images: Annotated[str | None, AfterValidator(_without_credentials)] = None
    """where local pictures are, from the data set, by columns in braces, such as "images/{key}.jpg"
    or "images/{shard}.tar#{key}" [default: those in images/, by the column key]"""

    thumbnails: Annotated[int, Field(ge=0)] | None = None
    """local pictures that are put into the page, at most 160 pixels wide [default: 400, where there
    are any]"""

    load_urls: bool = False
    """load pictures from the rows' URLs when the page is opened, and not only on a click"""


class ComputeSettings(_Table):
    """``[compute]``: what the run may use; none of it changes the result."""

    workers: Annotated[int, Field(ge=1)] | None = None
    """worker processes, one Dask thread each [default: one per core]"""

    threads: Annotated[int, Field(ge=1)] = 1
    """BLAS and OpenMP threads of each worker"""

    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """where the matrix products run; cuda and auto (a GPU if there is one) are experimental"""

    work: Annotated[str | None, AfterValidator(_without_credentials)] = None
    """folder or URL for the working files, shared by all workers [default: OUT/stages]"""

    memory: Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(parse_memory)] = None
    """memory of each worker, such as 8GB [default: three quarters of the machine's or
    container's, shared]"""


class Settings(_Table):
    """All settings of a run, one table per stage."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """seed of every random choice"""

    finder: Literal["join", "adc"] = "join"
    """how duplicates are found: join (inside cells) or adc (by quantized distances)"""

    encoder: Literal["clip", "sscd", "isc"] | None = None
    """what has made the embeddings: gives the threshold where none is given, and is compared with
    what the data look like [default: not stated]"""

    read: ReadSettings = ReadSettings()
    projection: ProjectionSettings = ProjectionSettings()
    cells: CellSettings = CellSettings()
    join: JoinSettings = JoinSettings()
    adc: AdcSettings = AdcSettings()
    clusters: ClusterSettings = ClusterSettings()
    keep: KeepSettings = KeepSettings()
    audit: AuditSettings = AuditSettings()
    report: ReportSettings = ReportSettings()
    compute: ComputeSettings = ComputeSettings()
    cluster: DaskClusterSettings = DaskClusterSettings()

    @model_validator(mode="after")
    def _encoder_gives_the_threshold(self) -> Settings:
        if self.encoder is not None and "threshold" not in self.clusters.model_fields_set:
            update = {"threshold": ENCODERS[self.encoder].threshold}
            object.__setattr__(self, "clusters", self.clusters.model_copy(update=update))
        return self

    @model_validator(mode="after")
    def _thresholds_fit(self) -> Settings:
        search = self.join.search_threshold
        if search is not None and search > self.clusters.threshold:
            raise ValueError(
                f"join.search_threshold {search} is above clusters.threshold "
                f"{self.clusters.threshold}: pairs between the two would not be found"
            )
        return self

    @model_validator(mode="after")
    def _workers_fit_their_jobs(self) -> Settings:
        """For SLURM, what ``[compute]`` leaves open follows from ``[cluster]``."""
        job, compute = self.cluster, self.compute
        if job.kind != "slurm":
            return self
        cores = job.processes * compute.threads
        if job.cores is not None and cores > job.cores:
            raise ValueError(
                f"cluster.processes {job.processes} times compute.threads {compute.threads} is "
                f"more than cluster.cores {job.cores}"
            )
        if job.memory is None and compute.memory is None:
            raise ValueError("SLURM needs the memory of a job: cluster.memory, such as 64GB")
        memory = compute.memory or (job.memory or 0) // job.processes
        if job.memory is not None and memory * job.processes > job.memory:
            raise ValueError(
                f"cluster.processes {job.processes} times compute.memory {memory:,} is more than "
                f"cluster.memory {job.memory:,} bytes"
            )
        update = {"memory": memory, "workers": job.most_jobs * job.processes}
        object.__setattr__(self, "compute", compute.model_copy(update=update))
        return self

    @property
    def search_threshold(self) -> float:
        """The lowest cosine that is searched for."""
        given = self.join.search_threshold
        return self.clusters.threshold if given is None else given

    def for_result(self) -> dict[str, Any]:
        """Return what the result depends on: not workers, the page, or what bad files come to.

        Nor the encoder, which has given the threshold, and is remarked upon; nor where the file of
        decisions lies, whose content counts.
        """
        return self.model_dump(
            exclude={
                "compute": True,
                "cluster": True,
                "report": True,
                "encoder": True,
                "read": {"skip_bad_parts"},
                "keep": {"decisions"},
            }
        )

    def to_toml(self) -> str:
        """Return all settings as TOML; a setting without a value is left out."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


def load_settings(
    config_path: str | AnyPath | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Read settings: defaults, then a TOML file, then single values.

    Parameters
    ----------
    config_path : path, optional
        A TOML file, which may be a URL, with any of the tables of `Settings`.
    overrides : mapping, optional
        Dotted keys to values, such as ``{"clusters.threshold": 0.9}``; None values are passed
        over.

    Raises
    ------
    SettingsError
        Naming each key that is unknown or has a value out of range, and where it came from.
    """
    content: dict[str, Any] = {}
    origin = "settings"
    if config_path is not None:
        origin = str(config_path)
        try:
            content = tomllib.loads(read_text(config_path))
        except OSError as error:
            raise SettingsError(f"{config_path}: cannot be read ({words_of(error)}).") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SettingsError(f"{config_path}: not a TOML file ({error}).") from error
    for dotted, value in (overrides or {}).items():
        if value is None:
            continue
        *tables, key = dotted.split(".")
        table = content
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise SettingsError(f"{origin}: {name} is expected to be a table.")
        table[key] = value
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        raise SettingsError(_describe(error, origin)) from error


#: Settings of earlier versions, and what they are called now.
RENAMED = {"cells.visits": "cells.cells_per_row", "compress": "projection"}


def _describe(error: ValidationError, origin: str) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if key in RENAMED:
            lines.append(f"{origin}: {key} is now called {RENAMED[key]}.")
        elif problem["type"] == "extra_forbidden":
            table = Settings.model_fields.get(str(problem["loc"][0]))
            model = table.annotation if table is not None and len(problem["loc"]) > 1 else Settings
            known = getattr(model, "model_fields", Settings.model_fields)
            near = get_close_matches(str(problem["loc"][-1]), known, 1)
            meant = f" Did you mean {near[0]}?" if near else ""
            lines.append(f"{origin}: unknown setting {key}; known here: {', '.join(known)}.{meant}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            if (
                key
            ):  # otherwise two settings contradict each other, and the message has their values
                message = f"{key}: {message}, got {problem['input']!r}"
            lines.append(f"{origin}: {message}.")
    return "\n".join(lines)
