#!/usr/bin/env bash
# Says what is missing for the tests with a real SLURM, and how to get it; installs nothing.
# Exit codes: 0 all is there, 1 something is missing.
set -euo pipefail
missing=()
for pair in slurmctld:slurmctld slurmd:slurmd sbatch:slurm-client munged:munge; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" > /dev/null || missing+=("${pair##*:}")
done
if [ "${#missing[@]}" -gt 0 ]; then
  echo "make test-slurm needs Debian packages that are not installed: ${missing[*]}" >&2
  echo "    apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "make test-slurm starts SLURM's daemons: run it as root (in a container, say)" >&2
  exit 1
fi
