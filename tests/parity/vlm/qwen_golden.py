"""Goldens of Qwen2-VL and Qwen2.5-VL: a tiny random checkpoint and what transformers computes of it.

    python qwen_golden.py [CASE ...]

Writes qwen/CASE/{config.json,generation_config.json,model.safetensors} as transformers' save_pretrained does; hub.json,
the same configuration as files on the hub spell it; and golden.safetensors: four rows with two pictures, none, one and
one: input_ids, attention_mask, labels, pixel_values, image_grid_thw; features, last_hidden_state of the tower;
rope_index [3,4,T] and rope_deltas of get_rope_index; logits; losses [3], before each of three steps of torch's AdamW
(lr 1e-3, weight decay 0.1); grad.NAME of the first and step.NAME after the third, under the names of
model.safetensors; a prompt with pictures, prompt.input_ids, prompt.pixel_values, prompt.image_grid_thw, and greedy, its
ids and the twelve that follow.

A seed is passed over where rounding would choose a greedy token.
"""
import os
import shutil
import sys
import tempfile

import qwen_families as qwen
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
NEW, TOKEN = 12, 2e-3


def same_from_hub_spelling(folder, inputs, logits):
    qwen.write_hub_config(folder, "hub.json")
    with tempfile.TemporaryDirectory() as other:
        shutil.copy(os.path.join(folder, "hub.json"), os.path.join(other, "config.json"))
        shutil.copy(os.path.join(folder, "model.safetensors"), other)
        with torch.no_grad():
            again = qwen.opened(other)(**qwen.for_transformers(inputs), use_cache=False).logits
    assert torch.equal(again, logits), folder


def attempt(name, folder, seed):
    """The golden of one seed, or why it is none."""
    case = qwen.CASES[name]
    gen = torch.Generator().manual_seed(seed)
    model = qwen.make(case, folder, gen)
    inputs = qwen.inputs_of(qwen.ROWS, case[2], gen, case[4])
    prompt = qwen.inputs_of([[(1, 2, 3), (1, 4, 1)]], case[2], gen)
    ids, margin, same = qwen.greedy(model, prompt, NEW)
    if not same:
        return None, "transformers' greedy tokens differ with its cache"
    if margin < TOKEN:
        return None, f"a lead of {margin:.1e}"
    golden = {**inputs, **qwen.numbers(model, inputs), "greedy": torch.tensor(ids)}
    for key in ("input_ids", "pixel_values", "image_grid_thw"):
        golden["prompt." + key] = prompt[key]
    with safe_open(os.path.join(folder, "model.safetensors"), "pt") as f:
        saved = {k: f.get_slice(k).get_shape() for k in f.keys()}
    for kind in ("grad.", "step."):
        found = {k[len(kind):]: list(v.shape) for k, v in golden.items() if k.startswith(kind)}
        assert found == saved, (name, kind, set(found) ^ set(saved))
    assert all(torch.isfinite(v).all() for v in golden.values() if v.is_floating_point())
    same_from_hub_spelling(folder, inputs, golden["logits"])
    return golden, f"lead {margin:.1e}"


def make(name):
    folder = os.path.join(HERE, "qwen", name)
    first = 100 * list(qwen.CASES).index(name)
    for seed in range(first, first + 100):
        shutil.rmtree(folder, ignore_errors=True)
        golden, what = attempt(name, folder, seed)
        if golden:
            break
    else:
        raise SystemExit(f"{name}: no seed of 100 will do: {what}")
    save_file({k: v.contiguous() for k, v in golden.items()}, os.path.join(folder, "golden.safetensors"), metadata={
        "made_with": f"torch {torch.__version__}, transformers {transformers.__version__}, seed {seed}"})
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    zero = [k for k, v in golden.items() if k.startswith("grad.") and v.abs().max() == 0]
    print(f"{name:16} seed {seed:4}  {size / 1e3:6.1f} kB  |features| {golden['features'].abs().max():5.2f}  "
          f"|logits| {golden['logits'].abs().max():6.2f}  loss {golden['losses'].tolist()}  {what}"
          + (f"  ZERO {zero}" if zero else ""), flush=True)
    return size


def main():
    sizes = [make(name) for name in sys.argv[1:] or qwen.CASES]
    print(f"{sum(sizes) / 1e6:.2f} MB in {len(sizes)} folders")


if __name__ == "__main__":
    main()
