#!/bin/bash
# Trains on the nodes of a Slurm job, and starts again where it was after every interruption.
#
#     sbatch --nodes=4 experiments/launch/slurm.sh --config=configs/ddpm_cifar.py
#
# Submit it from the checkout, which all nodes must see, as they must see the workdir (by default
# runs/<config> in the checkout). Options of sbatch stand before the script, and overrule what
# follows; flags of launch.py stand after it.
#
#SBATCH --job-name=gen_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --requeue
# CHANGE_ME: what a node has, and how long a job may run.
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
# Two minutes before the time limit: SIGTERM, to the tasks of all steps and not to this shell. The
# tasks save and end with 75; this shell lives on to read that and to requeue. With "B:TERM@120" it
# would be the other way round: bash handles a signal only after srun has ended, so nobody would
# save. Raise 120 if a step and a checkpoint take longer.
#SBATCH --signal=TERM@120

set -uo pipefail

venv=${GEN_JAX_VENV:-$PWD/.venv}      # CHANGE_ME, or set the variable
max_restarts=${GEN_JAX_RESTARTS:-50}  # CHANGE_ME, or set the variable

if [[ ! -f launch.py ]]; then
    echo "error: there is no launch.py in $PWD; submit this from the checkout" >&2
    exit 2
fi
# shellcheck source=/dev/null
source "$venv/bin/activate" || exit 2

# In a Slurm step JAX takes one GPU for each task. A task that has its node to itself takes all.
# With more tasks on a node (--ntasks-per-node=8 --cpus-per-task=4) the default is right, as long as
# every task sees all GPUs of the node: --gpus-per-node, not --gpus-per-task.
if [[ ${SLURM_NTASKS_PER_NODE:-1} == 1 && ${SLURM_GPUS_ON_NODE:-0} -gt 0 ]]; then
    JAX_LOCAL_DEVICE_IDS=$(seq 0 $((SLURM_GPUS_ON_NODE - 1)) | paste -s -d , -)
    export JAX_LOCAL_DEVICE_IDS
fi
# srun does not take this over from sbatch by itself.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

# scancel, a preemption and the time limit itself do reach this shell. It must outlive the tasks, or
# Slurm would kill them while they save.
ended_by_slurm=no
trap 'ended_by_slurm=yes' TERM

# The first task that ends must not take the others with it: they save, or find out by themselves
# that it died, and say so. One that is still there after five minutes hangs.
srun --kill-on-bad-exit=0 --wait=300 python launch.py "$@"
status=$? # the highest of all tasks, or 128 + the signal that killed one

case $status in
75 | 76 | 134 | 135 | 137 | 139 | 143) ;; # saved; another process died; this one was killed
*) exit "$status" ;;                      # 0 done, 2 bad input, 3 diverged: the same again
esac

state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)
if [[ $ended_by_slurm == yes || $state != RUNNING ]]; then
    echo "status $status, and Slurm is ending this job: it is left to Slurm" >&2
elif ((${SLURM_RESTART_COUNT:-0} >= max_restarts)); then
    echo "status $status after $max_restarts restarts: giving up" >&2
else
    echo "status $status: requeueing" >&2
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
