#!/usr/bin/env bash
# Starts a SLURM of one machine on loopback: munged, slurmctld, slurmd. As root; no systemd, no cgroups.
# All it writes is under DIR, with its own munge key and socket: a SLURM of the system is left alone.
# Prints the path of slurm.conf.   Usage: start.sh DIR CONTROLLER_PORT NODE_PORT
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"
dir=$(realpath -m "${1:?usage: start.sh DIR CONTROLLER_PORT NODE_PORT}")
host=$(hostname -s)
cpus=$(nproc)
memory=$(($(awk '/MemTotal/ { print $2 }' /proc/meminfo) / 1024 - 512))
mkdir -p "$dir"/{state,spool,log,munge}
key=$dir/munge/munge.key
[ -s "$key" ] || head -c 1024 /dev/urandom > "$key"
chmod 0400 "$key"
chown -R munge:munge "$dir/munge"
chmod 0755 "$dir/munge"

# Jobs may share a core: the cores of a test machine are few, and one job shall not wait for another.
cat > "$dir/slurm.conf" << CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/munge.sock
CredType=cred/munge
SlurmctldPort=$2
SlurmdPort=$3
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
KillWait=2
SlurmdTimeout=60
NodeName=$host NodeAddr=127.0.0.1 CPUs=$((cpus < 4 ? 4 : cpus)) RealMemory=$memory State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$dir/slurm.conf

runuser -u munge -- munged --force --key-file="$key" --socket="$dir/munge/munge.sock" \
  --pid-file="$dir/munge/munged.pid" --log-file="$dir/munge/munged.log" \
  --seed-file="$dir/munge/munged.seed" --num-threads=1
slurmctld -i -f "$SLURM_CONF" -c
for _ in $(seq 300); do scontrol ping 2> /dev/null | grep -q UP && break; sleep 0.1; done
slurmd -f "$SLURM_CONF" -N "$host" -c
for _ in $(seq 300); do
  sinfo --noheader --format=%t 2> /dev/null | grep -q '^idle$' && { echo "$SLURM_CONF"; exit 0; }
  sleep 0.1
done
tail -20 "$dir"/log/*.log >&2
exit 1
