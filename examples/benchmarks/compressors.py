"""What compression costs across modalities: zero-shot, retrieval and neighbours, by kind and rate.

    python examples/benchmarks/compressors.py DATA --report FILE.md

DATA is a data set with img_emb and text_emb and, beside them, labels.parquet (row, split, class_id
with -1 for none, retrieval) and class_text_emb.npy (one row a class). Every compressor is fitted on
the images and texts of the train rows alone, which it splits itself for early stopping; the test
rows are looked at once, here. FILE.json gets the figures of every seed.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from dask_dedup import Dataset, NetworkSettings, fit_compressor, read_dataset
from dask_dedup.data.part_rows import gather_by_row
from dask_dedup.evaluate.retrieval import retrieval_recall
from dask_dedup.evaluate.zeroshot import zeroshot_accuracy

METHODS = {
    "PCA (images' axes, uncentred)": ("pca", {}),
    "MSE": ("mse", {}),
    "SNIP hard": ("snip", {"hard": True}),
    "SNIP soft": ("snip", {}),
}
NEIGHBOURS = 10
MEASURES = {
    "zero_shot": "zero-shot, mean over classes",
    "image_text_1": "image → text @1",
    "image_text_5": "@5",
    "text_image_1": "text → image @1",
    "text_image_5": "@5",
    "neighbours": f"{NEIGHBOURS} image neighbours kept",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--report", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--dims", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=None, help="other than the default")
    options = parser.parse_args()
    data = read_dataset(options.data)
    labels = pd.read_parquet(options.data / "labels.parquet").sort_values("row")
    test = Measured(data, labels, np.load(options.data / "class_text_emb.npy"))
    results = [{"dim": data.dim, "method": "raw", "seed": None, **test.measure(unit)}]
    with tempfile.TemporaryDirectory() as folder:
        train = write_rows(data, (labels["split"] == "train").to_numpy(), Path(folder))
        for dim, name, seed in runs(options.dims, options.seeds):
            kind, changes = METHODS[name]
            if options.epochs:
                changes = {**changes, "epochs": options.epochs}
            began = time.perf_counter()
            model = fit_compressor(
                train, kind, dim, modality="both", settings=NetworkSettings(**changes), seed=seed
            )
            seconds = round(time.perf_counter() - began, 1)
            best = model.header.statistics.get("best_epoch")
            found = test.measure(model.transform)
            entry = {"dim": dim, "method": name, "seed": seed, **found}
            results.append({**entry, "best_epoch": best, "seconds": seconds})
            print(json.dumps(results[-1]), flush=True)
    options.report.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    options.report.write_text(report(options, results, test), encoding="utf-8")


def runs(dims: list[int], seeds: list[int]) -> Iterator[tuple[int, str, int]]:
    """What is fitted; a PCA of all train rows is the same for every seed."""
    for dim in dims:
        for name, (kind, _) in METHODS.items():
            for seed in seeds[:1] if kind == "pca" else seeds:
                yield dim, name, seed


class Measured:
    """The test rows, and what is measured of them under a compression."""

    def __init__(self, data: Dataset, labels: pd.DataFrame, classes: np.ndarray) -> None:
        test = (labels["split"] == "test").to_numpy()
        rows = np.flatnonzero(test)
        self.images = gather_by_row(data.parts, rows)
        self.texts = gather_by_row(data.view("text").parts, rows)
        self.classes = classes
        self.class_id = labels["class_id"].to_numpy()[test]
        self.pool = labels["retrieval"].to_numpy(bool)[test]
        self.near = neighbours(unit(self.images))

    def measure(self, compress: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
        """Return every measure as a share."""
        images, texts = compress(self.images), compress(self.texts)
        labelled = self.class_id >= 0
        zero_shot = zeroshot_accuracy(
            images[labelled], compress(self.classes), self.class_id[labelled]
        )
        found: dict[str, float] = {"zero_shot": zero_shot["mean_top1"]}
        pairs = images[self.pool], texts[self.pool]
        for name, (queries, targets) in (("image_text", pairs), ("text_image", pairs[::-1])):
            recalls = retrieval_recall(queries, targets, (1, 5))
            found |= {f"{name}_{k}": recalls[f"recall@{k}"] for k in (1, 5)}
        kept = [
            np.intersect1d(a, b).size for a, b in zip(neighbours(images), self.near, strict=True)
        ]
        return {**found, "neighbours": float(np.mean(kept)) / NEIGHBOURS}


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def neighbours(rows: np.ndarray) -> np.ndarray:
    """Return the nearest other rows of each row, by cosine."""
    scores = rows @ rows.T
    np.fill_diagonal(scores, -np.inf)
    return np.argpartition(-scores, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]


def write_rows(data: Dataset, wanted: np.ndarray, folder: Path) -> Dataset:
    """Write some rows of a data set as a data set of their own, with the same parts."""
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir()
    for part, text in zip(data.parts, data.view("text").parts, strict=True):
        chosen = wanted[part.row_start : part.row_stop]
        for name, file in (("img_emb", part.embeddings), ("text_emb", text.embeddings)):
            np.save(folder / name / Path(file.path).name, file.map()[chosen])
        table = pq.read_table(part.metadata_path).filter(chosen)
        pq.write_table(table, folder / "metadata" / Path(part.metadata_path).name)
    return read_dataset(folder)


def report(options: argparse.Namespace, results: list[dict], test: Measured) -> str:
    frame = pd.DataFrame(results)
    lines = [
        "# Compressors across modalities",
        "",
        f"Fitted on the train rows, measured on {len(test.images):,} test rows: zero-shot over "
        f"{len(test.classes)} classes ({int((test.class_id >= 0).sum()):,} rows), retrieval among "
        f"{int(test.pool.sum()):,} pairs. Percent; mean over the seeds "
        f"{', '.join(map(str, options.seeds))}, and half their range.",
        "",
        "| D | method | " + " | ".join(MEASURES.values()) + " | fit, s |",
        "|---|---" + "|---" * (len(MEASURES) + 1) + "|",
    ]
    for (dim, name), group in frame.groupby(["dim", "method"], sort=False):
        cells = []
        for measure in MEASURES:
            values = 100 * group[measure]
            spread = f" ± {(values.max() - values.min()) / 2:.1f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.1f}{spread}")
        seconds = group["seconds"].mean()
        cells.append("–" if np.isnan(seconds) else f"{seconds:.0f}")
        lines.append(f"| {dim} | {name} | " + " | ".join(cells) + " |")
    settings = NetworkSettings().model_dump()
    arguments = f"--dims {' '.join(map(str, options.dims))} "
    arguments += f"--seeds {' '.join(map(str, options.seeds))}"
    arguments += f" --epochs {options.epochs}" if options.epochs else ""
    lines += [
        "",
        f"Settings: {', '.join(f'{key} {value}' for key, value in settings.items())}.",
        "",
        f"`python examples/benchmarks/compressors.py DATA --report FILE {arguments}`, on "
        f"{platform.machine()}, Python {platform.python_version()}, one thread.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
