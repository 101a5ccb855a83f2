"""Finders: what finds the pairs of similar rows. A new one is one file, and one line here.

Its stages stand in `dask_dedup.pipeline.stages`, its name among those that the setting ``finder``
takes: tests compare the three. It imports what it needs, so a finder that is not asked for costs
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from dask_dedup.pipeline.job import Found, Job

__all__ = ["FINDERS", "Finder", "choose_finder"]

#: By name, the module and the class.
FINDERS = {
    "join": ("dask_dedup.pipeline.join_finder", "JoinFinder"),
    "adc": ("dask_dedup.pipeline.adc_finder", "AdcFinder"),
}


class Finder(Protocol):
    """From the rows of a job to files of edges; made of the job, used once.

    What a finder, which derives from this class, has to give:

    - Each stage goes through `Job.stage`, `Job.timed` and `Job.run_stage`, with a stage that is
      declared for it: so that it is shown, resumed, and done again where a setting has changed.
    - Every edge is of two rows with usable embeddings, ``src < dst``; its similarity is the cosine
      of the stored values (see `dask_dedup.vectors.cosines`), or `Found.answers` is None. Rows with
      equal bytes are linked, too.
    - The files of edges may repeat one another. They are forests, not all pairs: at most one edge
      for each row that a task has seen.
    - The layout lists the invalid rows of every part, and the true pairs of the audit's sample.
    - The same settings and rows give the same edges, for any number of workers and parts.

    Attributes
    ----------
    name : str
        As in `FINDERS` and in the settings.
    keys : mapping
        Everything that the edges depend on, but for the input: of the digest of later stages.
    """

    name: ClassVar[str]
    keys: Mapping[str, Any]

    def __init__(self, job: Job) -> None: ...

    def find(self) -> Found:
        """Find the edges; computes."""


def choose_finder(name: str) -> type[Finder]:
    """Import one finder, by its name: what the others need is not imported."""
    module, kind = FINDERS[name]
    chosen: type[Finder] = getattr(import_module(module), kind)
    return chosen
