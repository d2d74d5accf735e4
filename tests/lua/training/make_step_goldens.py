"""What NeMo Automodel's StepScheduler does step by step, for step_scheduler_spec.lua.

Writes step_goldens.json beside itself. Needs the packages nemo-automodel (0.7.0, no dependencies) and
torch: PYTHONPATH=<unpacked nemo-automodel> python make_step_goldens.py
"""
import itertools
import json
import pathlib

from nemo_automodel.components.training.step_scheduler import StepScheduler

# batches in an epoch, micro-batches a step, and the rest as the scheduler's own arguments
CASES = [
    dict(batches=b, grad_acc_steps=g, **rest)
    for (b, g), rest in itertools.product(
        [(1, 1), (7, 1), (7, 3), (8, 4), (3, 8)],
        [
            dict(num_epochs=2),
            dict(num_epochs=1, val_every_steps=2, ckpt_every_steps=3),
            dict(max_steps=5),
            dict(max_steps=4, num_epochs=3, ckpt_every_steps=2, save_checkpoint_every_epoch=False),
            dict(num_epochs=3, val_every_steps=2, ckpt_every_steps=100, validate_on_checkpoint=False),
            dict(max_steps=6, num_epochs=10, val_every_steps=1, ckpt_every_steps=4),
        ],
    )
]


def trace(case):
    case = dict(case)
    batches, grad_acc = case.pop("batches"), case.pop("grad_acc_steps")
    scheduler = StepScheduler(grad_acc, 1, 1, list(range(batches)), preemption_signal=None, **case)
    steps = []
    for epoch in scheduler.epochs:
        scheduler.set_epoch(epoch)
        for window in scheduler:
            flags = "".join(letter if on else "-" for letter, on in (
                ("v", scheduler.is_val_step), ("c", scheduler.is_ckpt_step), ("l", scheduler.is_last_step),
                ("e", scheduler.is_last_batch)))
            steps.append([scheduler.epoch, scheduler.step, len(window), flags])
    return steps


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(dict(case=case, steps=trace(case))) for case in CASES)
    pathlib.Path(__file__).with_name("step_goldens.json").write_text(f"[\n{lines}\n]\n")
