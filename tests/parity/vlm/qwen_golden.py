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

import qwen_families as qwen  # first: it sets the path to the next
import oracle
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
NEW, TOKEN = 12, 2e-3


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
    qwen.write_hub_config(folder, "hub.json")
    oracle.same_from_hub_spelling(folder, golden["logits"], qwen.for_transformers(inputs))
    return golden, f"lead {margin:.1e}"


if __name__ == "__main__":
    oracle.main(os.path.join(HERE, "qwen"), qwen.CASES, attempt)
