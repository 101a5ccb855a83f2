"""What `dask-dedup evaluate paper` reports of duplicates: a run by each finder, and candidates.

The two meet here: evaluations do not know the pipeline.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from dask_dedup.cli.command_workers import following
from dask_dedup.cli.group import say
from dask_dedup.paths import AnyPath

if TYPE_CHECKING:
    from dask_dedup.evaluate.paper import DuplicateSettings
    from dask_dedup.settings.run_settings import Settings

__all__ = ["find_duplicates"]

_FINDERS = ("join", "adc")
_SHOWN = 10
_AUDITED = [
    f"{name}{end}" for name in ("all_united_share", "pair_recall") for end in ("", "_low", "_high")
]


def find_duplicates(
    dataset: AnyPath, shared: Settings, console: Console, out: Path, settings: DuplicateSettings
) -> dict[str, Any]:
    """Run both finders into ``out/duplicates``, list candidates in ``out/verbatim``.

    Parameters
    ----------
    dataset : AnyPath
    shared : Settings
        What computes.
    console : Console
    out : Path
    settings : DuplicateSettings

    Returns
    -------
    dict
        ``threshold``, ``runs``, ``candidates``, and the folder ``verbatim``: JSON.
    """
    import pandas as pd

    from dask_dedup.pipeline.run import run
    from dask_dedup.verbatim.candidates import CandidateSettings, find_candidates

    runs = []
    for finder in _FINDERS:
        own = shared.model_dump()
        own["clusters"]["threshold"] = settings.threshold
        own["finder"] = finder
        with following(console) as progress:
            summary = run(
                dataset,
                out / "duplicates" / finder,
                type(shared).model_validate(own),
                progress=progress,
                say=partial(say, console),
            )
        audit = summary.get("audit") or {}
        runs.append(
            {
                "finder": finder,
                "tolerance": summary["found"].get("tolerance"),
                "seconds": summary["wall_seconds"],
                **{n: summary[n] for n in ("clusters", "duplicates", "duplicate_fraction")},
                **{name: audit.get(name) for name in _AUDITED},
            }
        )
    dest = out / "verbatim"
    found = find_candidates(
        out / "duplicates/join", dest, CandidateSettings(top=settings.candidates)
    )
    table = pd.read_csv(dest / "candidates/candidates.csv", keep_default_na=False)
    shown = table.head(_SHOWN)[["k", "row_id", "prompt"]]
    return {
        "threshold": settings.threshold,
        "runs": runs,
        "candidates": {**found, "first": shown.to_dict("records")},
        "verbatim": f"`{dest}`",
    }
