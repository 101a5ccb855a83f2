"""The page of verbatim copies: generated beside original, what differs, and keys to decide.

It is made as the report page is: see `dask_dedup.report.page`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, log2
from typing import Any

import pandas as pd

from dask_dedup.paths import AnyPath
from dask_dedup.report.page import page_environment, page_file, policy_hash, script_json
from dask_dedup.storage.files import write_aside

__all__ = ["Comparison", "VerbatimContent", "render_verbatim_page", "write_verbatim_page"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 300, 64, 20, 18, 46


@dataclass(frozen=True)
class Comparison:
    """One generated picture beside the training picture that decided.

    Attributes
    ----------
    image : str
        Its file: decisions name it.
    candidate, row_id, k : int
        ``row_id`` of the training picture.
    kind : str
    closeness : float
        Score over threshold, turned so that below 1 is a copy.
    verdicts : sequence of str
        A text for each preset.
    caption : str
    url : str or None
    generated, original, mask, difference : str or None
        ``data:`` URLs.
    decision : str
        ``confirmed``, ``rejected`` or empty.
    """

    image: str
    candidate: int
    row_id: int
    k: int
    kind: str
    closeness: float
    verdicts: Sequence[str]
    caption: str = ""
    url: str | None = None
    generated: str | None = None
    original: str | None = None
    mask: str | None = None
    difference: str | None = None
    decision: str = ""


@dataclass(frozen=True)
class VerbatimContent:
    """All that the page shows.

    Attributes
    ----------
    title : str
        What was audited.
    identity : str
        Decisions are kept by it.
    summary : mapping
        Of the scores.
    counts : mapping
        Of the preset shown: kinds and pictures.
    copies : int
        Of these without what was rejected by hand.
    preset : str
    shares : DataFrame
        From `share_by_copies`, of that preset.
    comparisons : sequence of Comparison
    missing : sequence of str
        What was not looked at.
    decided : mapping
        How many are ``confirmed`` and ``rejected``.
    rules : mapping
        Thresholds, and whether each is published or ours.
    """

    title: str
    identity: str
    summary: Mapping[str, Any]
    counts: Mapping[str, int]
    copies: int
    preset: str
    shares: pd.DataFrame
    comparisons: Sequence[Comparison] = ()
    missing: Sequence[str] = ()
    decided: Mapping[str, int] = field(default_factory=dict)
    rules: Sequence[tuple[str, str, str]] = ()


def write_verbatim_page(content: VerbatimContent, path: AnyPath) -> None:
    """Write the page: complete or absent."""
    with write_aside(path, durable=True) as temporary:
        temporary.write_text(render_verbatim_page(content), encoding="utf-8")


def render_verbatim_page(content: VerbatimContent) -> str:
    """Return the page as HTML."""
    from markupsafe import Markup

    style = page_file("page.css") + page_file("verbatim.css")
    script = page_file("verbatim.js")
    data = {
        "identity": content.identity,
        "pictures": content.summary.get("images_identity", ""),
        "decided": {one.image: one.decision for one in content.comparisons if one.decision},
    }
    return (
        page_environment()
        .get_template("verbatim.html")
        .render(
            content=content,
            pictures=sum(content.counts.values()),
            copies=content.copies,
            style=Markup(style),
            script=Markup(script),
            policy=(
                f"default-src 'none'; script-src '{policy_hash(script)}'; style-src "
                f"'{policy_hash(style)}'; img-src data:; base-uri 'none'; form-action 'none'"
            ),
            data=Markup(script_json(data)),
            chart=Markup(share_chart(content.shares)) if len(content.shares) else None,
        )
    )


def share_chart(shares: pd.DataFrame) -> str:
    """Draw the share of candidates copied over k, with intervals: SVG of numbers alone."""
    first, last = log2(shares["k_low"].min()), log2(shares["k_high"].max() + 1)
    span = max(last - first, 1.0)
    top = max(float(shares["high"].max()), 0.01)

    def x(k: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (log2(k) - first) / span

    def y(share: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share / top

    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="share of candidates copied, by their number of copies">'
    ]
    for step in range(5):
        share = top * step / 4
        parts.append(
            f'<path class="grid" d="M{_LEFT} {y(share):.1f}H{_WIDTH - _RIGHT}"/>'
            f'<text class="label" x="{_LEFT - 8}" y="{y(share) + 4:.1f}" text-anchor="end">'
            f"{100 * share:.{0 if top > 0.2 else 1}f} %</text>"
        )
    parts += [
        f'<text class="label" x="{x(2.0**power):.1f}" y="{_HEIGHT - 26}" '
        f'text-anchor="middle">{2**power:,}</text>'
        for power in range(ceil(first), int(last) + 1)
    ]
    parts.append(
        f'<text class="label" x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 6}" '
        f'text-anchor="middle">copies in the training data (k)</text>'
    )
    for row in shares.itertuples():
        middle = x((row.k_low * (row.k_high + 1)) ** 0.5)
        parts.append(
            f'<path class="line" d="M{middle:.1f} {y(row.low):.1f}V{y(row.high):.1f}"/>'
            f'<circle class="point" r="4.5" cx="{middle:.1f}" cy="{y(row.share):.1f}"/>'
            f'<text class="label" x="{middle + 8:.1f}" y="{y(row.share) - 8:.1f}">'
            f"{row.copied:,} of {row.candidates:,}</text>"
        )
    return "".join([*parts, "</svg>"])
