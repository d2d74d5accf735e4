#!/bin/bash
# A sweep: four learning rates, two at a time, each with its own folder of checkpoints below $RUNS.
# usage: sbatch examples/slurm/array_sweep.sh config.yaml [--section.key value]     AMLUA: the program
#SBATCH --job-name=amlua-sweep
#SBATCH --array=0-3%2
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --time=02:00:00
#SBATCH --signal=TERM@120
#SBATCH --output=slurm_%x_%A_%a.out

rates=(1e-5 2e-5 5e-5 1e-4)
rate=${rates[$SLURM_ARRAY_TASK_ID]}

exec srun --kill-on-bad-exit=1 "${AMLUA:-amlua}" "$@" \
    --optimizer.lr "$rate" --checkpoint.checkpoint_dir "${RUNS:-runs}/lr-$rate"
