"""The page on which pairs are labelled: one pair at a time, with the keyboard.

It is made as the report page is: see `dask_dedup.report.page`. The similarity of a pair is shown
once it has a label, so that it does not decide.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import pandas as pd

from dask_dedup.paths import AnyPath
from dask_dedup.report.caption_words import mark_words
from dask_dedup.report.page import (
    clean_text,
    page_environment,
    page_file,
    page_script,
    policy_hash,
    script_json,
    web_link,
)
from dask_dedup.storage.files import digest_of, write_aside

__all__ = ["render_label_page", "write_label_page"]

_SIDES = ("src", "dst")
_FROM_THE_WEB = "data: http: https:"


def write_label_page(
    pairs: pd.DataFrame, pictures: Mapping[int, bytes], name: str, path: AnyPath
) -> None:
    """Write the page: complete or absent; see `render_label_page`."""
    with write_aside(path) as temporary:
        temporary.write_text(render_label_page(pairs, pictures, name), encoding="utf-8")


def render_label_page(pairs: pd.DataFrame, pictures: Mapping[int, bytes], name: str) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    pairs : DataFrame
        From `dask_dedup.results.pair_sample.sample_pairs`.
    pictures : mapping of int to bytes
        Small pictures, WebP, by ``row_id``; of rows that have any.
    name : str
        Of the CSV file that the page saves.
    """
    from markupsafe import Markup

    texts = pairs.assign(similarity=[str(one) for one in pairs["similarity"].to_numpy()])
    texts = texts.astype("str")
    shown = [_shown(row, pictures) for row in pairs.to_dict("records")]
    has_web = any(one["url"] and not one["picture"] for pair in shown for one in pair)
    data = {
        "identity": digest_of({"pairs": texts.to_csv(index=False)}),
        "name": name,
        "columns": list(texts.columns),
        "rows": texts.to_numpy().tolist(),
        "pairs": shown,
    }
    style, script = page_file("page.css") + page_file("label.css"), page_script("label.js")
    images = _FROM_THE_WEB if has_web else "data:"
    return (
        page_environment()
        .get_template("label.html")
        .render(
            count=len(pairs),
            name=name,
            has_web=has_web,
            style=Markup(style),
            script=Markup(script),
            policy=(
                f"default-src 'none'; script-src '{policy_hash(script)}'; style-src "
                f"'{policy_hash(style)}'; img-src {images}; base-uri 'none'; form-action 'none'"
            ),
            data=Markup(script_json(data)),
        )
    )


def _shown(row: Mapping[str, Any], pictures: Mapping[int, bytes]) -> list[dict[str, Any]]:
    """Return what is shown of both rows of a pair: JSON."""
    sides = []
    for side, other in zip(_SIDES, reversed(_SIDES), strict=True):
        content = pictures.get(int(row[side]))
        encoded = b64encode(content).decode() if content is not None else None
        words = mark_words(row[f"{side}_caption"], row[f"{other}_caption"])
        sides.append(
            {
                "row": int(row[side]),
                "url": web_link(row[f"{side}_url"]),
                "picture": f"data:image/webp;base64,{encoded}" if encoded else None,
                "words": [[clean_text(part.text), part.is_other] for part in words],
            }
        )
    return sides
