#!/usr/bin/env bash
# A SLURM of one node on loopback, for the tests, as root: .ci/slurm.sh install, start, stop.
set -euo pipefail
state=/var/lib/tensoradapt-slurm
export SLURM_CONF=/etc/slurm/slurm.conf

install() {
    if command -v slurmctld slurmd squeue >/dev/null; then return; fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client >/dev/null
}

# Keys of SLURM's own in the place of munge. cred_expire is also how long a requeued job waits, 120 s by default.
# A job in "low" that "high" pushes out is signalled first, and has GraceTime to ask for its requeue.
config() {
    local host
    if [ -f "$SLURM_CONF" ] && ! grep -q ClusterName=tensoradapt-tests "$SLURM_CONF"; then
        echo "$SLURM_CONF is of another SLURM, which this would replace" >&2
        return 1
    fi
    host=$(hostname -s)
    rm -rf "$state"
    mkdir -p /etc/slurm "$state"
    head -c 1024 /dev/urandom >/etc/slurm/slurm.key
    chmod 600 /etc/slurm/slurm.key
    echo "CgroupPlugin=disabled" >/etc/slurm/cgroup.conf
    cat >"$SLURM_CONF" <<END
ClusterName=tensoradapt-tests
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/slurm
CredType=auth/slurm
AuthInfo=cred_expire=5
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=2
MinJobAge=10
ReturnToService=2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2
SlurmdParameters=config_overrides
StateSaveLocation=$state
SlurmdSpoolDir=$state/slurmd
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000
PartitionName=low Nodes=$host Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes=$host PriorityTier=10
END
}

start() {
    stop
    config
    slurmctld
    slurmd
    for _ in $(seq 150); do
        if sinfo --noheader --format=%T 2>/dev/null | grep -q idle; then return; fi
        sleep 0.2
    done
    tail -n 30 "$state"/slurmctld.log "$state"/slurmd.log >&2
    return 1
}

stop() {
    local file pid
    for file in "$state"/slurmd.pid "$state"/slurmctld.pid; do
        if pid=$(cat "$file" 2>/dev/null) && kill "$pid" 2>/dev/null; then
            while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
        fi
    done
}

case "${1:-}" in
install | start | stop) "$1" ;;
*) echo "usage: $0 install|start|stop" >&2 && exit 2 ;;
esac
