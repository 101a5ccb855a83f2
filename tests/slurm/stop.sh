#!/usr/bin/env bash
# Ends the jobs and the daemons that start.sh has started with the same DIR, by their pid files.
dir=$(realpath -m "${1:?usage: stop.sh DIR}")
export SLURM_CONF=$dir/slurm.conf
scancel --user=root 2> /dev/null
sleep 0.5
for file in slurmd.pid slurmctld.pid munge/munged.pid; do
  [ -s "$dir/$file" ] && kill "$(cat "$dir/$file")" 2> /dev/null
done
exit 0
