import pandas as pd
import pytest
from click.testing import CliRunner

from dask_dedup import Settings, read_dataset
from dask_dedup.cli import commands as cli
from dask_dedup.pipeline.tolerance_table import calibrate
from dask_dedup.settings.run_settings import load_settings


@pytest.fixture(scope="module")
def done(clipart, tmp_path_factory):
    out = tmp_path_factory.mktemp("calibrated") / "out"
    settings = Settings(
        adc={"factory": "IVF64,PQ8x4", "queries": 300, "verify": False, "precision": 0.8}
    )
    return out, calibrate(read_dataset(clipart), out, settings)


def test_calibrate_recall_and_precision_asked_for_are_reached_on_the_sample(done):
    _, summary = done
    verified, unverified = summary["chosen"]["verified"], summary["chosen"]["unverified"]
    assert verified["recall"] >= 0.99 and verified["is_reached"]
    assert unverified["precision"] >= 0.8 and unverified["is_reached"]
    assert unverified["recall"] < verified["recall"]


def test_calibrate_writes_rising_curves_of_three_rules(done):
    out, summary = done
    curves = pd.read_csv(out / "curves.csv")
    assert len(curves) == summary["points"]
    assert list(curves["rule"].unique()) == ["verified", "unverified", "fixed"]
    for _, table in curves.groupby("rule"):
        assert table["value"].is_monotonic_increasing
        assert table["recall"].is_monotonic_increasing
        assert table["precision"].between(0, 1).all()
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "stages").exists()


def test_calibrate_setting_is_what_run_takes(done):
    out, summary = done
    settings = load_settings(out / "adc.toml")
    assert settings.finder == "adc"
    assert settings.adc.tolerance == summary["chosen"]["unverified"]["tolerance"]
    assert (settings.adc.factory, settings.adc.verify) == ("IVF64,PQ8x4", False)


def test_calibrate_again_does_nothing(done, clipart):
    out, summary = done
    before = (out / "curves.csv").stat().st_mtime_ns
    settings = Settings(
        adc={"factory": "IVF64,PQ8x4", "queries": 300, "verify": False, "precision": 0.8}
    )
    assert calibrate(read_dataset(clipart), out, settings) == summary
    assert (out / "curves.csv").stat().st_mtime_ns == before


def test_command_wrong_factory_exits_2(clipart, tmp_path):
    done = CliRunner().invoke(
        cli.main,
        ["calibrate", str(clipart), str(tmp_path / "out"), "--factory", "Nope", "--workers", "1"],
    )
    assert done.exit_code == 2
    assert "factory 'Nope': faiss cannot make such an index" in done.stderr
