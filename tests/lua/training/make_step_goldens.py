"""What NeMo Automodel's StepScheduler does step by step, for step_scheduler_spec.lua.

Writes step_goldens.json beside itself. Needs the packages nemo-automodel (0.7.0, no dependencies) and
torch: PYTHONPATH=<unpacked nemo-automodel> python make_step_goldens.py
"""
import itertools
import json
import pathlib

from nemo_automodel.components.training.step_scheduler import StepScheduler

class Stream:
    """A loader of `batches` batches that does not know so."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(range(self.batches))


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
] + [
    dict(batches=b, grad_acc_steps=g, **rest)
    for b, g in [(5, 1), (6, 2), (10, 4)]
    for rest in (
            dict(max_steps=20, num_epochs=2, ckpt_every_steps=3),                     # epochs end before max_steps
            dict(max_steps=3, num_epochs=5, val_every_steps=2, ckpt_every_steps=50),  # and after
            dict(max_steps=9, val_every_steps=3, save_checkpoint_every_epoch=False, ckpt_every_steps=4),
            dict(num_epochs=2, gc_every_steps=2, log_remote_every_steps=3),
            dict(num_epochs=3, start_step=-(-b // g), start_epoch=1, ckpt_every_steps=2),
            dict(max_steps=2 * -(-b // g) + 2, start_step=2 * -(-b // g), start_epoch=2, log_remote_every_steps=2),
            dict(ckpt_every_steps=1, num_epochs=1),
    )
] + [
    dict(batches=b, grad_acc_steps=2, stream=True, **rest)
    for b, rest in itertools.product(
        [40, 6],
        [
            dict(max_steps=3),                                                        # ckpt_every_steps: half of it
            dict(max_steps=9, num_epochs=2, ckpt_every_steps=2, val_every_steps=3),
            dict(max_steps=2, log_remote_every_steps=2, gc_every_steps=1, ckpt_every_steps=7),
        ],
    )
]


def trace(case):
    case = dict(case)
    batches, grad_acc = case.pop("batches"), case.pop("grad_acc_steps")
    loader = Stream(batches) if case.pop("stream", False) else list(range(batches))
    scheduler = StepScheduler(grad_acc, 1, 1, loader, preemption_signal=None, **case)
    steps = []
    for epoch in scheduler.epochs:
        scheduler.set_epoch(epoch)
        for window in scheduler:
            flags = "".join(letter if on else "-" for letter, on in (
                ("v", scheduler.is_val_step), ("c", scheduler.is_ckpt_step), ("l", scheduler.is_last_step),
                ("e", scheduler.is_last_batch), ("g", scheduler.is_gc_step), ("r", scheduler.is_remote_logging_step)))
            steps.append([scheduler.epoch, scheduler.step, len(window), flags])
    return steps


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(dict(case=case, steps=trace(case))) for case in CASES)
    pathlib.Path(__file__).with_name("step_goldens.json").write_text(f"[\n{lines}\n]\n")
