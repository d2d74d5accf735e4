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

import vlm_families as families  # first: it sets the path to the next
import oracle
import torch

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
    return golden, f"lead {margin:.1e}"


if __name__ == "__main__":
    oracle.main(os.path.join(HERE, "golden"), families.CASES, attempt)
