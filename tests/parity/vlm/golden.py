"""Goldens of every vision-language model: a tiny random checkpoint and what transformers computes of it.

    python golden.py [CASE ...]

Writes golden/CASE/{config.json,generation_config.json,model.safetensors} as transformers' save_pretrained does, and
golden.safetensors: the inputs, three rows with two images, none and one, padded on the right; features [n,C], the rows
that stand in for image tokens; logits; losses [3], before each of three steps of torch's AdamW (lr 1e-3, weight decay
0.1); grad.NAME of the first, step.NAME, the parameters after the third, both under the names of model.safetensors;
prompt.NAME, the inputs of a prompt with an image, and greedy, its ids and ten that follow.

A seed is passed over where rounding would decide over a greedy token.
"""
import os
import shutil
import sys

import vlm_families as families
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
NEW, TOKEN = 10, 2e-3


def attempt(name, folder, seed):
    """The golden of one seed, or why it is none."""
    architecture, fields, spec = families.CASES[name]
    gen = torch.Generator().manual_seed(seed)
    model = families.make(architecture, fields, folder, gen)
    inputs = families.inputs_of(spec, gen)
    prompt = families.inputs_of(spec, gen, counts=(1,), lengths=(spec["tokens"] + 7,))
    prompt.pop("labels")
    ids, margin, same = families.greedy(model, prompt, NEW)
    if not same or margin < TOKEN:
        return None, f"a lead of {margin:.1e}, the same with a cache: {same}"
    golden = {**inputs, **{"prompt." + k: v for k, v in prompt.items()}, "greedy": torch.tensor(ids),
              "features": families.features(model, inputs), **families.text.losses_and_steps(model, inputs)}
    with safe_open(os.path.join(folder, "model.safetensors"), "pt") as f:
        saved = {k: f.get_slice(k).get_shape() for k in f.keys()}
    for kind in ("grad.", "step."):
        found = {k[len(kind):]: list(v.shape) for k, v in golden.items() if k.startswith(kind)}
        assert found == saved, (name, kind, set(found) ^ set(saved))
    assert all(torch.isfinite(v).all() for v in golden.values() if v.is_floating_point())
    return golden, f"lead {margin:.1e}"


def make(name):
    folder = os.path.join(HERE, "golden", name)
    first = 100 * list(families.CASES).index(name)
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
    print(f"{name:16} seed {seed:4}  {size / 1e3:6.1f} kB  |features| {golden['features'].abs().max():5.2f}  |logits| "
          f"{golden['logits'].abs().max():6.2f}  loss {golden['losses'].tolist()}  {what}"
          + (f"  ZERO {zero}" if zero else ""), flush=True)
    return size


def main():
    sizes = [make(name) for name in sys.argv[1:] or families.CASES]
    print(f"{sum(sizes) / 1e6:.2f} MB in {len(sizes)} folders")


if __name__ == "__main__":
    main()
