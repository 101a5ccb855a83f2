"""`--skip-bad-parts`: what a run does without files that are bad, or turn bad while it reads."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.sparse.csgraph import connected_components

import dask_dedup
from dask_dedup import InputError, Settings, read_dataset
from dask_dedup.cli import commands as cli
from dask_dedup.data.parts import read_rows
from dask_dedup.errors import UnreadableError
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.storage.run_folder import RunFolder

run_here = partial(dask_dedup.run, execute=compute_tasks)

CUTS = [150, 300, 301, 450]
ROWS = 600


def settings(finder="join", skip=True):
    adc = {"factory": "IVF8,PQ4x6", "nprobe": 8, "k": 4, "tolerance": 3.0}
    return Settings.model_validate(
        {
            "finder": finder,
            "adc": adc,
            "read": {"skip_bad_parts": skip},
            "audit": {"queries": 100},
        }
    )


@pytest.fixture(scope="module")
def rows():
    """Pairs of near-copies, most of them in two parts."""
    rng = np.random.default_rng(5)
    groups = rng.standard_normal((ROWS // 2, 24))
    values = np.tile(groups, (2, 1))[rng.permutation(ROWS)]
    return (values + 0.05 * rng.standard_normal(values.shape)).astype("f4")


@pytest.fixture
def data(tmp_path, write_dataset, rows):
    return write_dataset(tmp_path / "data", np.split(rows, CUTS))


def expected(rows, without):
    """Return scipy's clusters of the rows that can be read."""
    unit = rows.astype("f8") / np.linalg.norm(rows.astype("f8"), axis=1, keepdims=True)
    near = unit @ unit.T >= 0.95
    near[without] = near[:, without] = False
    labels = connected_components(near, directed=False)[1]
    return pd.Series(np.arange(len(rows))).groupby(labels).transform("min").to_numpy()


def truncate(path: Path):
    os.truncate(path, path.stat().st_size - 100)


def damage_in_the_middle(path: Path):
    """Overwrite the data pages; the footer, the size and the time stay."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.seek(4)
        file.write(b"\xff" * 300)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def embeddings(data, part):
    return sorted(data.glob("img_emb/*"))[part]


def metadata(data, part):
    return sorted(data.glob("metadata/*"))[part]


@pytest.mark.parametrize("finder", ["join", "adc"])
def test_bad_files_are_quarantined_counted_and_reported(data, rows, tmp_path, caplog, finder):
    truncate(embeddings(data, 1))
    embeddings(data, 3).write_bytes(b"no array")
    metadata(data, 4).write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"truncated|cannot be read"):
        run_here(data, tmp_path / "out", settings(finder, skip=False))

    summary = run_here(data, tmp_path / "out", settings(finder))
    lost = np.r_[150:300, 301:450]
    clusters = pd.read_parquet(tmp_path / "out" / "clusters")
    np.testing.assert_array_equal(clusters["cluster_id"], expected(rows, lost))
    np.testing.assert_array_equal(np.flatnonzero(~clusters["is_valid"]), lost)
    invalid = pd.read_parquet(tmp_path / "out" / "invalid")
    np.testing.assert_array_equal(invalid["row_id"], lost)
    assert set(invalid["invalid_reason"]) == {"unreadable"}
    assert clusters["url"].isna().to_numpy().nonzero()[0].tolist() == list(range(450, ROWS))
    found = {(Path(bad["path"]).name, bad["rows"]) for bad in summary["bad_files"]}
    assert found == {
        (embeddings(data, 1).name, 150),
        (embeddings(data, 3).name, 149),
        (metadata(data, 4).name, 150),
    }
    assert "quarantined, 150 rows of its part" in caplog.text
    assert summary["audit"]["pair_recall"] == 1.0


def test_bad_part_of_which_nothing_can_be_read_has_no_rows(data, tmp_path):
    embeddings(data, 1).write_bytes(b"")
    metadata(data, 1).unlink()
    metadata(data, 0).with_name("metadata_0001.parquet").write_bytes(b"")
    names = [path.name for path in sorted(data.glob("metadata/*"))]
    assert len(names) == 5
    dataset = read_dataset(data, skip_bad_parts=True)
    assert [part.rows for part in dataset.parts] == [150, 0, 1, 149, 150]
    assert len(dataset.bad_files) == 2
    summary = run_here(data, tmp_path / "out", settings())
    assert summary["rows"] == ROWS - 150


def test_parts_that_do_not_fit_each_other_are_quarantined(data, rows):
    np.save(embeddings(data, 0), rows[:7])
    np.save(embeddings(data, 3), rows[:149, :3])
    dataset = read_dataset(data, skip_bad_parts=True)
    assert [(bad.rows, bad.problem.split(": ")[1].split(",")[0]) for bad in dataset.bad_files] == [
        (150, "7 embeddings"),
        (149, "embeddings have dimension 3"),
    ]
    assert np.isnan(read_rows(dataset.parts[0].embeddings, 3, 9)).all()


def test_data_set_of_bad_files_only_is_refused(data):
    for path in data.glob("img_emb/*"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"\.npy: expected a \.npy file"):
        read_dataset(data, skip_bad_parts=True)


@pytest.mark.parametrize("stage", ["fit", "layout", "join"])
@pytest.mark.parametrize("skip", [False, True])
def test_part_truncated_while_the_run_reads_ends_it_and_the_next_start_sees_it(
    data, rows, tmp_path, stage, skip, stage_notes
):
    victim, out = embeddings(data, 1), tmp_path / "out"
    with pytest.raises(InputError, match=f"{victim.name}.*(changed while|truncated)"):
        run_here(
            data,
            out,
            settings(skip=skip),
            progress=stage_notes(do={stage: lambda: truncate(victim)}),
        )
    assert not (out / "clusters").exists()
    if not skip:
        with pytest.raises(UnreadableError, match=f"{victim.name}.*truncated"):
            run_here(data, out, settings(skip=False))
        return

    summary = run_here(data, out, settings())
    clusters = pd.read_parquet(out / "clusters")
    np.testing.assert_array_equal(clusters["cluster_id"], expected(rows, np.r_[150:300]))
    assert (summary["rows"], summary["invalid_rows"]) == (ROWS, 150)
    assert [Path(bad["path"]) for bad in summary["bad_files"]] == [victim]
    assert run_here(data, out, settings()) == summary


def test_metadata_that_turn_bad_behind_a_whole_footer_are_null_in_the_next_run(
    data, rows, tmp_path, stage_notes
):
    """No scan sees such a page: the run that has met it notes the file in OUT."""
    victims, out = [metadata(data, 1), metadata(data, 3)], tmp_path / "out"
    progress = stage_notes(do={"clusters": lambda: damage_in_the_middle(victims[0])})
    with pytest.raises(UnreadableError, match=f"{victims[0].name}: cannot be read") as stopped:
        run_here(data, out, settings(skip=False), progress=progress)
    assert "again" not in str(stopped.value)

    again = r": cannot be read .*\. Run the same command again: it goes on without this file\."
    with pytest.raises(UnreadableError, match=victims[0].name + again):
        run_here(data, out, settings())
    damage_in_the_middle(victims[1])
    with pytest.raises(UnreadableError, match=victims[1].name + again):
        run_here(data, out, settings())
    assert len(RunFolder.read_quarantined(out)) == 2
    with pytest.raises(InterruptedError):  # a kill in between forgets nothing
        run_here(data, out, settings(), progress=stage_notes("clusters"))
    seen = stage_notes()
    summary = run_here(data, out, settings(), progress=seen)
    assert {Path(bad["path"]) for bad in summary["bad_files"]} == set(victims)
    clusters = pd.read_parquet(out / "clusters")
    np.testing.assert_array_equal(clusters["cluster_id"], expected(rows, []))
    assert clusters["url"].isna().to_numpy().nonzero()[0].tolist() == [
        *range(150, 300),
        *range(301, 450),
    ]
    assert run_here(data, out, settings()) == summary  # nothing to do
    with pytest.raises(UnreadableError):
        run_here(data, out, settings(skip=False))


def test_file_that_is_noted_as_bad_and_mended_since_is_read(data, rows, tmp_path):
    victim, out = metadata(data, 1), tmp_path / "out"
    whole = victim.read_bytes()
    damage_in_the_middle(victim)
    with pytest.raises(UnreadableError, match="Run the same command again"):
        run_here(data, out, settings())
    victim.write_bytes(whole)
    summary = run_here(data, out, settings())
    assert summary["bad_files"] == []
    assert pd.read_parquet(out / "clusters")["url"].notna().all()


def test_command_reports_the_files_that_are_left_out(data, tmp_path):
    truncate(embeddings(data, 1))
    arguments = ["run", str(data), str(tmp_path / "out"), "--workers", "1"]
    refused = CliRunner().invoke(cli.main, arguments)
    assert refused.exit_code == 2
    assert "--skip-bad-parts" in refused.output
    result = CliRunner().invoke(cli.main, [*arguments, "--skip-bad-parts"])
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "quarantined, 150 rows of its part" in text
    assert "quarantined 150 rows of 1 bad file" in text
