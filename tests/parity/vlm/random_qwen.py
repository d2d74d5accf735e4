"""Random configurations of Qwen2-VL and Qwen2.5-VL and random pictures, amlua against live transformers.

    AMLUA=build/amlua python random_qwen.py [--family NAME ...] [--count 20] [--seed 1] [--keep DIR]

As models/random_configs.py, whose rules and float64 it takes: draws towers (heads, merges, windows, layers that see
all, patches), language models (heads, windows, ties, rotary scaling and its sections) and batches (rows with none to
three pictures of any sizes, padded on the right or the left), and compares features, logits, losses, gradients, three
steps of AdamW, greedy tokens, and what transformers opens of what amlua saved.
"""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

import qwen_families as qwen  # first: it sets transformers offline, and the path to the next two
import float64
import random_configs as rules
import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
FAMILIES = {"qwen2_vl": "Qwen2VLForConditionalGeneration", "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration"}
ACTIVATIONS = ["silu", "gelu", "gelu_pytorch_tanh", "quick_gelu"]


def sections(r, half):
    """Three parts of so many frequencies."""
    a, b = sorted(r.sample(range(1, half), 2))
    return [a, b - a, half - b]


def draw(r, name):
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


def make_case(name, index, seed, folder):
    r = random.Random(f"{seed} {name} {index}")
    case = draw(r, name)
    rows = draw_rows(r, r.randint(1, 4))
    rows[0].append((1, 2, 2))
    os.makedirs(folder)
    with open(os.path.join(folder, "drawn.json"), "w", encoding="utf-8") as f:
        json.dump({"case": case, "rows": rows}, f, indent=1)
    for attempt in range(10):
        gen = torch.Generator().manual_seed(attempt)
        model = qwen.make(case, os.path.join(folder, "model"), gen)
        inputs = qwen.inputs_of(rows, case[2], gen, case[4])
        prompt = qwen.inputs_of([[(1, r.randint(1, 4), r.randint(1, 4))]], case[2], gen)
        if prompt["input_ids"].shape[1] + rules.NEW > model.config.text_config.max_position_embeddings:
            prompt = qwen.inputs_of([[(1, 1, 1)]], case[2], gen)
        ids, margin, same = qwen.greedy(model, prompt, rules.NEW)
        if margin >= rules.TOKEN:
            stretches = case[1]["rope_parameters"]["rope_type"] in ("dynamic", "longrope")
            save_file({**{k: v.contiguous() for k, v in inputs.items()}, "total": torch.tensor([len(ids)]),
                       "stretches": torch.tensor([int(stretches)]),
                       **{"prompt." + k: v for k, v in prompt.items() if k != "labels"}},
                      os.path.join(folder, "inputs.safetensors"))
            return {**qwen.numbers(model, inputs), "greedy": torch.tensor(ids), "cache": same}
    return None


def in_float64(folder, seed=None):
    """What float64.losses_and_steps does, of a model with pictures."""
    model = qwen.opened(os.path.join(folder, "model")).double()
    for module in model.modules():
        if type(module).__name__.endswith("RotaryEmbedding"):
            module.float()
    if seed is not None:
        gen = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1 + 2.0 ** -24 * (2 * torch.rand(p.shape, generator=gen, dtype=torch.float64) - 1))
    inputs = {k: v for k, v in load_file(os.path.join(folder, "inputs.safetensors")).items()
              if k in ("input_ids", "attention_mask", "labels", "pixel_values", "image_grid_thw")}
    inputs["pixel_values"] = inputs["pixel_values"].double()
    with float64._Wide():
        return qwen.numbers(model, inputs)


def opens_saved(folder):
    """Why what amlua saved is not what transformers made of it, or None."""
    model, info = transformers.AutoModelForImageTextToText.from_pretrained(
        os.path.join(folder, "saved"), dtype="auto", attn_implementation="eager", output_loading_info=True)
    original = qwen.opened(os.path.join(folder, "model"))
    for kind, names in info.items():
        if names:
            return f"saved: {kind} {sorted(names)[:3]}"
    a, b = model.state_dict(), original.state_dict()
    for name in sorted(set(a) | set(b)):
        if name not in a or name not in b or a[name].dtype != b[name].dtype or not torch.equal(a[name], b[name]):
            return f"saved: {name} is not equal"
    mine, theirs = (m.config.to_dict() for m in (model, original))
    for key in sorted(set(mine) | set(theirs)):
        if not key.startswith("_") and key != "transformers_version" and mine.get(key) != theirs.get(key):
            return f"saved: config.json's {key} is {mine.get(key)!r}, was {theirs.get(key)!r}"
    return None


def compare(folder, want, exact=None, moved=()):
    result, problem = rules.compare(folder, want, exact, moved)
    have, true = load_file(os.path.join(folder, "out.safetensors"))["features"], (exact or want)["features"]
    allowed = max(rules.LOGITS, *(2 * rules.off(w["features"], true) for w in (want, *moved)))
    result["features"] = rules.off(have, true) / allowed
    if result["features"] > 1 and not problem:
        problem = f"features are {result['features'] * allowed:.2g} off, {allowed:.2g} allowed"
    return result, problem


def run_family(name, count, seed, root):
    wants = {}
    for index in range(count):
        folder = os.path.join(root, f"{name}_{index}")
        want = make_case(name, index, seed, folder)
        if want is None:
            print(f"{name}_{index}: left out, rounding decides", flush=True)
            shutil.rmtree(folder)
        else:
            wants[folder] = want
    subprocess.run([os.environ.get("AMLUA", "amlua"), os.path.join(HERE, "random_qwen.lua"), *wants],
                   cwd=rules.PROJECT, check=True)
    failed = 0
    for folder, want in wants.items():
        result, problem, verdict = {}, None, "ok  "
        error = os.path.join(folder, "error.txt")
        if os.path.exists(error):
            with open(error, encoding="utf-8") as f:
                problem = f.read().strip()
        else:
            result, problem = compare(folder, want)
            if problem:
                exact, *moved = (in_float64(folder, at) for at in (None, *range(rules.MOVED)))
                result, problem = compare(folder, want, exact, moved)
                verdict = "ok64"
            problem = problem or opens_saved(folder)
        failed += problem is not None
        row = "  ".join(f"{k} {v:.2g}" for k, v in result.items())
        print(f"{'FAIL' if problem else verdict} {os.path.basename(folder):14} {row}"
              + (f"\n     {problem}" if problem else ""), flush=True)
        if problem:
            with open(os.path.join(folder, "drawn.json"), encoding="utf-8") as f:
                print("     " + json.dumps(json.load(f)), flush=True)
    return len(wants), failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep")
    args = parser.parse_args()
    root = args.keep or tempfile.mkdtemp()
    print("numbers are errors in parts of what is allowed")
    totals = [(name, *run_family(name, args.count, args.seed, root)) for name in args.family]
    if not args.keep:
        shutil.rmtree(root)
    for name, count, failed in totals:
        print(f"{name:12} {count - failed} of {count}")
    return 1 if any(failed for _, _, failed in totals) else 0


if __name__ == "__main__":
    sys.exit(main())
