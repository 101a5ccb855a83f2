import pytest

from dask_dedup.compressors.network_settings import NetworkSettings, load_network_settings
from dask_dedup.errors import SettingsError


def test_load_network_settings_passes_over_what_is_not_given():
    assert load_network_settings({"width": None, "depth": 3}) == NetworkSettings(depth=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch": 1}, "batch: Input should be greater than or equal to 2, got 1"),
        ({"learning_rate": float("nan")}, "learning_rate: .* got nan"),
        ({"validation_share": 0.9}, "validation_share: .* 0.5, got 0.9"),
        ({"start": "zero"}, "start: Input should be 'pca' or 'random', got 'zero'"),
        ({"depht": 2}, "unknown setting depht; known here: sample_rows, .*threads"),
    ],
)
def test_load_network_settings_names_what_is_wrong(values, message):
    with pytest.raises(SettingsError, match=message):
        load_network_settings(values)


def test_load_network_settings_survive_a_round_trip():
    settings = NetworkSettings(hard=True, clip_weight=0.3, epochs=7)
    assert load_network_settings(settings.model_dump()) == settings
