"""Learning rates and weight decays of NeMo Automodel's OptimizerParamScheduler, for scheduler_spec.lua.

Writes schedule_goldens.json beside itself. Needs the packages nemo-automodel (0.7.0, no dependencies)
and torch: PYTHONPATH=<unpacked nemo-automodel> python make_schedule_goldens.py
"""
import json
import pathlib

import torch
from nemo_automodel.components.optim.scheduler import OptimizerParamScheduler

BASE = dict(init_lr=1e-5, max_lr=1e-4, min_lr=1e-6, lr_warmup_steps=4, lr_decay_steps=20,
            lr_decay_style="cosine", start_wd=0.1, end_wd=0.1, wd_incr_steps=20, wd_incr_style="constant")
CASES = [
    dict(),
    dict(lr_decay_style="linear"),
    dict(lr_decay_style="constant"),
    dict(lr_decay_style="constant", lr_warmup_steps=0),
    dict(lr_decay_style="inverse-square-root"),
    dict(lr_decay_style="inverse-square-root", lr_warmup_steps=0, min_lr=3e-5),
    dict(lr_warmup_steps=0),
    dict(lr_warmup_steps=19, lr_decay_style="linear"),
    dict(lr_decay_steps=5, lr_decay_style="linear"),
    dict(lr_decay_steps=1, lr_warmup_steps=0),
    dict(max_lr=0.0, init_lr=0.0, min_lr=0.0),
    dict(start_wd=0.0, end_wd=0.2, wd_incr_style="linear", wd_incr_steps=7),
    dict(start_wd=0.05, end_wd=0.3, wd_incr_style="cosine"),
    dict(start_wd=0.1, end_wd=0.1, wd_incr_style="linear", wd_incr_steps=1),
] + [
    dict(lr_decay_style="WSD", wsd_decay_steps=d, lr_wsd_decay_style=s)
    for s in ("linear", "cosine", "exponential", "minus_sqrt")
    for d in (1, 7, 16)
]


# A group of its own, under several schedules.
GROUPS = [
    (dict(lr_mult=0.5, wd_mult=0.0), dict()),
    (dict(lr_mult=10.0, wd_mult=2.0), dict(lr_decay_style="WSD", wsd_decay_steps=7, lr_wsd_decay_style="minus_sqrt",
                                           start_wd=0.0, end_wd=0.2, wd_incr_style="linear", wd_incr_steps=7)),
    (dict(max_lr=5e-4, min_lr=2e-5), dict(lr_decay_style="linear")),
    (dict(max_lr=5e-4, min_lr=2e-5, lr_mult=3.0), dict(lr_decay_style="inverse-square-root")),
]


def curve(case, group=None):
    optimizer = torch.optim.AdamW([dict(params=[torch.nn.Parameter(torch.zeros(1))], **(group or {}))], lr=1e-4,
                                  weight_decay=0.1)
    scheduler = OptimizerParamScheduler(optimizer, **{**BASE, **case})
    lr, wd = [], []
    for _ in range(24):
        lr.append(optimizer.param_groups[0]["lr"])
        wd.append(optimizer.param_groups[0]["weight_decay"])
        scheduler.step(1)
    return dict(schedule={**BASE, **case}, lr=lr, wd=wd, **(dict(group=group) if group else {}))


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(c) for c in [*map(curve, CASES), *(curve(s, g) for g, s in GROUPS)])
    pathlib.Path(__file__).with_name("schedule_goldens.json").write_text(f"[\n{lines}\n]\n")
