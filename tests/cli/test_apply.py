"""`apply`: what the command prints and refuses."""

import json
from functools import partial

import pandas as pd
from click.testing import CliRunner

import dask_dedup
from dask_dedup.cli import commands as cli
from dask_dedup.runtime.executor import compute_tasks

run_here = partial(dask_dedup.run, execute=compute_tasks)


def command(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def test_apply_prints_every_count(tmp_path, out, scheduler):
    clusters = pd.read_parquet(out / "clusters")
    copy = clusters.loc[50:, ["url", "caption"]].sample(frac=1, random_state=0)
    copy.loc[60, "url"] = None
    copy.to_csv(tmp_path / "copy.csv", index=False)
    result = command("apply", out, tmp_path / "copy.csv", tmp_path / "to", "--cluster", scheduler)
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "to" / "summary.json").read_text())
    # Of the copies 200 to 299, those of rows 0 to 49 and of row 60 have no witness here.
    assert summary["metadata"] == {
        "unmatched": 0, "kept": 149, "dropped": 49, "ambiguous": 0, "keyless": 1,
        "without_witness": 51,
    }  # fmt: skip
    for text in ("149  rows stay", "49  rows are dropped in the result\n",
                 "51  rows are dropped in the result, but the row that stays is not here; kept",
                 "1  rows have no key; kept", "51  rows of the result are not here",
                 "201 of 250 rows written to"):  # fmt: skip
        assert text in "\n".join(line.strip() for line in result.output.splitlines()), text


def test_apply_with_a_key_of_one_side_only_is_refused_in_one_line(tmp_path, out):
    pd.DataFrame({"uid": [1]}).to_parquet(tmp_path / "copy.parquet")
    result = command("apply", out, tmp_path / "copy.parquet", tmp_path / "to", "--key", "uid")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "has no column 'uid'; it has url, caption" in line
