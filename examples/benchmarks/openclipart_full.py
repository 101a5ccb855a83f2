"""Make a data set of the example's vectors and Debian's drawings at their full size.

    python examples/benchmarks/openclipart_full.py PICTURES TARGET

PICTURES is the folder of Debian's package openclipart-png, /usr/share/openclipart/png. The 8,102
rows of examples/data/clipart that are drawings, and no planted copies of one, become a data set in
TARGET: ``images/{key}.png`` are links to the drawings.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

EXAMPLE = Path(__file__).parents[1] / "data/clipart"
SOURCE = "debian:openclipart-png/"


def main() -> None:
    """Write the data set; one that is there is made anew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pictures", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    if not given.pictures.is_dir():
        parser.error(f"{given.pictures}: no such folder. On Debian: apt install openclipart-png")
    shutil.rmtree(given.target, ignore_errors=True)
    for name in ("img_emb", "metadata", "images"):
        (given.target / name).mkdir(parents=True)
    rows = 0
    for path in sorted((EXAMPLE / "metadata").glob("*.parquet")):
        part = path.stem.removeprefix("metadata_")
        table = pd.read_parquet(path)
        is_drawing = ~table["url"].str.contains("#")  # a planted copy ends in #transform
        vectors = np.load(EXAMPLE / f"img_emb/img_emb_{part}.npy")[is_drawing.to_numpy()]
        table = table[is_drawing]
        np.save(given.target / f"img_emb/img_emb_{part}.npy", vectors)
        table.to_parquet(given.target / f"metadata/metadata_{part}.parquet", index=False)
        for key, url in zip(table["key"], table["url"], strict=True):
            drawing = given.pictures.absolute() / url.removeprefix(SOURCE)
            if not drawing.is_file():
                parser.error(f"{drawing}: is missing; is this openclipart-png 1:0.18+dfsg?")
            (given.target / f"images/{key}.png").symlink_to(drawing)
        rows += len(table)
    print(f"{given.target}: {rows:,} drawings at full size")


if __name__ == "__main__":
    main()
