"""``[cluster]``: ranges, what follows for the workers, and what is said where it does not fit."""

from __future__ import annotations

import pytest

from dask_dedup.errors import SettingsError
from dask_dedup.settings.run_settings import Settings, load_settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"kind": "pbs"},
            r"cluster\.kind: expected local, slurm, tcp://HOST:PORT or tls://HOST:PORT, got 'pbs'",
        ),
        ({"kind": "tcp://me:pw@host:8786"}, r"cluster\.kind: expected local, slurm, tcp://"),
        ({"walltime": "soon"}, r"cluster\.walltime: expected a time such as '08:00:00'"),
        ({"walltime": "1"}, r"cluster\.walltime: expected at least two minutes"),
        (
            {"minimum_jobs": 3, "maximum_jobs": 2},
            r"maximum_jobs 2 is below cluster\.minimum_jobs 3",
        ),
        ({"environment": {"AWS_SECRET_ACCESS_KEY": "x"}}, r"looks like a secret"),
        ({"environment": {"a b": "x"}}, r"'a b' is no name of an environment variable"),
        ({"kind": "slurm"}, r"SLURM needs the memory of a job: cluster\.memory"),
        (
            {"kind": "slurm", "memory": "8GB", "processes": 3, "cores": 2},
            r"cluster\.processes 3 times compute\.threads 1 is more than cluster\.cores 2",
        ),
    ],
)
def test_load_settings_wrong_cluster_is_refused_with_its_key(given, message):
    with pytest.raises(SettingsError, match=message):
        load_settings(None, {"cluster": given})


def test_load_settings_memory_of_workers_above_their_job_is_refused():
    given = {"cluster.kind": "slurm", "cluster.memory": "8GB", "cluster.processes": 3}
    with pytest.raises(SettingsError, match=r"more than cluster\.memory 8,000,000,000 bytes"):
        load_settings(None, {**given, "compute.memory": "3GB"})


def test_load_settings_workers_of_slurm_follow_from_their_jobs():
    job = {"kind": "slurm", "memory": "21GB", "processes": 7, "maximum_jobs": 5}
    settings = load_settings(None, {"cluster": job})
    assert settings.compute.memory == 3_000_000_000
    assert settings.compute.workers == 35
    assert Settings.model_validate(settings.model_dump()) == settings


def test_for_result_where_the_workers_run_plays_no_part():
    elsewhere = load_settings(None, {"cluster": {"kind": "slurm", "memory": "4GB"}})
    assert elsewhere.for_result() == Settings().for_result()
