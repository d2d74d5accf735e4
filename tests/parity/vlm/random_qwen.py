"""Random configurations of Qwen2-VL and Qwen2.5-VL and random pictures, amlua against live transformers.

    AMLUA=build/amlua python random_qwen.py [--family NAME ...] [--count 20] [--seed 1] [--keep DIR]

As models/random_configs.py, whose rules and float64 it takes: draws towers (heads, merges, windows, layers that see
all, patches), language models (heads, windows, ties, rotary scaling and its sections) and batches (rows with none to
three pictures of any sizes, padded on the right or the left), and compares features, logits, losses, gradients, three
steps of AdamW, greedy tokens, and what transformers opens of what amlua saved.
"""
import sys

import qwen_families as qwen  # first: it sets transformers offline, and the path to the next
import random_configs as rules
import torch

FAMILIES = {"qwen2_vl": "Qwen2VLForConditionalGeneration", "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration"}
ACTIVATIONS = ["silu", "gelu", "gelu_pytorch_tanh", "quick_gelu"]


def sections(r, half):
    """Three parts of so many frequencies."""
    a, b = sorted(r.sample(range(1, half), 2))
    return [a, b - a, half - b]


def draw_case(r, name):
    """A case as qwen_families.CASES has it."""
    dim = 2 * r.choice([3, 4, 5, 8])
    kv, group = r.choice([1, 2, 3]), r.choice([1, 2])
    layers = r.randint(1, 3)
    text = dict(qwen.TEXT, num_attention_heads=kv * group, num_key_value_heads=kv, hidden_size=kv * group * dim,
                intermediate_size=r.randint(5, 30), num_hidden_layers=layers, max_position_embeddings=r.choice([24, 256]),
                rms_norm_eps=r.choice([1e-6, 1e-2]), hidden_act=r.choice(ACTIVATIONS),
                rope_parameters=dict(rules.scaled_rope(r, dim, 0.6), mrope_section=sections(r, dim // 2)))
    if rules.coin(r, 0.3):
        text.update(use_sliding_window=True, sliding_window=r.randint(2, 12), max_window_layers=r.randint(0, layers))
    heads, head, merge, patch = r.choice([1, 2, 3]), 4 * r.choice([1, 2, 3]), r.choice([1, 2, 2, 3]), r.choice([1, 2, 3])
    depth = r.randint(1, 4)
    vision = dict(depth=depth, num_heads=heads, in_channels=r.choice([1, 3]), patch_size=patch, spatial_merge_size=merge,
                  temporal_patch_size=r.choice([1, 2]), hidden_act=r.choice(ACTIVATIONS))
    if name == "qwen2_vl":
        vision.update(embed_dim=heads * head, hidden_size=text["hidden_size"], mlp_ratio=r.choice([1, 2, 4]))
    else:
        vision.update(hidden_size=heads * head, out_hidden_size=text["hidden_size"], intermediate_size=r.randint(3, 30),
                      # of one patch, which sees itself alone, no gradient goes to queries and keys but rounding
                      window_size=patch * merge * r.randint(2 if merge == 1 else 1, 4) + r.randint(0, patch * merge - 1),
                      fullatt_block_indexes=[i for i in range(depth) if rules.coin(r, 0.4)])
    return FAMILIES[name], text, vision, dict(tie_word_embeddings=rules.coin(r, 0.4)), rules.coin(r, 0.3)


def draw_rows(r, most):
    def picture():
        if rules.coin(r, 0.2):
            return r.choice([(1, 1, r.randint(1, 20)), (1, r.randint(1, 20), 1)])
        return (1, r.randint(1, 6), r.randint(1, 6))
    return [[picture() for _ in range(r.choice([0, 1, 1, 2, 3]))] for _ in range(most)]


def draw(r, name):
    case, rows = draw_case(r, name), draw_rows(r, r.randint(1, 4))
    rows[0].append((1, 2, 2))
    return {"case": case, "rows": rows}


def attempt(r, drawn, folder, gen):
    case = drawn["case"]
    model = qwen.make(case, folder, gen)
    inputs = qwen.inputs_of(drawn["rows"], case[2], gen, case[4])
    prompt = qwen.inputs_of([[(1, r.randint(1, 4), r.randint(1, 4))]], case[2], gen)
    if prompt["input_ids"].shape[1] + rules.NEW > model.config.text_config.max_position_embeddings:
        prompt = qwen.inputs_of([[(1, 1, 1)]], case[2], gen)
    prompt.pop("labels")
    ids, margin, same = qwen.greedy(model, prompt, rules.NEW)
    if margin < rules.TOKEN:
        return None
    stretches = case[1]["rope_parameters"]["rope_type"] in ("dynamic", "longrope")
    return {**inputs, "stretches": torch.tensor([int(stretches)])}, prompt, \
        {**qwen.numbers(model, inputs), "greedy": torch.tensor(ids), "cache": same}


if __name__ == "__main__":
    sys.exit(rules.main(__doc__, FAMILIES, draw, attempt, qwen.numbers))
