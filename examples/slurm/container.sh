#!/bin/bash
# One node, in a container of the cluster's pyxis. $IMAGE is made by examples/docker/; $PWD is seen in it.
# usage: IMAGE=registry.example.org/amlua:cpu sbatch examples/slurm/container.sh config.yaml [--section.key value]
#SBATCH --job-name=amlua-container
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --output=slurm_%x_%j.out

exec srun --kill-on-bad-exit=1 --container-image="${IMAGE:?is not set}" --container-mounts="$PWD:$PWD" \
    --container-workdir="$PWD" --no-container-mount-home amlua "$@"
