"""The registry of finders, the setting that names one, and the stages that are declared for it."""

from typing import get_args

import pytest

from dask_dedup import Settings
from dask_dedup.pipeline.finders import FINDERS, choose_finder
from dask_dedup.pipeline.stages import STAGES


def test_finders_are_those_that_the_setting_names_and_the_stages_belong_to():
    assert set(get_args(Settings.model_fields["finder"].annotation)) == set(FINDERS)
    assert {stage.finder for stage in STAGES} - {None} == set(FINDERS)


@pytest.mark.parametrize("name", FINDERS)
def test_choose_finder_gives_what_the_protocol_asks(name):
    finder = choose_finder(name)
    assert finder.name == name
    assert callable(finder.find)
