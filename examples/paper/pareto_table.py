"""Print what `dask-dedup evaluate pareto` has measured as two tables of Markdown.

    python examples/paper/pareto_table.py OUT

The first: recall@10 of each model and index at its slowest setting, where the codes alone are the
limit. The second: the front of recall@10 and queries per second.
"""

import sys
from pathlib import Path

import pandas as pd


def main(out: Path) -> None:
    """Read OUT/pareto.csv and print."""
    measured = pd.read_csv(out / "pareto.csv")
    measured["index"] = measured["factory"].str.replace(r"IVF\d+", "IVF", regex=True)
    best = measured.sort_values("queries_per_second").groupby(["model", "index"]).first()
    models, indexes = measured["model"].unique(), measured["index"].unique()
    sizes = measured.groupby("index")["bytes_per_vector"].agg(["min", "max"]).round()
    heads = [
        f"{index} ({low:.0f} B)" if low == high else f"{index} ({low:.0f} to {high:.0f} B)"
        for index, (low, high) in sizes.loc[indexes].iterrows()
    ]
    print(f"| model | {' | '.join(heads)} | transform (s) |")
    print("|---|" + "---:|" * (len(indexes) + 1))
    for model in models:
        cells = [
            f"{best.loc[(model, index), 'recall@10']:.3f}" if (model, index) in best.index else "–"
            for index in indexes
        ]
        seconds = measured.loc[measured["model"] == model, "transform_seconds"].iloc[0]
        print(f"| {model} | {' | '.join(cells)} | {seconds:.1f} |")
    print()
    print("| recall@1 | recall@10 | queries/s | bytes | model | index | setting |")
    print("|---:|---:|---:|---:|---|---|---|")
    front = measured[measured["front"]].sort_values("recall@10", ascending=False)
    for _, row in front.iterrows():
        print(
            f"| {row['recall@1']:.3f} | {row['recall@10']:.3f} | "
            f"{row['queries_per_second']:,.0f} | "
            f"{row['bytes_per_vector']:,.0f} | {row['model']} | {row['factory']} | "
            f"{row['setting']} |"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
