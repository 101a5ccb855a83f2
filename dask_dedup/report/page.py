"""The report page: one HTML file, with style, script, data and pictures inside.

All text that comes from the data set is hostile: Jinja2 escapes it, control characters are shown by
their number, JSON cannot end its script element, and a content security policy allows the one
script of ours, by its hash.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dask_dedup.paths import AnyPath
from dask_dedup.report.count_text import cosine_text, count_text
from dask_dedup.report.histogram import bin_sizes
from dask_dedup.report.page_charts import histogram_chart, sweep_chart
from dask_dedup.report.page_parts import PageContent
from dask_dedup.storage.files import write_aside

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment

__all__ = [
    "clean_text",
    "page_environment",
    "page_file",
    "page_script",
    "policy_hash",
    "render_page",
    "script_json",
    "web_link",
    "write_page",
]

_FOLDER = "page_files"
#: Control characters, and those that reverse what is written around them.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_MOST_LINK = 2000
_MOST_SETTING = 2000  # characters: a list of columns may be long
_FROM_THE_WEB = "data: http: https:"


def write_page(content: PageContent, path: AnyPath) -> None:
    """Write the page: complete or absent."""
    with write_aside(path, durable=True) as temporary:
        temporary.write_text(render_page(content), encoding="utf-8")


def render_page(content: PageContent) -> str:
    """Return the page as HTML."""
    from markupsafe import Markup

    style, script = page_file("page.css"), page_script("page.js")
    pictures = _FROM_THE_WEB if content.has_web_pictures else "data:"
    sweep, histogram = content.sweep, content.histogram
    precision = None if content.precision is None else content.precision.dropna(subset="precision")
    has_chart = sweep is not None and len(sweep) > 1
    threshold = content.summary["threshold"]
    bins = bin_sizes(histogram)
    data = {
        "identity": content.identity,
        "threshold": threshold,
        "sweep": None if sweep is None else _columns(sweep),
        "precision": None if precision is None else _columns(precision),
        "histogram": _columns(histogram),
        "load": content.load_urls,
    }
    return (
        page_environment()
        .get_template("page.html")
        .render(
            content=content,
            summary=content.summary,
            # What is ours alone, and no text of the data set's.
            style=Markup(style),
            script=Markup(script),
            policy=(
                f"default-src 'none'; script-src '{policy_hash(script)}'; style-src "
                f"'{policy_hash(style)}'; img-src {pictures}; base-uri 'none'; form-action 'none'"
            ),
            data=Markup(script_json(data)),
            sweep_chart=Markup(sweep_chart(sweep, threshold, precision)) if has_chart else None,
            histogram_chart=Markup(histogram_chart(histogram)),
            bins=bins,
            most_rows=max((rows for _, _, rows in bins), default=1),
        )
    )


def _columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    return {name: table[name].tolist() for name in table}


def script_json(value: Any) -> str:
    """Return JSON that may stand in a script element: it holds no character of markup."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def web_link(url: str | None) -> str | None:
    """Return a URL that may be a link or a picture: http or https, with a host; else None."""
    if not url or len(url) > _MOST_LINK or _UNSEEN.search(url) or any(c.isspace() for c in url):
        return None
    try:
        parts = urlsplit(url)
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
            return None
    except ValueError:
        return None
    return url


def clean_text(text: str) -> str:
    r"""Return a text with what cannot be seen, or moves other text, by its number.

    Examples
    --------
    >>> clean_text("a\x1bb\u202ec")
    'a\\x1bb\\u202ec'
    """
    return _UNSEEN.sub(_number, text)


def _number(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


@cache
def page_environment() -> Environment:
    """Return what fills templates of `page_files`: it escapes, and refuses missing names."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        if value is None:
            return ""
        return clean_text(value) if type(value) is not Markup and isinstance(value, str) else value

    environment = Environment(
        loader=PackageLoader("dask_dedup.report", _FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=lambda number: f"{number:,}",
        percent=_percent,
        counted=count_text,
        link=web_link,
        setting=_setting,
        short=_short_url,
        bytes=_bytes,
        cosine=cosine_text,
    )
    return environment


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        value = ", ".join(f"{key} = {one}" for key, one in value.items())
    return "–" if value is None else str(value)[:_MOST_SETTING]


def _short_url(url: str | None) -> str:
    """Return the end of a URL, which tells more than its begin."""
    if not url:
        return "no URL"
    tail = url.rstrip("/").rpartition("/")[2] or url
    return tail if len(tail) <= 40 else f"…{tail[-39:]}"


def _bytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def page_file(name: str) -> str:
    """Return the text of a file of `page_files`."""
    return (files("dask_dedup.report") / _FOLDER / name).read_text(encoding="utf-8")


def page_script(name: str) -> str:
    """Return the script of a page, with what pages share before it."""
    return page_file("common.js") + page_file(name)


def policy_hash(text: str) -> str:
    """Return how a content security policy names an inline script or style."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
