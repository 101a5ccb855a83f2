#!/usr/bin/env bash
# The driver as a job of its own: it submits the jobs of the workers, and ends them when it ends.
#     sbatch driver.sh DATA OUT
# It needs little: one core, some memory, and time for the whole run.
# Interrupted or out of time, submit it again: the run continues where it stopped.
#SBATCH --job-name=dask-dedup-driver
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=8G
#SBATCH --time=2-00:00:00
#SBATCH --output=dask-dedup-driver-%j.log
#SBATCH --signal=INT@120

set -euo pipefail
# sbatch runs a copy of this script, but in the folder that it was submitted from.
exec dask-dedup run "$1" "$2" --config settings.toml
