#!/bin/bash
# One node, one rank that has all of its CPUs. Slurm's SIGTERM, two minutes before the time limit, has the run save.
# usage: sbatch examples/slurm/one_node.sh config.yaml [--section.key value]     AMLUA: the program
#SBATCH --job-name=amlua
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --output=slurm_%x_%j.out

exec srun --kill-on-bad-exit=1 "${AMLUA:-amlua}" "$@"
