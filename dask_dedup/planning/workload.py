"""What a plan is made for: the workload, the machine, and what one core does in a second."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dask.utils import parse_bytes

from dask_dedup.cells.entries import HEAD_WORDS, code_words
from dask_dedup.cells.sizes import default_cells, default_cells_per_row
from dask_dedup.data.spans import count_spans
from dask_dedup.errors import SettingsError
from dask_dedup.planning.index_work import IndexWork, index_work
from dask_dedup.settings.run_settings import Settings
from dask_dedup.storage.files import write_aside

__all__ = [
    "Machine",
    "Rates",
    "Workload",
    "load_rates",
    "numbers_workload",
    "parse_rate",
    "rates_path",
    "save_rates",
]

_ROWS_PER_PART = 1_000_000
_EDGES_PER_DUPLICATE = 1.5
_NAMED_SHARE = 1 / 3  # of the metadata's bytes: the columns that an expression or a merge names
_MAY_BE_ZERO = ("duplicates", "pairs_per_row", "metadata_bytes", "packed_rows")


@dataclass(frozen=True)
class Rates:
    """What one core does in a second; the defaults are those of an AMD EPYC, two cores busy.

    Attributes
    ----------
    projection_flops, kmeans_flops : float
        Of float32 products: a block by the PCA's axes; k-means as a whole.
    filter_ops : float
        Multiplications and additions of the filter's products: of small integers.
    read_bytes, write_bytes : float
        Through the page cache.
    single_reads : float
        Single rows read by position.
    scores : float
        Scores of a row against a cell merged into its best ones, the product not counted.
    scanned : float
        Pairs of a product looked at.
    verified_values : float
        Pairs verified at full dimension, times the dimension.
    sorted_keys : float
        Keys sorted.
    merged_edges, streamed_edges : float
        Edges contracted to a forest in a task; edges of task forests merged to one.
    prepared_values : float
        Embedding values converted, measured and hashed.
    hashed_rows, table_bytes : float
        Rows hashed for a sample; bytes of Parquet decoded or encoded.
    start_seconds, task_seconds, open_seconds : float
        Starting and stopping a deployment; the overhead of one task; opening one part's two files.
    """

    projection_flops: float = 66e9
    filter_ops: float = 390e9
    kmeans_flops: float = 58e9
    read_bytes: float = 1.9e9
    write_bytes: float = 4.5e9
    single_reads: float = 1.28e6
    scores: float = 360e6
    scanned: float = 5.6e9
    verified_values: float = 1.8e9
    sorted_keys: float = 16e6
    merged_edges: float = 14e6
    streamed_edges: float = 6.1e6
    prepared_values: float = 3.5e9
    hashed_rows: float = 510e6
    table_bytes: float = 50e6
    start_seconds: float = 6.0
    task_seconds: float = 0.005
    open_seconds: float = 1e-4


@dataclass(frozen=True)
class Workload:
    """What is to be done.

    Attributes
    ----------
    rows, dim, item_bytes, parts : int
        Of the embeddings; ``item_bytes`` is 2 for float16.
    kept, cells : int
    cells_per_row, probes : float
        On average, as in the settings.
    sample_rows, sample_per_cell, queries : int
        As in the settings.
    duplicates : float
        Share of the rows that are duplicates of others, 0 to 1.
    pairs_per_row : float
        Pairs verified per row; 12 measured on synthetic data with 26 % duplicates.
    metadata_bytes : float
        Parquet bytes per row.
    packed_rows : int
        Rows that are copied before they are searched, as they are slow to read singly.
    is_ranked, by_medoid, is_settled : bool
        Whether ``[keep]`` or decisions want some copies rather than others; those in the middle;
        whether a row that would stay may have to go.
    has_decisions, has_witnesses, has_page : bool
        Whether there are decisions; a witness for each row that is dropped; a page.
    ordering_columns_bytes, merged_bytes : float
        Of a row's columns that decide which copies stay, and of those that are merged: 0 where no
        column does, or is.
    finder : str
    index : IndexWork, optional
        Of the finder adc.
    """

    rows: int
    dim: int
    parts: int
    cells: int
    item_bytes: int = 2
    kept: int = 64
    cells_per_row: float = 5.0
    probes: float = 8.0
    sample_rows: int = 16_384
    sample_per_cell: int = 24
    queries: int = 1000
    duplicates: float = 0.3
    pairs_per_row: float = 12.0
    metadata_bytes: float = 150.0
    packed_rows: int = 0
    is_ranked: bool = False
    by_medoid: bool = False
    is_settled: bool = False
    has_decisions: bool = False
    has_witnesses: bool = True
    has_page: bool = True
    ordering_columns_bytes: float = 0.0
    merged_bytes: float = 0.0
    finder: str = "join"
    index: IndexWork | None = None

    @property
    def spans(self) -> int:
        """Tasks of each stage that reads the input: parts, small ones together."""
        return count_spans(self.rows, self.parts)

    @property
    def coarse(self) -> float:
        """Coarse cells: sqrt(C)."""
        return math.sqrt(self.cells)

    @property
    def effective_cells_per_row(self) -> float:
        """Cells per row: as asked for, at most every cell."""
        return min(self.cells_per_row, float(self.cells))

    @property
    def scored(self) -> float:
        """Fine cells scored per row: those of the probed coarse ones, at most every cell."""
        return min(self.probes * self.coarse, float(self.cells))

    @property
    def entries(self) -> float:
        """Entries of the layout: N * v."""
        return self.rows * self.effective_cells_per_row

    @property
    def entry_bytes(self) -> int:
        """Position and hash, then one byte a coordinate, filled up to a multiple of 4."""
        return 4 * (HEAD_WORDS + code_words(self.kept))

    @property
    def row_bytes(self) -> int:
        """Bytes of one embedding."""
        return self.dim * self.item_bytes

    @property
    def sample(self) -> int:
        """Rows that the cells are trained on."""
        return min(self.rows, max(4096, self.sample_per_cell * self.cells))

    @property
    def edges(self) -> float:
        """Edges of the final forest: one per duplicate."""
        return self.rows * self.duplicates

    @property
    def found_edges(self) -> float:
        """Edges of the task forests: some pairs are found by two tasks."""
        return self.edges * _EDGES_PER_DUPLICATE


@dataclass(frozen=True)
class Machine:
    """What runs the tasks: ``workers`` processes of ``threads`` threads each.

    ``disk_bytes``: bytes a second of the storage under all workers together; None means that
    everything is cached in memory.
    """

    workers: int
    threads: int = 1
    disk_bytes: float | None = None


def numbers_workload(settings: Settings, *, dtype: str, **numbers: Any) -> Workload:
    """Return the workload of the settings; ``numbers`` are fields of `Workload`.

    ``parts`` may be None: a million rows each, as LAION's files.

    Raises
    ------
    SettingsError
        Naming the number that is out of range.
    """
    sizes = {"float16": 2, "float32": 4, "float64": 8}
    if dtype.lstrip("<>=|") not in sizes and dtype[-2:] not in ("f2", "f4", "f8"):
        raise SettingsError(f"dtype: expected float16, float32 or float64, got {dtype!r}.")
    for name, value in numbers.items():
        if value is None:
            continue
        least = 0 if name in _MAY_BE_ZERO else 1
        most = 1 if name == "duplicates" else float("inf")
        if not (math.isfinite(value) and least <= value <= most):
            raise SettingsError(f"{name}: expected a number from {least} to {most}, got {value!r}.")
    numbers["rows"] = int(numbers["rows"])
    if numbers["parts"] is None:
        numbers["parts"] = math.ceil(numbers["rows"] / _ROWS_PER_PART)
    if numbers["parts"] > numbers["rows"]:
        raise SettingsError(
            f"parts: expected at most one per row, {numbers['rows']}, got {numbers['parts']}."
        )
    metadata_bytes = numbers.get("metadata_bytes", Workload.metadata_bytes)
    return Workload(
        **numbers,
        **_rules(settings, metadata_bytes),
        finder=settings.finder,
        index=index_work(settings, numbers["rows"], numbers["dim"])
        if settings.finder == "adc"
        else None,
        cells=settings.cells.cells or default_cells(numbers["rows"]),
        item_bytes=sizes.get(dtype) or int(dtype[-1]),
        kept=min(settings.projection.dim, numbers["dim"]),
        cells_per_row=settings.cells.cells_per_row or default_cells_per_row(numbers["rows"]),
        probes=settings.cells.probes,
        sample_rows=settings.projection.sample_rows,
        sample_per_cell=settings.cells.sample_per_cell,
        queries=settings.audit.queries,
    )


def _rules(settings: Settings, metadata_bytes: float) -> dict[str, Any]:
    """Return what a plan asks of ``[keep]``, of the linkage and of the page."""
    keep = settings.keep
    by = (keep.order or "first").lower()
    uses_columns = keep.protect is not None or by not in ("first", "medoid")
    is_unverified = settings.finder == "adc" and not settings.adc.verify
    return {
        "is_ranked": any((keep.order, keep.protect, keep.max_per_cluster, keep.decisions)),
        "by_medoid": by == "medoid",
        "is_settled": any((keep.max_per_cluster, keep.decisions)),
        "has_decisions": keep.decisions is not None,
        "has_witnesses": settings.clusters.linkage == "star" and not is_unverified,
        "has_page": settings.report.page,
        "ordering_columns_bytes": _NAMED_SHARE * metadata_bytes * uses_columns,
        "merged_bytes": _NAMED_SHARE * metadata_bytes * bool(keep.merge),
    }


def parse_rate(text: str | None) -> float | None:
    """Turn ``"2GB"`` (a second) into bytes; None stays None."""
    try:
        rate = None if text is None else float(parse_bytes(text))
    except (ValueError, OverflowError):
        rate = 0.0
    if rate is not None and rate <= 0:
        raise SettingsError(f"disk-rate: expected bytes a second such as 2GB, got {text!r}.")
    return rate


def rates_path() -> Path:
    """Return where the measured rates are kept, for all runs of this user."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "dask_dedup" / "rates.json"


def save_rates(rates: Rates, path: Path) -> None:
    """Write rates as JSON, aside and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(path) as temporary:
        temporary.write_text(json.dumps(asdict(rates), indent=2) + "\n", encoding="utf-8")


def load_rates(path: Path) -> Rates | None:
    """Read rates that `save_rates` wrote; None where there are none.

    Raises
    ------
    SettingsError
        The file is damaged, or is of another version.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if set(found) != {field.name for field in fields(Rates)}:
            raise ValueError("its names are not those of this version")
        if not all(0 < float(value) < math.inf for value in found.values()):
            raise ValueError("a rate is not a positive number")
        return Rates(**{name: float(value) for name, value in found.items()})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(
            f"{path}: not a file of rates ({error}). Measure anew with "
            f"`dask-dedup plan --calibrate`, or delete it."
        ) from error
