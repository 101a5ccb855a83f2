"""How well the presets of `verbatim score` tell copies: pseudo-generations with known answers.

    python examples/benchmarks/verbatim_presets.py OUT FOLDER [--candidates 160] [--encoder FILE]

OUT is a finished run whose data set has pictures in ``images``. Of each candidate pictures are made
in FOLDER, as a model might make them, all of them JPEG of quality 60 with noise added:

- matching: its own picture; retrieved: the least similar member of its group;
- template: its own picture, with another one where the two are not alike (only candidates that have
  a mask by the published rule);
- altered: its own picture with a quarter of the area from another one;
- none: a picture of another cluster.

A table tells what each preset called them, and a second one how many of each kind lie below some
thresholds of three distances: the sum of squares, the same divided by that of the training picture
to its mean (ours), and the tiled distance.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dask_dedup.results.pictures import PictureTemplate, find_template
from dask_dedup.runtime.executor import NoProgress, compute_tasks
from dask_dedup.storage.files import read_json
from dask_dedup.verbatim.candidates import CandidateSettings, find_candidates
from dask_dedup.verbatim.pictures import read_picture
from dask_dedup.verbatim.score import ScoreSettings, score
from dask_dedup.verbatim.score_tasks import Rules
from dask_dedup.verbatim.squared_errors import squared_error, template_masks
from dask_dedup.verbatim.tiles import tiled_distance
from dask_dedup.verbatim.training import gather_pictures

KINDS = ("matching", "retrieved", "template", "altered", "none")
LIMITS = {
    "squares": (1000, 2500, 3000),
    "relative": (0.1, 0.3, 0.5),
    "tiled": (0.05, 0.1, 0.15),
}


def main() -> None:
    """Make the pictures, score them, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--candidates", type=int, default=160)
    parser.add_argument("--encoder", default="")
    given = parser.parse_args()
    dest = given.folder
    find_candidates(given.out, dest, CandidateSettings(top=given.candidates, smallest=3))
    truth, distances = make_pictures(given.out, dest)
    presets = ("webster", "carlini", *(["sscd"] if given.encoder else []))
    settings = ScoreSettings(Rules(presets, encoder=given.encoder), images=str(dest / "made"))
    score(dest, settings, overwrite=True)
    scores = pd.read_parquet(dest / "scores/scores.parquet")
    scores["made as"] = [truth[Path(image).name] for image in scores["image"]]
    for preset, own in scores.groupby("preset"):
        print(f"\n{preset}, {len(own)} pictures")
        table = pd.crosstab(own["made as"], own["kind"]).reindex(KINDS, fill_value=0)
        print(table.to_string())
    print("\npictures below a threshold")
    for name, limits in LIMITS.items():
        for limit in limits:
            below = distances[distances[name] < limit]["made as"].value_counts()
            print(f"{name} {limit:g}:", *(f"{kind} {below.get(kind, 0)}," for kind in KINDS))
    print("of", *(f"{kind} {(distances['made as'] == kind).sum()}," for kind in KINDS))


def make_pictures(out: Path, dest: Path) -> tuple[dict[str, str], pd.DataFrame]:
    """Write the pseudo-generations into ``dest/made``; return what each is, and its distances."""
    rng = np.random.default_rng(0)
    tables = [
        pq.read_table(dest / f"candidates/{name}.parquet") for name in ("candidates", "members")
    ]
    candidates, members = (table.to_pandas() for table in tables)
    data = Path((read_json(out / "summary.json") or {})["dataset"])
    columns = [name.removeprefix("source_") for name in tables[1].column_names]
    template = PictureTemplate(find_template(data, columns) or "", data, columns)
    clusters = pq.read_table(out / "clusters").to_pandas().set_index("row_id")
    others = rng.choice(clusters.index[clusters["cluster_size"] == 1], 2 * len(candidates), False)
    strangers = pa.Table.from_pandas(clusters.loc[others].reset_index(), preserve_index=False)
    paths = gather_pictures(dest, [*tables, strangers], template, compute_tasks, NoProgress()).paths

    def picture(row_id: int) -> np.ndarray:
        return read_picture(Path(paths[row_id]).read_bytes())

    folder = dest / "made"
    folder.mkdir(exist_ok=True)
    truth, distances = {}, []
    for place, row in enumerate(candidates.itertuples()):
        ids = members[members["candidate"] == row.candidate].sort_values("similarity")["row_id"]
        own, copies = picture(row.row_id), [picture(row_id) for row_id in ids]
        stranger, patch = picture(others[2 * place]), picture(others[2 * place + 1])
        made = {
            "matching": own,
            "retrieved": copies[0],
            "altered": replaced(own, patch, rng),
            "none": stranger,
        }
        masks = template_masks(own, copies)
        if masks:
            made["template"] = np.where(masks[0][1][..., None], own, patch)
        for kind, values in made.items():
            name = f"{row.candidate:06d}-{kind}.png"
            given = noisy(values, rng)
            Image.fromarray(given).save(folder / name)
            truth[name] = kind
            distances.append((kind, *nearest(given.astype(np.float32) / 255, [own, *copies])))
    return truth, pd.DataFrame(distances, columns=["made as", *LIMITS])


def nearest(made: np.ndarray, training: list[np.ndarray]) -> tuple[float, float, float]:
    """Return the least distance to a training picture: of squares, relative, tiled."""
    squares = [squared_error(made, one) for one in training]
    spreads = [max(squared_error(one, one * 0 + one.mean((0, 1))), 1e-9) for one in training]
    tiled = [tiled_distance(made, one) for one in training]
    relative = min(error / spread for error, spread in zip(squares, spreads, strict=True))
    return min(squares), relative, min(tiled)


def noisy(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a picture as JPEG of quality 60 keeps it, with noise of deviation 0.02: uint8."""
    file = io.BytesIO()
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(file, "JPEG", quality=60)
    again = np.asarray(Image.open(file), np.float64) / 255
    again += rng.normal(0, 0.02, again.shape)
    return (np.clip(again, 0, 1) * 255).round().astype(np.uint8)


def replaced(picture: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a picture with a quarter of its area, somewhere, from another one."""
    side = len(picture) // 2
    y, x = rng.integers(0, side, 2)
    result = picture.copy()
    result[y : y + side, x : x + side] = other[y : y + side, x : x + side]
    return result


if __name__ == "__main__":
    main()
