#!/bin/bash
# A run longer than the queue's time limit: USR1 comes two minutes before the end, the ranks save, the job queues itself
# again and resumes. The configuration needs step_scheduler.preemption_signal: [SIGTERM, SIGUSR1], given here.
# usage: sbatch examples/slurm/requeue.sh config.yaml [--section.key value]     AMLUA: the program
#SBATCH --job-name=amlua-requeue
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm_%x_%j.out

warned='' step=''
trap 'warned=yes; ${step:+kill -s USR1 "$step"}' USR1
srun --kill-on-bad-exit=1 "${AMLUA:-amlua}" "$@" --step_scheduler.preemption_signal '["SIGTERM", "SIGUSR1"]' &
step=$!
while true; do # a signal ends the wait, not the step
    wait "$step"
    kill -0 "$step" 2>/dev/null || break
done
wait "$step"
status=$?
if [ -n "$warned" ] && [ "$status" -eq 0 ]; then
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
