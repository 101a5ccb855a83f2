"""The page as HTML, read by a parser: what is hostile stays text."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pandas as pd
import pytest

from dask_dedup.report.caption_words import mark_words
from dask_dedup.report.page import clean_text, render_page, script_json, web_link
from dask_dedup.report.page_parts import Card, PageContent, Placeholder, Site, Step, Tab, Tile

HOSTILE = [
    "<script>alert(1)</script>",
    "</script></style></title><script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "{{ content.__class__ }}{% include 'x' %}",
    "a\x00b\x1b[31m\u202egpj\u2028",
    "x" * 100_000,
    "\ud800",
    "&amp;&lt;",
    "עברית",
]
SUMMARY = {
    "dataset": "data",
    "rows": 100,
    "dropped": 30,
    "kept": 70,
    "duplicates": 31,
    "clusters": 60,
    "clusters_of_two_or_more": 11,
    "largest_cluster": 9,
    "invalid_rows": 3,
    "threshold": 0.95,
    "search_threshold": 0.9,
    "linkage": "star",
    "is_verified": True,
    "linked_through_others": {"rows": 4, "share": 0.1, "below_0.8": 1, "lowest": 0.5},
    "audit": None,
    "stages": [{"name": "fit", "seconds": 1.0, "rows_per_second": 100.0}],
    "wall_seconds": 2.0,
    "workers": 1,
    "peak_memory_bytes": 10**9,
    "parts": 1,
    "dim": 8,
    "bad_files": [],
    "versions": {"dask_dedup": "0"},
}
HISTOGRAM = pd.DataFrame({"cluster_size": [1, 2], "clusters": [49, 11], "rows": [49, 22]})


def tile(text, row=1):
    return Tile(row, "goes", text, 0.97, text, text, text, text, mark_words(text, "other"))


def content(text="plain", **changes):
    one = tile(text)
    cards = [
        Card(text, text, one, [tile(text, 2), tile(text, 3)]),
        Card(text, text, path=[Step(one, 0.96, True), Step(tile(text, 4), None)]),
    ]
    bad = [{"path": text, "rows": 3, "problem": text}]
    whole = {
        "summary": {**SUMMARY, "dataset": text, "bad_files": bad},
        "identity": "0123",
        "histogram": HISTOGRAM,
        "tabs": [Tab("largest", "Largest", "lead", cards), Tab("below", "Below", "", (), text)],
        "placeholders": [Placeholder(one, 1, 9, 8, 7, 6, False)],
        "sites": [Site(text, 9, 5)],
        "reasons": {text: 3},
        "settings": {"read": {"url_column": text, text: "a"}},
        "has_web_pictures": True,
    }
    return PageContent(**{**whole, **changes})


class Seen(HTMLParser):
    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.inside = [], "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self.inside[-1:]):
            self.text += data


PLAIN = {tag for tag, _ in Seen(render_page(content())).tags}


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_text_wherever_it_stands(text):
    html = render_page(content(text))
    seen = Seen(html)
    assert {tag for tag, _ in seen.tags} == PLAIN
    assert [tag for tag, _ in seen.tags].count("script") == 2
    for tag, attributes in seen.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("href", "src", "data-url"):
            assert (attributes.get(name) or "https:").startswith(("https:", "http:", "data:image/"))
        assert "style" not in attributes
    if len(text) < 1000:
        assert clean_text(text) in seen.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e\u2028]", html)
    html.encode("utf-8")
    assert len(html) < 3_000_000


def test_policy_allows_our_script_and_style_alone():
    html = render_page(content())
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    policy = policy.replace("&#39;", "'")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    for name, (body,) in (("script-src", scripts), ("style-src", styles)):
        digest = b64encode(sha256(body.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data: http: https:"
    alone = render_page(content(has_web_pictures=False))
    assert "img-src data:; " in alone


def test_json_cannot_end_its_script():
    text = script_json({"</script><!--": "<&>\u2028\u2029"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"</script><!--": "<&>\u2028\u2029"}
    with pytest.raises(ValueError, match="JSON"):
        script_json(float("nan"))


@pytest.mark.parametrize(
    ("url", "is_link"),
    [
        ("https://a.example/b.jpg", True),
        ("HTTP://a.example", True),
        ("http://[::1]/", True),
        ("javascript:alert(1)", False),
        ("java\nscript:alert(1)", False),
        (" https://a.example", False),
        ("data:text/html,x", False),
        ("file:///etc/passwd", False),
        ("//a.example/b", False),
        ("https://", False),
        ("https:///a", False),
        ("http://[bad", False),
        ("https://a.example/\u202e", False),
        ("https://a.example/" + "x" * 2000, False),
        ("", False),
        (None, False),
    ],
)
def test_web_link_takes_http_with_a_host_alone(url, is_link):
    assert web_link(url) == (url if is_link else None)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"tabs": [Tab("largest", "Largest", "", (), "No row.")]}, "No row."),
        ({"placeholders": []}, "no large cluster is one picture"),
        ({"sites": []}, "No row goes."),
        ({"reasons": {}}, "Every row has a usable embedding."),
        ({"site_error": 12}, "at most 12 too low"),
        ({"sweep_absent": "quantized"}, "quantized"),
        ({"pictures_wanted": 9, "pictures_found": 4}, "4 of 9 rows shown"),
        ({"histogram": HISTOGRAM[:0]}, "can go"),
    ],
)
def test_what_is_not_there_is_said(changes, text):
    assert text in " ".join(Seen(render_page(content(**changes))).text.split())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"audit": None}, "the audit was switched off"),
        ({"audit": {"queries": 5, "queries_with_pairs": 0}}, "None of 5 rows drawn at random"),
        (
            {
                "audit": {
                    "queries": 50,
                    "queries_with_pairs": 20,
                    "all_united": 19,
                    "all_united_share": 0.95,
                    "all_united_low": 0.7513,
                    "all_united_high": 0.9987,
                }
            },
            "Found: 95.00 % (95 % interval 75.13 % to 99.87 %). Of 50 rows drawn at random",
        ),
        ({"linkage": "components"}, "One row of each cluster stays; rows are in one cluster"),
        ({"is_verified": False}, "quantized distances"),
        ({"dropped_by_cap": 2, "dropped_by_decision": 1}, "a row that stays, but for 3 that go"),
        ({"rows": 0, "dropped": 0, "stages": []}, "0 of 0 rows can go"),
    ],
)
def test_the_headline_says_what_was_done(changes, text):
    html = render_page(content(summary={**SUMMARY, **changes}))
    assert text in " ".join(Seen(html).text.split())


def test_the_plan_stands_beside_what_the_stages_took():
    stages = [{"name": name, "seconds": 7.0, "rows_per_second": None} for name in ("fit", "join")]
    summary = {**SUMMARY, "stages": stages, "planned_seconds": {"fit": 3.21}}
    text = " ".join(Seen(render_page(content(summary=summary))).text.split())
    assert "stageplannedsecondsrows/s" in text
    assert "fit3.27.0–" in text
    assert "join–7.0–" in text
    assert "planned" not in Seen(render_page(content())).text


def test_a_summary_of_an_earlier_version_is_shown():
    summary = {k: v for k, v in SUMMARY.items() if k not in ("dropped", "kept", "linkage")}
    del summary["linked_through_others"]
    html = render_page(content(summary={**summary, "linkage": "components"}))
    assert "31 of 100 rows can go" in " ".join(Seen(html).text.split())
