"""The page that sums up the paper's evaluations: tables and the plot, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dask_dedup.paths import AnyPath
from dask_dedup.report.count_text import count_text
from dask_dedup.storage.files import write_aside

__all__ = ["write_page"]


def write_page(result: dict[str, Any], path: AnyPath) -> None:
    """Write what `dask_dedup.evaluate.paper.measure_paper` returns as one page.

    The plot is expected beside it, as ``pareto/pareto.png``.
    """
    parts = [f"# Evaluation of {Path(result['data']).name}, {count_text(result['rows'], 'row')}"]
    if "pareto" in result:
        parts += _pareto(result["pareto"])
    if "components" in result:
        parts += _components(result["components"])
    if "duplicates" in result:
        parts += _duplicates(result["duplicates"])
    for name, title in (("zeroshot", "Zero-shot classification"), ("retrieval", "Retrieval")):
        if name in result:
            parts += _space(result[name], title, Path(result["space"]).name)
    if result["left out"]:
        parts.append(f"Not evaluated: {', '.join(result['left out'])}.")
    with write_aside(path) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _pareto(result: dict[str, Any]) -> list[str]:
    points, settings, machine = (
        pd.DataFrame(result["points"]),
        result["settings"],
        result["machine"],
    )
    ks = settings["ks"]
    front = points[points["front_with_bytes"]].sort_values(
        ["bytes_per_vector", "queries_per_second"]
    )
    columns = ("model", "factory", "setting", "bytes", *(f"recall@{k}" for k in ks), "queries/s")

    def cells(point: dict[str, Any]) -> list[str]:
        return [
            point["model"],
            f"`{point['factory']}`",
            point["setting"],
            f"{point['bytes_per_vector']:.1f}",
            *(f"{point[f'recall@{k}']:.3f}" for k in ks),
            f"{point['queries_per_second']:,.0f}",
        ]

    best = points.sort_values(f"recall@{max(ks)}", ascending=False)
    best = best.drop_duplicates(["model", "factory"]).sort_index()
    best_columns = (*columns, "training", "building")
    searches = count_text(len(points), "search", "searches")
    threads, cores = (
        count_text(settings["threads"], "thread"),
        count_text(machine["cores"], "core"),
    )
    return [
        "## Searches",
        f"{searches} of {count_text(result['queries'], 'row')} each, {threads}, medians of "
        f"{settings['repeats']}, {settings['clock']} time; {machine['processor']}, {cores}. "
        f"A result is right when its true cosine is at least that of the k-th true neighbour, to "
        f"{settings['tie_epsilon']:g}. Queries per second are those of the index alone, the query "
        f"being compressed already.",
        "![the front of each model, then each model alone](pareto/pareto.png)",
        "### The front of recall, speed and size",
        _table(columns, [cells(point) for point in front.to_dict("records")]),
        f"### Each index at its best recall@{max(ks)}",
        _table(
            best_columns,
            [
                [
                    *cells(point),
                    f"{point['train_seconds']:.1f} s",
                    f"{point['build_seconds']:.2f} s",
                ]
                for point in best.to_dict("records")
            ],
        ),
    ]


def _components(found: dict[str, Any]) -> list[str]:
    return [
        "## Components",
        f"{count_text(found['edges'], 'pair')} at cosine {found['threshold']:g} or above, between "
        f"{count_text(found['rows'], 'row')}; all pairs, by exhaustive search. The one-pass "
        f"labelling is a reconstruction from the authors' description.",
        _table(
            ("", "exact", "one pass"),
            [
                [name, f"{found[key]:,}", f"{found[f'{prefix}{other}']:,}"]
                for name, key, prefix, other in (
                    ("clusters", "clusters", "one_pass_", "clusters"),
                    ("duplicates", "duplicates", "one_pass_", "duplicates"),
                    ("largest cluster", "largest_cluster", "", "largest_one_pass_cluster"),
                )
            ],
        ),
        f"The one pass leaves {count_text(found['split_clusters'], 'cluster')} in pieces, with "
        f"{count_text(found['rows_in_split_clusters'], 'row')}, and misses "
        f"{count_text(found['missed_unions'], 'union')}.",
    ]


def _duplicates(found: dict[str, Any]) -> list[str]:
    columns = (
        *("finder", "T", "clusters", "duplicates", "of the valid rows"),
        *("sampled rows with all their duplicates", "true pairs united", "seconds"),
    )
    rows = [
        [
            run["finder"],
            f"{run['tolerance']:.3g}" if run["tolerance"] is not None else "",
            f"{run['clusters']:,}",
            f"{run['duplicates']:,}",
            f"{run['duplicate_fraction']:.1%}",
            *(_share(run, name) for name in ("all_united_share", "pair_recall")),
            f"{run['seconds']:.1f}",
        ]
        for run in found["runs"]
    ]
    candidates = found["candidates"]
    texts = [[f"{one[name]:,}" for name in ("k", "row_id")] for one in candidates["first"]]
    for row, one in zip(texts, candidates["first"], strict=True):
        row.append(_plain(one["prompt"]))
    return [
        "## Duplicates",
        f"At a cosine of {found['threshold']:g}, by the join of cells and by the paper's index "
        f"with the adaptive threshold T, whose pairs are verified. Intervals are those of rows "
        f"sampled and compared with all others, 95 %.",
        _table(columns, rows),
        "![clusters by size](duplicates/join/histogram.png)",
        "[The page of the run](duplicates/join/report/index.html) shows the clusters.",
        "## Candidates for verbatim copies",
        f"{count_text(candidates['candidates'], 'picture')} of {candidates['groups']:,} that are "
        f"there at least twice, each a row that stays with the copies that are dropped for it "
        f"(k in all). `dask-dedup verbatim generate` and `score`, with {found['verbatim']}, say "
        f"which of them a model reproduces; the most frequent:",
        _table(("k", "row", "its most frequent caption"), texts),
    ]


def _share(run: dict[str, Any], name: str) -> str:
    """Return a share with its interval, as far as there are such."""
    share, low, high = (run[f"{name}{end}"] for end in ("", "_low", "_high"))
    if share is None:
        return ""
    return f"{share:.2%}" + (f" ({low:.2%} to {high:.2%})" if low is not None else "")


def _plain(text: str) -> str:
    """Return a caption as a cell of a table: a line without markup."""
    line = " ".join(text.split())
    line = line if len(line) <= 80 else f"{line[:79]}…"
    return "".join(f"\\{c}" if c in "\\`*_[]<>|!#&" else c for c in line)


def _space(found: Sequence[dict[str, Any]], title: str, data: str) -> list[str]:
    kind = "group" if "group" in found[0] else "direction"
    shown = [
        name
        for name in found[0]
        if name.startswith(("top", "mean_top", "recall@", "split")) or name == "tied"
    ]
    columns = ("model", "factory", "bytes", kind, *shown)
    rows = [
        [
            row["model"],
            f"`{row['factory']}`" if row["factory"] else "–",
            f"{row['bytes_per_vector']:,}",
            row[kind],
            *(f"{100 * row[name]:.1f}" for name in shown),
        ]
        for row in found
    ]
    return [
        f"## {title}, {data}",
        "Per cent. Ties count in favour, except in the columns `split`, where their order is "
        "random; `tied` is the share of rows that this concerns.",
        _table(columns, rows),
    ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
