"""100 optimizer steps on SmolLM2-135M-Instruct in bf16 and by torchao's float8 recipes, emulated.

    python fp8_train.py MODEL_DIR OUT.json [bf16] [tensorwise] [rowwise] [rowwise_with_gw_hp]

MODEL_DIR is what get_model.py wrote; OUT.json keeps what it has of other runs. Writes the rows of token ids
("rows", two of 65 for each step, of the pages in docs/) and each run's losses. fp8_train.lua runs amlua on the
same rows and compares. No row comes twice: losses of rows that are learnt by heart go to 0, and 8 bits are
then far off bf16, torchao's as well. Rows have no padding: a scale of a whole tensor is of the padding's
activations, too, which mean nothing and differ between implementations. The head stays in bf16 (filter_fqns:
[lm_head]); weights have f32 masters. About 5 s a step on one idle core.
"""
import dataclasses
import json
import os
import sys

import common
import torch
from torchao.float8 import Float8LinearConfig, convert_to_float8_training
from transformers import AutoModelForCausalLM, AutoTokenizer

STEPS, LENGTH, ROWS, LR, MAX_NORM = 100, 65, 2, 2e-5, 1.0
ADAMW = dict(betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)


def make_rows(model_dir):
    """Pages of docs/ one behind the other, in rows."""
    text, pages = "", os.path.join(common.HERE, "..", "..", "docs")
    for name in sorted(os.listdir(pages)):
        if name.endswith(".md"):
            with open(os.path.join(pages, name), encoding="utf-8") as f:
                text += f.read()
    ids = AutoTokenizer.from_pretrained(model_dir)(text[:20 * STEPS * ROWS * LENGTH]).input_ids
    return torch.tensor(ids[:STEPS * ROWS * LENGTH]).reshape(-1, LENGTH)


def train(model_dir, rows, recipe):
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    masters = [p.detach().clone().requires_grad_() for p in model.parameters()]
    model.to(torch.bfloat16)
    if recipe != "bf16":
        config = dataclasses.replace(Float8LinearConfig.from_recipe_name(recipe), emulate=True)
        convert_to_float8_training(model, config=config, module_filter_fn=lambda _, name: "lm_head" not in name)
    optimizer = torch.optim.AdamW(masters, lr=LR, **ADAMW)
    model.train()
    losses = []
    for step in range(STEPS):
        batch = rows[step * ROWS:(step + 1) * ROWS]
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        for master, p in zip(masters, model.parameters()):
            master.grad, p.grad = p.grad.float(), None
        torch.nn.utils.clip_grad_norm_(masters, MAX_NORM)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for master, p in zip(masters, model.parameters()):
                p.copy_(master)
        losses.append(loss.item())
        print(f"{recipe} step {step + 1:3}  loss {losses[-1]:.6f}", flush=True)
    return losses


def main():
    model_dir, out, runs = sys.argv[1], sys.argv[2], sys.argv[3:] or ["bf16", "tensorwise", "rowwise"]
    result = {"rows": make_rows(model_dir).tolist(), "losses": {}}
    if os.path.exists(out):
        with open(out, encoding="ascii") as f:
            result = json.load(f)
    for run in runs:
        losses = train(model_dir, torch.tensor(result["rows"]), run)
        result.update(steps=STEPS, rows_at_once=ROWS, lr=LR, max_norm=MAX_NORM, **ADAMW)
        result["losses"][run] = losses
        with open(out, "w", encoding="ascii") as f:
            json.dump(result, f)


if __name__ == "__main__":
    main()
