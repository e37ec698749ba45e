#!/usr/bin/env bash
# Run a command of this package on all nodes of a Slurm job, by a Ray cluster that lives as long as the job:
#
#   sbatch examples/slurm.sh python -m dsfp_env.tabulate --task cifar10-vgg16-bn --out /shared/table
#
# The command gets `--executor ray --address HOST:PORT`. Out of time, or killed, the same line goes on where it was: give
# --out, and DSFP_ENV_CACHE, on a file system that outlives the job. Nodes of one kind (--constraint) keep outcomes equal.
#SBATCH --job-name=dsfp_env
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@60
set -euo pipefail
if [ $# -eq 0 ]; then
    echo "usage: sbatch $0 COMMAND [OPTION ...]" >&2
    exit 2
fi
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 20000)) # two jobs may share a node
host=$(srun --nodes=1 --ntasks=1 --overlap -w "${nodes[0]}" hostname --ip-address | awk '{print $1}')
address="$host:$port"
common=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --disable-usage-stats --block)

started=()
command=
finish() {
    trap - EXIT TERM
    kill ${command:+"$command"} "${started[@]}" 2>/dev/null || true
    wait
}
trap finish EXIT
trap 'kill -TERM $command 2>/dev/null || true' TERM # the command says what it has kept

srun --nodes=1 --ntasks=1 --overlap -w "${nodes[0]}" \
    ray start --head --node-ip-address="$host" --port="$port" --include-dashboard=false "${common[@]}" &
started+=($!)
for _ in $(seq 60); do
    ray health-check --address "$address" >/dev/null 2>&1 && break
    sleep 1
done
for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 --overlap -w "$node" ray start --address="$address" "${common[@]}" &
    started+=($!)
done

"$@" --executor ray --address "$address" &
command=$!
status=0
wait "$command" || status=$?
if kill -0 "$command" 2>/dev/null; then # a signal ended the waiting, not the command
    status=0
    wait "$command" || status=$?
fi
exit "$status"
