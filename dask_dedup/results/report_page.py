"""The report page of a finished run: `write_report`.

1. The first pass reads our columns of all parts: which clusters and rows are to be shown.
2. The forest tells the pairs near the threshold, long paths, and what other thresholds would find.
3. The second pass reads URL, caption and few other columns: of the rows that were chosen, and to
   count sites and what the largest clusters hold.
4. Local pictures of the rows shown are made small, where there are any.
5. One HTML file is written.

The passes are tasks over neighbouring files, each a row group at a time. What they return does not
grow with the data set. The sweep is one task, for it holds 8 bytes a row: no more than that of the
labels.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import pandas as pd
import pyarrow as pa
from dask.delayed import delayed

from dask_dedup.errors import SettingsError
from dask_dedup.paths import AnyPath, as_path
from dask_dedup.report.histogram import read_histogram
from dask_dedup.report.page import web_link, write_page
from dask_dedup.report.page_parts import PageContent, PrecisionGoal, Tab, Tile
from dask_dedup.results.cluster_files import ClusterFiles, list_files
from dask_dedup.results.finished_run import FinishedRun
from dask_dedup.results.page_cards import Tiles, size_columns
from dask_dedup.results.page_choice import (
    Chosen,
    choose_rows,
    find_placeholders,
    list_sites,
    make_tabs,
)
from dask_dedup.results.page_rows import COLUMN, RowScan, Wanted, site_of
from dask_dedup.results.page_scan import ClusterScan
from dask_dedup.results.pictures import PictureTemplate, Place, find_template
from dask_dedup.results.precision import threshold_for
from dask_dedup.results.sizes import PAGE_ROWS, PAGE_TASKS
from dask_dedup.runtime.executor import Execute, OnWorker, compute_tasks, ignore_result
from dask_dedup.settings.run_settings import Settings
from dask_dedup.storage.files import digest_of, read_json
from dask_dedup.storage.listing import names_in
from dask_dedup.storage.results_list import RESULTS

__all__ = ["find_pictures", "write_report"]

logger = logging.getLogger(__name__)

_THUMBNAILS = 400  # where there are local pictures
_PICTURES_A_TASK = 25
_GOALS = (0.8, 0.9, 0.95, 0.99)  # of precision: the page tells their thresholds


def write_report(
    run: FinishedRun,
    dest: AnyPath,
    settings: Settings,
    execute: Execute = compute_tasks,
    on_rows: Callable[[int], None] = ignore_result,
    precision: pd.DataFrame | None = None,
) -> dict[str, int]:
    """Write the report page of a run whose results are in place; computes.

    Parameters
    ----------
    run : FinishedRun
        The run: its summary may be one that is not written yet.
    dest : AnyPath
        The HTML file.
    settings : Settings
        Of the run; those of ``[report]`` say which pictures the page has.
    execute : Execute
        How tasks are computed.
    on_rows : callable
        Called with a number of rows that are done, half of them after each pass.
    precision : DataFrame, optional
        From `dask_dedup.results.precision.precision_of`: drawn into the sweep.

    Returns
    -------
    dict
        ``rows`` shown; ``pictures`` in the page.

    Raises
    ------
    SettingsError
        The template of the pictures is none, or names a column that is not there.
    DamagedError
        A result file is missing, or not what was written.
    """
    files = list_files(run.path / "clusters", run.summary["rows"])
    theirs = files.schema.names[len(files.own_columns) :]
    template = find_pictures(settings, run.summary["dataset"], theirs)
    seed = settings.seed
    scan = _scan(run.path, files, seed, execute, on_rows)
    chosen = choose_rows(run.path, files, scan, run.summary)
    (swept,) = _each(OnWorker("dask_dedup.results.sweep", "sweep_or_reason"), [(run,)], execute)
    sizes = size_columns(theirs)
    columns = tuple(dict.fromkeys([*(sizes or ()), *(template.columns if template else ())]))
    columns = tuple(name for name in columns if name not in ("url", "caption"))
    wanted_rows = Wanted(chosen.rows, chosen.clusters, columns, seed, chosen.content)
    rows = _read(files, wanted_rows, execute, on_rows)
    tiles = Tiles(_by_row(rows), sizes, run.summary["threshold"], {}, _rule_of(settings))
    content = _content(run, settings, scan, rows, chosen, tiles, swept)
    shown = _shown_rows(content)
    if template is not None:
        limit = settings.report.thumbnails
        wanted = shown[: _THUMBNAILS if limit is None else limit]
        tiles = replace(tiles, pictures=_make_pictures(wanted, tiles, template, execute))
        content = _content(run, settings, scan, rows, chosen, tiles, swept)
    pictured = sum(row_id in tiles.pictures for row_id in shown)
    content = replace(content, pictures_wanted=len(shown), pictures_found=pictured)
    if precision is not None:
        goals = [PrecisionGoal(one, *threshold_for(precision, one)) for one in _GOALS]
        content = replace(content, precision=precision, goals=goals)
    write_page(content, dest)
    return {"rows": len(shown), "pictures": pictured}


def find_pictures(
    settings: Settings, dataset: str, columns: Sequence[str]
) -> PictureTemplate | None:
    """Return where the local pictures are, as the settings say or as they lie; None: nowhere.

    Parameters
    ----------
    settings : Settings
    dataset : str
        That the pictures lie beside.
    columns : sequence of str
        The user's.

    Raises
    ------
    SettingsError
        The template is none, or names a column that is not there; or pictures are asked for, and
        there are none.
    """
    limit, given = settings.report.thumbnails, settings.report.images
    template = given or (find_template(dataset, columns) if limit != 0 else None)
    if limit and template is None:
        raise SettingsError(
            f"thumbnails {limit}: there are no local pictures in {as_path(dataset) / 'images'}. "
            f'Name them with --images, such as --images "photos/{{key}}.jpg".'
        )
    return None if template is None else PictureTemplate(template, as_path(dataset), columns)


@dataclass(frozen=True)
class _Group:
    """Neighbouring files that one task reads."""

    paths: list[str]
    starts: list[int]
    rows: int


def _groups(files: ClusterFiles) -> list[_Group]:
    """Cut the files into groups of about as many rows, by rows alone."""
    filled = files.filled
    count = min(PAGE_TASKS, -(-files.rows // PAGE_ROWS))
    cuts: dict[int, list[int]] = {}
    for i in filled:
        cuts.setdefault(files.starts[i] * count // max(files.rows, 1), []).append(i)
    return [
        _Group(
            [files.paths[i] for i in some],
            [files.starts[i] for i in some],
            files.starts[some[-1] + 1] - files.starts[some[0]],
        )
        for some in cuts.values()
    ]


def _each(
    function: OnWorker,
    tasks: Iterable[tuple[Any, ...]],
    execute: Execute,
    done: Callable[[Any], None] = ignore_result,
) -> list[Any]:
    call = delayed(function, pure=False)
    return execute([call(*task) for task in tasks], done)


def _scan(
    out: AnyPath,
    files: ClusterFiles,
    seed: int,
    execute: Execute,
    on_rows: Callable[[int], None],
) -> ClusterScan:
    """Do the first pass."""
    invalid = [str(out / "invalid" / name) for name in sorted(names_in(out / "invalid") or ())]
    groups = _groups(files)
    step = -(-len(invalid) // max(len(groups), 1)) or 1
    tasks = [
        (group.paths, group.starts, invalid[i * step : (i + 1) * step], seed)
        for i, group in enumerate(groups)
    ]
    scan = ClusterScan()
    function = OnWorker("dask_dedup.results.page_scan", "scan_files")
    for found in _each(function, tasks, execute):
        scan.merge(found)
    on_rows(files.rows // 2)
    return scan


def _read(
    files: ClusterFiles, wanted: Wanted, execute: Execute, on_rows: Callable[[int], None]
) -> RowScan:
    """Do the second pass."""
    scan = RowScan()
    function = OnWorker("dask_dedup.results.page_rows", "read_wanted")
    tasks = [(group.paths, group.starts, wanted) for group in _groups(files)]
    for found in _each(function, tasks, execute):
        scan.merge(found)
    on_rows(files.rows - files.rows // 2)
    return scan


def _by_row(scan: RowScan) -> dict[int, dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    for frame in (scan.members, scan.rows):
        if frame is None:
            continue
        sites = site_of(pa.array(frame["url"].tolist(), pa.string()))
        for record, site in zip(frame.to_dict("records"), sites, strict=True):
            rows[int(record["row_id"])] = {**record, "site": site}
    return rows


def _rule_of(settings: Settings) -> str:
    """Return what the user has said about which rows stay; empty: nothing."""
    keep = getattr(settings, "keep", None)
    order = getattr(keep, "order", None)
    return f"by {' '.join(str(order).split())[:60]}" if order else ""


def _content(
    run: FinishedRun,
    settings: Settings,
    scan: ClusterScan,
    rows: RowScan,
    chosen: Chosen,
    tiles: Tiles,
    swept: tuple[pd.DataFrame | None, str],
) -> PageContent:
    sweep, absent = swept
    content = PageContent(
        summary=run.summary,
        identity=_identity(run),
        histogram=read_histogram(run.path / "histogram.csv"),
        sweep=sweep,
        sweep_absent=absent,
        tabs=make_tabs(tiles, chosen, rows, run.summary),
        placeholders=find_placeholders(tiles, rows),
        searched_clusters=len(chosen.content),
        searched_size=chosen.content_size,
        sites=list_sites(rows),
        site_error=rows.sites.missing,
        reasons=dict(sorted(scan.reasons.items())),
        settings=_tables(settings),
        load_urls=settings.report.load_urls,
    )
    from_web = any(
        tile.picture is None and web_link(tile.url) is not None for tile in _tiles_of(content)
    )
    return replace(content, has_web_pictures=from_web)


def _identity(run: FinishedRun) -> str:
    """Return what decisions are kept by: another one where the clusters are others."""
    folders = (read_json(run.path / RESULTS, sealed=True) or {}).get("folders") or {}
    return digest_of({"run": run.state.get("digest"), "files": folders.get("clusters")})[:32]


def _tables(settings: Settings) -> dict[str, Mapping[str, Any]]:
    own: dict[str, Any] = {}
    tables: dict[str, Mapping[str, Any]] = {"run": own}
    for name, value in settings.model_dump(mode="json").items():
        if isinstance(value, Mapping):
            tables[name] = value
        else:
            own[name] = value
    return tables


def _tiles_of(content: PageContent) -> list[Tile]:
    """Return the tiles that are shown: the first of each tab, the second of each, and so on."""
    columns = [[one.tile for one in content.placeholders], *map(_tab_tiles, content.tabs)]
    return [tile for some in zip_longest(*columns) for tile in some if tile is not None]


def _tab_tiles(tab: Tab) -> list[Tile]:
    found: list[Tile] = []
    for card in tab.cards:
        found += [*([card.first] if card.first else []), *card.others]
        found += [step.tile for step in card.path]
    return found


def _shown_rows(content: PageContent) -> list[int]:
    return list(dict.fromkeys(tile.row_id for tile in _tiles_of(content)))


def _make_pictures(
    row_ids: Sequence[int], tiles: Tiles, template: PictureTemplate, execute: Execute
) -> dict[int, str]:
    """Return ``data:`` URLs of the rows' pictures, as far as there are any."""
    by_file: dict[str, list[tuple[int, Place]]] = {}
    for row_id in row_ids:
        row = tiles.rows[row_id]
        values = {name: row.get(f"{COLUMN}{name}", row.get(name)) for name in template.columns}
        place = template.place_of(values)
        if place is not None:
            by_file.setdefault(place.path, []).append((row_id, place))
    tasks: list[list[tuple[int, Place]]] = []
    for places in by_file.values():
        if not tasks or len(tasks[-1]) >= _PICTURES_A_TASK:
            tasks.append([])
        tasks[-1] += places
    function = OnWorker("dask_dedup.results.pictures", "make_thumbnails")
    found: dict[int, str] = {}
    for some in _each(function, [(task,) for task in tasks], execute):
        for row_id, content in some.items():
            found[row_id] = f"data:image/webp;base64,{b64encode(content).decode()}"
    return found
