"""Prompts: the captions of candidates, and the pictures that belong to each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from dask_dedup.errors import InputError, OutputError
from dask_dedup.paths import AnyPath
from dask_dedup.storage.files import read_frame, read_json
from dask_dedup.verbatim.candidates import CANDIDATES, CAPTIONS, CandidateFolder

__all__ = ["Candidates", "picture_name", "read_candidates", "read_prompts"]


class Candidates(NamedTuple):
    """What ``verbatim candidates`` has found: its folder, tables, and identity."""

    folder: AnyPath
    table: pd.DataFrame
    summary: dict[str, Any]
    identity: str


def read_candidates(dest: AnyPath) -> Candidates:
    """Open the candidates in ``dest``.

    Raises
    ------
    OutputError
        There are none, or they are not finished.
    """
    folder = dest / "candidates"
    state = read_json(folder / CandidateFolder.state_name, sealed=True)
    if not isinstance(state, dict) or not state.get("finished"):
        raise OutputError(
            f"{dest}: holds no candidates, or their search has not finished. Begin with "
            f"`dask-dedup verbatim candidates`."
        )
    summary = read_json(folder / "summary.json") or {}
    return Candidates(folder, read_frame(folder / CANDIDATES), summary, str(state["digest"]))


def read_prompts(
    found: Candidates, prompts: int, best: Sequence[int] | None = None
) -> pd.DataFrame:
    """Return the prompts of candidates.

    Parameters
    ----------
    found : Candidates
    prompts : int
        Of each candidate: its most frequent captions that may be prompts.
    best : sequence of int, optional
        These candidates, in this order; by default all, by falling k.

    Returns
    -------
    DataFrame
        ``candidate``, ``prompt`` (0: the most frequent), ``caption``.
    """
    captions = read_frame(found.folder / CAPTIONS)
    captions = captions[captions["is_prompt"]]
    captions["prompt"] = captions.groupby("candidate").cumcount()
    chosen = captions.loc[captions["prompt"] < prompts, ["candidate", "prompt", "caption"]]
    if best is not None:
        order = pd.Series(range(len(best)), index=list(best))
        chosen = chosen[chosen["candidate"].isin(order.index)]
        chosen = chosen.iloc[chosen["candidate"].map(order).argsort(kind="stable")]
    if not len(chosen):
        raise InputError(f"{found.folder}: no candidate has a caption that may be a prompt.")
    return chosen.reset_index(drop=True)


def picture_name(candidate: int, prompt: int, seed: int) -> str:
    """Return the name of the file of a generated picture.

    Examples
    --------
    >>> picture_name(12, 0, 3)
    '000012-00-0003.png'
    """
    return f"{candidate:06d}-{prompt:02d}-{seed:04d}.png"
