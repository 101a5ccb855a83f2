"""The page of scored pictures, and their shares without those that a person has rejected."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from PIL import Image

from dask_dedup.errors import OutputError, SettingsError
from dask_dedup.paths import AnyPath, absolute_name, as_path
from dask_dedup.report.verbatim_page import Comparison, VerbatimContent, write_verbatim_page
from dask_dedup.storage.claim import Claim
from dask_dedup.storage.files import read_frame, read_json, write_aside
from dask_dedup.storage.listing import names_in
from dask_dedup.storage.objects import open_parquet_source, read_content
from dask_dedup.verbatim.candidates import CANDIDATES, CAPTIONS
from dask_dedup.verbatim.encoder import COPY_COSINE
from dask_dedup.verbatim.pictures import PictureError, read_picture
from dask_dedup.verbatim.prompts import read_candidates
from dask_dedup.verbatim.score import SCORES, TRAINING, ScoreFolder
from dask_dedup.verbatim.share_copied import share_by_copies
from dask_dedup.verbatim.squared_errors import Thresholds, template_mask
from dask_dedup.verbatim.tiles import EideticThresholds
from dask_dedup.verbatim.verdicts import read_verdicts

__all__ = ["report"]

PAGE, SHARES, VERDICTS = "index.html", "shares.csv", "verdicts.csv"
_SIDE, _QUALITY = 144, 78


def report(
    dest: str | AnyPath, verdicts: str | AnyPath | None = None, pictures: int = 200
) -> dict[str, Any]:
    """Write the page of the scores in ``dest``; computes.

    Parameters
    ----------
    dest : path or URL
        Of `score`; gets a folder ``report`` with ``index.html`` and ``shares.csv``.
    verdicts : path or URL, optional
        ``verdicts.csv`` as the page saves it; kept in ``report``. Without, those that are there.
    pictures : int
        Generated pictures shown, at most: the nearest to being copies, or copies most of all.

    Returns
    -------
    dict
        ``page``: its path; ``shown``, ``confirmed``, ``rejected``: pictures.

    Raises
    ------
    OutputError
        There are no scores, or ``report`` holds something else.
    InputError, SettingsError
        Of ``verdicts`` or ``pictures``.
    """
    if pictures < 0:
        raise SettingsError(f"pictures: expected 0 or more, got {pictures}.")
    dest = as_path(absolute_name(dest))
    state = read_json(dest / "scores" / ScoreFolder.state_name, sealed=True)
    summary = read_json(dest / "scores/summary.json")
    if not isinstance(state, dict) or not state.get("finished") or not isinstance(summary, dict):
        raise OutputError(f"{dest}: holds no scores. Make them with `dask-dedup verbatim score`.")
    if summary["candidates_identity"] != read_candidates(dest).identity:
        raise OutputError(
            f"{dest}: its scores are of other candidates than those that are there now. Make them "
            f"anew with `dask-dedup verbatim score --overwrite`."
        )
    scores = read_frame(dest / "scores" / SCORES)
    folder = dest / "report"
    with Claim(folder, lambda: _refuse_others(folder)):
        there = folder / VERDICTS
        source = as_path(verdicts) if verdicts is not None else there
        has_verdicts = verdicts is not None or VERDICTS in (names_in(folder) or ())
        identity = summary.get("images_identity", "")  # of earlier scores there is none
        words = read_verdicts(source, set(scores["image"]), identity) if has_verdicts else {}
        kept = scores.copy()
        kept.loc[kept["image"].map(words) == "rejected", "kind"] = "none"
        shares = share_by_copies(kept)
        content = _content(dest, str(state["digest"]), summary, scores, shares, words, pictures)
        if words:
            decided = pd.DataFrame({"image": [*words], "verdict": [*words.values()]})
            _write_csv(there, decided.assign(pictures=identity))
        _write_csv(folder / SHARES, shares)
        write_verbatim_page(content, folder / PAGE)
    counts = {
        word: sum(one == word for one in words.values()) for word in ("confirmed", "rejected")
    }
    return {"page": str(folder / PAGE), "shown": len(content.comparisons), **counts}


def closeness_of(scores: pd.DataFrame) -> pd.Series:
    """Return how far each score is from being a copy: below 1 is one, whatever the preset."""
    ratio = scores["score"] / scores["threshold"]
    return ratio.where(scores["preset"] != "sscd", 1 / ratio.clip(lower=1e-6))


def _content(
    dest: AnyPath,
    identity: str,
    summary: Mapping[str, Any],
    scores: pd.DataFrame,
    shares: pd.DataFrame,
    words: Mapping[str, str],
    pictures: int,
) -> VerbatimContent:
    preset = summary["settings"]["rules"]["presets"][0]
    scores = scores.assign(closeness=closeness_of(scores))
    own = scores[scores["preset"] == preset].sort_values(["closeness", "image"]).head(pictures)
    texts = (
        scores[scores["image"].isin(own["image"])]
        .groupby("image")
        .apply(lambda rows: [_verdict(row) for row in rows.itertuples()], include_groups=False)
    )
    paths = read_frame(dest / "scores" / TRAINING).set_index("row_id")["path"].to_dict()
    captions = read_frame(dest / "candidates" / CAPTIONS)
    captions = captions[captions["is_prompt"]].groupby("candidate")["caption"].first()
    urls = pq.read_table(
        open_parquet_source(dest / "candidates" / CANDIDATES), columns=["candidate", "url"]
    ).to_pandas()
    urls = urls.set_index("candidate")["url"].to_dict()
    comparisons = [
        Comparison(
            image=row.image,
            candidate=row.candidate,
            row_id=row.row_id if row.kind == "template" else row.other_row_id,
            k=row.k,
            kind=row.kind,
            closeness=round(row.closeness, 6),
            verdicts=texts[row.image],
            caption=captions.get(row.candidate, ""),
            url=urls.get(row.candidate),
            decision=words.get(row.image, ""),
            **_pictures(row, paths),
        )
        for row in own.itertuples()
    ]
    counts = scores.loc[scores["preset"] == preset, "kind"].value_counts().sort_index()
    is_copy = (scores["preset"] == preset) & (scores["kind"] != "none")
    is_rejected = scores["image"].map(words) == "rejected"
    decided = {
        w: n for w in ("confirmed", "rejected") if (n := sum(v == w for v in words.values()))
    }
    return VerbatimContent(
        title=_title(dest),
        identity=identity,
        summary=summary,
        counts={str(kind): int(number) for kind, number in counts.items()},
        copies=int((is_copy & ~is_rejected).sum()),
        preset=preset,
        shares=shares[shares["preset"] == preset],
        comparisons=comparisons,
        missing=_missing(summary, len(own), int(counts.sum())),
        decided=decided,
        rules=_rules(summary["settings"]["rules"]),
    )


def _verdict(row: Any) -> str:
    text = f"{row.preset}: {row.kind}"
    text += f", {row.score:,.4g} (threshold {row.threshold:,g})"
    if row.preset == "carlini":
        text += f", {int(row.within):,} of the training pictures looked at within it"
        if row.clique:
            text += f", in a clique of {int(row.clique)}"
    return text


def _pictures(row: Any, paths: Mapping[int, str]) -> dict[str, str | None]:
    """Return the ``data:`` URLs of what is shown for a picture."""
    made = _read(row.image)
    is_template = row.kind == "template"
    real = _read(paths.get(row.row_id if is_template else row.other_row_id))
    found: dict[str, str | None] = {
        "generated": _as_url(made),
        "original": _as_url(real),
        "mask": None,
        "difference": None,
    }
    if made is not None and real is not None:
        found["difference"] = _as_url(np.sqrt(np.abs(made - real)))  # small ones are to be seen
        other = _read(paths.get(row.other_row_id)) if is_template else None
        if other is not None:
            mask = template_mask(real, other)[..., None]
            found["mask"] = _as_url(np.where(mask, real, np.float32(0.5)))
    return found


def _read(path: str | None) -> np.ndarray | None:
    if path is None:
        return None
    try:
        return read_picture(read_content(as_path(path)))
    except (OSError, PictureError):
        return None


def _as_url(picture: np.ndarray | None) -> str | None:
    if picture is None:
        return None
    file = BytesIO()
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))
    image.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS).save(file, "WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{b64encode(file.getvalue()).decode()}"


def _title(dest: AnyPath) -> str:
    state = read_json(dest / "generated/generated.json", sealed=True)
    return str(state["model"]["name"]) if isinstance(state, dict) else str(dest)


def _missing(summary: Mapping[str, Any], shown: int, scored: int) -> list[str]:
    lines = {
        "without_images": "candidates have no generated picture that could be read.",
        "without_training": "candidates have no training picture that could be read.",
        "own_picture_missing": "candidates were compared with copies of their picture alone.",
        "images_unknown": "pictures belong to no candidate.",
        "copies_left_out": "candidates have more copies than they were compared with.",
        "without_caption": "pictures as frequent are no candidates: they have no caption.",
        "unranked": "prompts had no rank: the model does not show it.",
    }
    found = [f"{summary[name]:,} {text}" for name, text in lines.items() if summary.get(name)]
    if shown < scored:
        found.append(f"{scored - shown:,} scored pictures are not shown here: scores.csv has all.")
    if summary.get("unfinished"):
        found.append("Generation was stopped before it had made all pictures.")
    found += [f"{count:,} files: {word}." for word, count in summary["problems"].items()]
    return found


def _rules(rules: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the thresholds that were used, each published, changed, or ours."""
    source = {
        "webster": "published: arXiv 2305.08694",
        "carlini": "published: arXiv 2301.13188",
    }
    ours = {
        ("webster", "smallest_mask"): "ours",
        ("carlini", "joined"): "LeakPro's; never published by the authors",
    }
    rows = []
    for preset, defaults in (("webster", Thresholds()), ("carlini", EideticThresholds())):
        if preset not in rules["presets"]:
            continue
        for name, value in asdict(defaults).items():
            used = rules[preset][name]
            origin = ours.get((preset, name), source[preset]) if used == value else "ours: changed"
            rows.append((f"{preset}: {name.replace('_', ' ')}", f"{used:,g}", origin))
    if "sscd" in rules["presets"]:
        is_default = rules["copy_cosine"] == COPY_COSINE
        origin = "published for SSCD disc_mixup: 90 % precision on DISC" if is_default else "ours"
        rows.append(("sscd: cosine", f"{rules['copy_cosine']:g}", origin))
    return rows


def _write_csv(path: AnyPath, table: pd.DataFrame) -> None:
    with write_aside(path) as temporary:
        table.to_csv(temporary, index=False)


def _refuse_others(folder: AnyPath) -> None:
    own = {PAGE, SHARES, VERDICTS}
    foreign = [n for n in sorted(names_in(folder) or ()) if n not in own and not n.startswith(".")]
    if foreign:
        raise OutputError(
            f"{folder}: holds {foreign[0]}, which is not of this tool. Choose another folder."
        )
