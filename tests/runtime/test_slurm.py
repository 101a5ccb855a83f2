"""The text of a SLURM job, which needs no SLURM; tests/slurm runs real ones."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from dask_dedup.cli.commands import main
from dask_dedup.errors import ClusterError
from dask_dedup.runtime.deployment import open_cluster
from dask_dedup.runtime.gpus import GPU
from dask_dedup.runtime.slurm import job_script
from dask_dedup.settings.run_settings import load_settings

JOB = {
    "kind": "slurm",
    "queue": "long",
    "account": "vision",
    "walltime": "10:00:00",
    "memory": "22GiB",
    "processes": 11,
    "job_extra_directives": ["--gres=gpu:1"],
    "job_script_prologue": ["module load cuda"],
    "environment": {"A_NAME": "two words"},
    "interface": "lo",
}


def script(tmp_path, **compute):
    settings = load_settings(None, {"cluster": JOB, "compute": compute})
    (tmp_path / "a.toml").write_text(settings.to_toml())
    made = CliRunner().invoke(main, ["cluster-script", "--config", str(tmp_path / "a.toml")])
    assert made.exit_code == 0, made.output
    return made.output


def test_cluster_script_asks_for_what_the_settings_say(tmp_path):
    lines = script(tmp_path, threads=2).splitlines()
    assert {
        "#SBATCH -p long",
        "#SBATCH -A vision",
        "#SBATCH --cpus-per-task=22",
        "#SBATCH --mem=22G",
        "#SBATCH -t 10:00:00",
        "#SBATCH --gres=gpu:1",
        "module load cuda",
        "export A_NAME='two words'",
        "export OMP_NUM_THREADS=2",
        "export MKL_NUM_THREADS=2",
        "export OPENBLAS_NUM_THREADS=2",
    } <= set(lines)


def test_cluster_script_starts_one_thread_in_each_worker_and_ends_before_the_walltime(tmp_path):
    command = script(tmp_path).splitlines()[-1]
    assert "--nthreads 1 " in command
    assert "--nworkers 11 " in command
    assert "--memory-limit 2.00GiB " in command
    assert "--interface lo" in command
    found = re.search(r"--lifetime (\d+)s --lifetime-stagger (\d+)s", command)
    assert found
    assert int(found[1]) == 32_400  # nine of ten hours
    assert int(found[1]) + int(found[2]) < 36_000
    assert "--lifetime-restart" not in command


def test_cluster_script_without_memory_says_so():
    made = CliRunner().invoke(main, ["cluster-script"])
    assert made.exit_code == 2
    assert "SLURM needs the memory of a job: cluster.memory" in made.output


def test_open_cluster_without_sbatch_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    settings = load_settings(None, {"cluster": JOB})
    missing = pytest.raises(ClusterError, match="there is no sbatch on this machine")
    with missing, open_cluster(settings, tmp_path):
        pass


def test_job_of_workers_with_a_gpu_offers_it_and_has_one_worker(tmp_path):
    job = {**JOB, "processes": 1}
    text = job_script(load_settings(None, {"cluster": job}), resources=GPU)
    assert "--resources GPU=1 " in text.splitlines()[-1]
    assert "--resources" not in job_script(load_settings(None, {"cluster": job}))
    settings = load_settings(None, {"cluster": JOB})
    with (
        pytest.raises(ClusterError, match="processes: expected 1 where each worker has a GPU, got"),
        open_cluster(settings, tmp_path, gpus=1),
    ):
        pass
