"""Training in float16 with a loss scale, on the tiny Llama "gqa": losses, gradient norms, scales, skipped steps.

    python grad_scaler_golden.py

Writes golden/grad_scaler.json. Oracle: transformers in float16, torch.amp.GradScaler, torch.optim.AdamW on float32
masters, torch.nn.utils.clip_grad_norm_ behind unscale_. Gradients of micro-batches are added up in float32. In the
steps PLANTED one gradient is made infinite, or NaN, before it is unscaled.
"""
import json
import os
import random

import torch
from transformers import AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS, LR, MAX_NORM = 14, 3e-3, 1.0
SCALER = dict(init_scale=1024.0, growth_factor=2.0, backoff_factor=0.5, growth_interval=3)
PLANTED = {4: "inf", 5: "nan", 10: "inf"}


def main():
    rng = random.Random(7)
    rows = [[rng.randrange(67) for _ in range(rng.randrange(9, 21))] for _ in range(4)]
    source = os.path.join(HERE, "golden", "tiny_llama", "gqa")
    wide = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float16)
    params = list(model.parameters())
    masters = [p.detach().clone().requires_grad_() for p in wide.parameters()]
    optimizer = torch.optim.AdamW(masters, lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    scaler = torch.amp.GradScaler("cpu", **SCALER)
    count = sum(len(row) - 1 for row in rows)
    out = []
    for step in range(STEPS):
        total = 0.0
        for master in masters:
            master.grad = torch.zeros_like(master)
        for row in rows:
            logits = model(torch.tensor([row[:-1]])).logits[0].float()
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(row[1:]), reduction="sum")
            total += loss.item()
            scaler.scale(loss / count).backward()
            for p, master in zip(params, masters):
                master.grad += p.grad.float()
                p.grad = None
        if step in PLANTED:
            masters[3].grad.view(-1)[5] = float(PLANTED[step])
        scale = scaler.get_scale()
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(masters, MAX_NORM).item()
        scaler.step(optimizer)
        scaler.update()
        with torch.no_grad():
            for p, master in zip(params, masters):
                p.copy_(master)
        out.append({"loss": total / count, "grad_norm": None if step in PLANTED else norm, "loss_scale": scale})
    with open(os.path.join(HERE, "golden", "grad_scaler.json"), "w") as f:
        json.dump({"lr": LR, "max_norm": MAX_NORM, "scaler": SCALER, "planted": {str(k): v for k, v in PLANTED.items()},
                   "rows": rows, "steps": out, "last_scale": scaler.get_scale()}, f)
        f.write("\n")


main()
