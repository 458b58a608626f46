#!/bin/bash
# Train under Slurm, on one node or several, and go on where it was when the time is over or the job is preempted.
#
#   sbatch trainers/launch/slurm.sh OUTPUT_DIR ALGORITHM OPTIONS...
#   sbatch trainers/launch/slurm.sh runs/first dpo --config trainers/dpo/sdxl.yaml --pairs my_pairs
#   sbatch --nodes=4 trainers/launch/slurm.sh ...                  32 GPUs
#   sbatch --export=ALL,SHARD=1 trainers/launch/slurm.sh ...       FSDP2 (fsdp2.env)
#
# Slurm tells this script 120 seconds before the end (USR1); it tells srun, which tells every training process. They
# write a checkpoint and end; the job is put back into the queue, and its next part goes on from the checkpoint. srun
# starts the processes itself, because a launcher between it and them would give them 30 seconds.
#
#SBATCH --job-name=t2ialign
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -u

PYTHON=${PYTHON:-python}
LAUNCH=${LAUNCH:-${SLURM_SUBMIT_DIR:-.}/trainers/launch}
output=${1:?usage: sbatch slurm.sh OUTPUT_DIR ALGORITHM OPTIONS...}
algorithm=${2:?usage: sbatch slurm.sh OUTPUT_DIR ALGORITHM OPTIONS...}
shift 2

if [ "${SHARD:-0}" = 1 ]; then
    . "$LAUNCH/fsdp2.env" || exit 1
fi

# Only a whole checkpoint has a manifest.
resume=()
for manifest in "$output"/checkpoints/step-*/manifest.json; do
    [ -e "$manifest" ] && resume=(--resume latest)
done
if [ ${#resume[@]} -gt 0 ]; then
    :
elif [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && [ -e "$output" ]; then
    # An earlier part of this job ended before its first checkpoint; what it wrote is kept beside.
    mv "$output" "$output.before-restart-$SLURM_RESTART_COUNT" || exit 1
fi

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR
export MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
export WORLD_SIZE=$SLURM_NTASKS

stopping=0
step=
trap 'stopping=1; kill -USR1 "$step" 2> /dev/null' USR1
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=0 --wait=60 bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID exec "$0" -m t2ialign train "$@"' \
    "$PYTHON" "$algorithm" "$@" --output_dir "$output" ${resume[@]+"${resume[@]}"} &
step=$!

# A trapped signal ends `wait` early; the step itself goes on until its checkpoint is written.
wait "$step"
code=$?
while kill -0 "$step" 2> /dev/null; do
    wait "$step"
    code=$?
done

# 138 is how a run ends that USR1 has stopped: 128 and the signal's number.
if [ "$stopping" = 1 ] && [ "$code" -eq 138 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
