#!/bin/bash
# Two nodes, two ranks on each, which share its CPUs. For more: sbatch --nodes=8 --ntasks-per-node=4 two_nodes.sh …
# usage: sbatch examples/slurm/two_nodes.sh config.yaml [--section.key value]     AMLUA: the program
#SBATCH --job-name=amlua
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --output=slurm_%x_%j.out

# Where ranks meet that have no MPI, what admits them, and the threads of each.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
AMLUA_SECRET=$(head -c 24 /dev/urandom | base64)
threads=$((SLURM_CPUS_ON_NODE / ${SLURM_NTASKS_PER_NODE:-1}))
export MASTER_ADDR MASTER_PORT=13742 AMLUA_SECRET OMP_NUM_THREADS=$((threads > 0 ? threads : 1))

exec srun --kill-on-bad-exit=1 "${AMLUA:-amlua}" "$@"
