"""Settings: defaults, ranges, TOML, single values, and what is said where they are wrong."""

from __future__ import annotations

import math
import tomllib

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_dedup.errors import SettingsError
from dask_dedup.settings.run_settings import (
    AdcSettings,
    AuditSettings,
    CellSettings,
    ClusterSettings,
    ComputeSettings,
    JoinSettings,
    ProjectionSettings,
    ReadSettings,
    Settings,
    load_settings,
)


def one_of(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_subnormal=False)


@st.composite
def any_settings(draw: st.DrawFn) -> Settings:
    threshold = draw(one_of(1e-6, 1))
    return Settings(
        seed=draw(st.integers(0, 2**63 - 1)),
        read=ReadSettings(
            url_column=draw(st.none() | st.text()), caption_column=draw(st.none() | st.text())
        ),
        projection=ProjectionSettings(
            dim=draw(st.integers(1, 1024)), sample_rows=draw(st.integers(2, 10**12))
        ),
        cells=CellSettings(
            cells_per_row=draw(one_of(1, 8)),
            cells=draw(st.integers(0, 10**9)),
            probes=draw(one_of(1, 8)),
            sample_per_cell=draw(st.integers(1, 10**6)),
        ),
        join=JoinSettings(search_threshold=draw(st.none() | one_of(1e-9, threshold))),
        finder=draw(st.sampled_from(["join", "adc"])),
        adc=AdcSettings(
            model=draw(st.none() | st.text()),
            factory=draw(st.none() | st.text()),
            sample_rows=draw(st.integers(0, 10**9)),
            iterations=draw(st.integers(0, 100)),
            k=draw(st.integers(2, 10**6)),
            nprobe=draw(st.integers(1, 10**6)),
            tolerance=draw(st.none() | one_of(0, 100)),
            verify=draw(st.booleans()),
            recall=draw(one_of(1e-6, 1)),
            precision=draw(one_of(1e-6, 1)),
            queries=draw(st.integers(1, 10**6)),
        ),
        clusters=ClusterSettings(threshold=threshold),
        audit=AuditSettings(queries=draw(st.integers(0, 10**9))),
        compute=ComputeSettings(
            workers=draw(st.none() | st.integers(1, 10**4)),
            threads=draw(st.integers(1, 512)),
            memory=draw(st.none() | st.integers(1, 2**60)),
        ),
    )


# --- TOML -----------------------------------------------------------------------------------------


@given(settings=any_settings())
def test_settings_survive_a_round_trip_through_toml(tmp_path_factory, settings):
    path = tmp_path_factory.getbasetemp() / "settings.toml"
    path.write_text(settings.to_toml(), encoding="utf-8")
    assert load_settings(path) == settings


KEYS = [
    f"{table}.{key}" if isinstance(value, dict) else table
    for table, value in Settings().model_dump().items()
    for key in (value if isinstance(value, dict) else [""])
]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=9)
)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(), SCALARS, max_size=2)


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(), VALUES, max_size=4))
def test_load_settings_any_values_of_any_keys_give_settings_or_one_error(overrides):
    try:
        settings = load_settings(None, overrides)
    except SettingsError as error:
        assert str(error).startswith("settings: ")
    else:
        assert Settings.model_validate(settings.model_dump()) == settings


@given(st.binary(max_size=200) | st.text("[]{}=.\"'\\\n,ab01", max_size=80).map(str.encode))
def test_load_settings_any_bytes_give_settings_or_one_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    try:
        settings = load_settings(path)
    except SettingsError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert settings == Settings()


def test_to_toml_names_every_table_and_every_setting_that_has_a_value():
    content = tomllib.loads(Settings().to_toml())
    assert set(content) == set(Settings.model_fields) - {"encoder"}
    assert content["clusters"] == {"threshold": 0.95, "linkage": "star"}
    # Neither workers nor memory: these are chosen by the machine.
    assert content["compute"] == {"threads": 1, "device": "cpu"}


def test_load_settings_without_anything_gives_the_defaults():
    assert load_settings() == load_settings(None, {"seed": None}) == Settings()


def test_load_settings_single_values_win_over_the_file(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("seed = 3\n[clusters]\nthreshold = 0.8\n[cells]\ncells_per_row = 2.0\n")
    overrides = {"clusters.threshold": 0.9, "projection.dim": 32, "seed": None}
    settings = load_settings(path, overrides)
    assert (settings.seed, settings.cells.cells_per_row) == (3, 2.0)
    assert (settings.clusters.threshold, settings.projection.dim) == (0.9, 32)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[clusters\nthreshold = 1", r"a\.toml: not a TOML file \(.*line 1"),
        (b"threshold 0.9", r"a\.toml: not a TOML file"),
        (b"\xff\xfe", r"a\.toml: not a TOML file"),
        (b"[clusters]\nthreshhold = 0.9", r"a\.toml: unknown setting clusters\.threshhold; known he"
         r"re: threshold, linkage\. Did you mean threshold\?"),
        (b"[cells2]\nthreshold = 0.9", r"a\.toml: unknown setting cells2; known here: seed, "),
        (b"threshold = 0.9", r"a\.toml: unknown setting threshold; known here: seed, finder, "),
        (b"clusters = 0.9", r"a\.toml: clusters: Input should be a valid dictionary.*, got 0\.9\."),
        (b"[clusters]\nthreshold = 1.5", r"a\.toml: clusters\.threshold: .*less than or equal to 1,"
         r" got 1\.5\."),
        (b"[clusters]\nthreshold = nan", r"a\.toml: clusters\.threshold: .*got nan"),
        (b"[compute]\nmemory = 'much'", r"a\.toml: compute\.memory: expected a size such as '8GB'"),
        (b"[compute]\nmemory = true", r"a\.toml: compute\.memory: expected a size such as '8GB'"),
        (b"[join]\nsearch_threshold = 0.96", r"a\.toml: join\.search_threshold 0\.96 is above clust"
         r"ers\.threshold 0\.95: pairs between the two would not be found\.$"),
    ],
)  # fmt: skip
def test_load_settings_wrong_file_is_refused_with_its_name_and_key(tmp_path, content, message):
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        load_settings(tmp_path / "a.toml")


def test_load_settings_every_wrong_key_is_named(tmp_path):
    (tmp_path / "a.toml").write_text("seed = -1\nfoo = 1\n[cells]\ncells_per_row = 99.0\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path / "a.toml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{tmp_path}/a.toml: ") for line in lines)
    assert all(any(key in line for line in lines) for key in ("seed", "foo", "cells.cells_per_row"))


@pytest.mark.parametrize("name", ["gone.toml", "folder"])
def test_load_settings_file_that_cannot_be_read_is_refused(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(SettingsError, match=rf"{name}: cannot be read \((No such file|Is a dir)"):
        load_settings(tmp_path / name)


def test_load_settings_override_into_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "a.toml").write_text("clusters = 1\n")
    with pytest.raises(SettingsError, match=r"a\.toml: clusters is expected to be a table"):
        load_settings(tmp_path / "a.toml", {"clusters.threshold": 0.9})


# --- ranges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clusters.threshold", 0),
        ("clusters.threshold", -0.5),
        ("clusters.threshold", 1.0000001),
        ("clusters.threshold", math.nan),
        ("clusters.threshold", "high"),
        ("join.search_threshold", 0),
        ("join.search_threshold", math.nan),
        ("projection.dim", 0),
        ("projection.dim", 2.5),
        ("projection.sample_rows", 1),
        ("cells.cells_per_row", 0.5),
        ("cells.cells_per_row", math.inf),
        ("cells.cells_per_row", math.nan),
        ("cells.cells", -1),
        ("audit.queries", -1),
        ("compute.workers", 0),
        ("compute.threads", 0),
        ("compute.memory", 0),
        ("compute.memory", "8 elephants"),
        ("compute.memory", "nan"),
        ("compute.memory", "1e999"),
        ("compute.memory", True),
        ("seed", -1),
        ("seed", 2**63),
    ],
)
def test_load_settings_value_out_of_range_is_refused(key, value):
    with pytest.raises(SettingsError, match=rf"settings: {key}: .*, got {value!r}\.$"):
        load_settings(None, {key: value})


@pytest.mark.parametrize(("text", "size_bytes"), [("0GB", 0), ("-8GB", -8 * 10**9)])
def test_memory_of_nothing_is_refused(text, size_bytes):
    with pytest.raises(SettingsError, match=rf"compute.memory: .* or equal to 1, got {size_bytes}"):
        load_settings(None, {"compute.memory": text})


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("8GB", 8_000_000_000),
        ("512MiB", 512 * 1024**2),
        ("1.5 kB", 1500),
        ("17", 17),
        (19, 19),
        ("auto", None),
        ("", None),
    ],
)
def test_memory_is_turned_into_bytes_once(text, size_bytes):
    assert load_settings(None, {"compute.memory": text}).compute.memory == size_bytes


def test_search_threshold_is_the_threshold_unless_given():
    assert load_settings(None, {"clusters.threshold": 0.8}).search_threshold == 0.8
    both = load_settings(None, {"clusters.threshold": 0.8, "join.search_threshold": 0.7})
    assert both.search_threshold == 0.7


def test_search_threshold_equal_to_the_threshold_is_allowed():
    both = {"clusters.threshold": 0.8, "join.search_threshold": 0.8}
    assert load_settings(None, both).search_threshold == 0.8


def test_settings_are_frozen():
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Settings().clusters.threshold = 0.5


def test_settings_every_field_is_documented():
    tables = [Settings, *(field.annotation for field in Settings.model_fields.values())]
    undocumented = [
        f"{table.__name__}.{name}"
        for table in tables
        if hasattr(table, "model_fields")
        for name, field in table.model_fields.items()
        if not field.description and not hasattr(field.annotation, "model_fields")
    ]
    assert undocumented == []


@pytest.mark.parametrize("given", ["a, b c,d", ["a", "b c", "d"]])
def test_names_of_columns_are_a_list_or_text_with_commas(given):
    settings = load_settings(None, {"read.columns": given})
    assert settings.read.columns == ["a", "b c", "d"]
    again = tomllib.loads(settings.to_toml())
    assert Settings.model_validate(again) == settings


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("[cells]\nvisits = 3.0\n", "cells.visits", "cells.cells_per_row"),
        ("[compress]\ndim = 32\nsample_rows = 500\n", "compress", "projection"),
    ],
)
def test_load_settings_of_an_earlier_version_names_what_a_setting_is_called_now(
    tmp_path, text, old, new
):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(SettingsError) as raised:
        load_settings(tmp_path / "a.toml")
    assert str(raised.value) == f"{tmp_path}/a.toml: {old} is now called {new}."
