"""Do transformers and PEFT open what amlua writes of every vision-language model, and mean the same by it?

    AMLUA=build/amlua python vlm_check.py [CASE ...] [--keep DIR]

CASE: folders with a tiny checkpoint and its golden; without any all that there are. amlua (vlm_check.lua) trains each a
few steps: whole, with an adapter of the language model and the projector whole, and with an adapter of every linear
map, which it merges. transformers opens the two models (no tensor is missing or left over), PEFT the two adapters on
the checkpoint; features of pictures, logits and greedy tokens with a cache must be amlua's. A row for each; exit status
1 when one differs.
"""
import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))

import common  # noqa: E402,F401, sets transformers offline and quiet
import torch  # noqa: E402
import transformers  # noqa: E402
from peft import PeftModel, get_peft_model_state_dict  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

PROJECT = os.path.abspath(os.path.join(HERE, "..", "..", ".."))
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "pixel_values", "pixel_attention_mask", "image_grid_thw")
PICTURES = ("pixel_values", "pixel_attention_mask", "image_grid_thw")
# Ten times what the tests allow: a few long steps make some tiny models amplify rounding. Mistakes are far more.
LOGITS = 1e-4


def all_cases():
    found = []
    for config in sorted(glob.glob(os.path.join(HERE, "..", "v*", "*", "*", "config.json"))):
        with open(config, encoding="utf-8") as f:
            if (json.load(f).get("architectures") or [""])[0].endswith("ForConditionalGeneration"):
                found.append(os.path.dirname(os.path.abspath(config)))
    return found


def opened(folder):
    model, info = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    return model.eval(), [f"{kind}: {names}" for kind, names in info.items() if names]


def prompt_of(model, batch):
    """The batch's first row with its pictures, without padding."""
    ids = batch["input_ids"][0][batch["attention_mask"][0] == 1]
    out = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None]}
    if "token_type_ids" in batch:
        types = batch["token_type_ids"][0][batch["attention_mask"][0] == 1]
        out["token_type_ids"] = (torch.zeros_like(types) if "PaliGemma" in type(model).__name__ else types)[None]
    tokens = int((ids == model.config.image_token_id).sum())
    pixels = batch["pixel_values"]
    if "image_grid_thw" in batch:
        merge, count, patches = model.config.vision_config.spatial_merge_size ** 2, 0, 0
        while patches < tokens * merge:
            patches += int(batch["image_grid_thw"][count].prod())
            count += 1
        out.update(pixel_values=pixels[:patches], image_grid_thw=batch["image_grid_thw"][:count])
    elif pixels.dim() == 5:
        out.update({k: batch[k][:1] for k in PICTURES if k in batch})
    else:
        all_tokens = int((batch["input_ids"] == model.config.image_token_id).sum())
        out["pixel_values"] = pixels[:tokens * len(pixels) // all_tokens]
    return {k: v.contiguous() for k, v in out.items()}


def with_types(model, inputs):
    """Inputs with what Qwen's models of transformers want to be told beside their ids: which are pictures'."""
    if "image_grid_thw" not in inputs:
        return inputs
    return {**inputs, "mm_token_type_ids": (inputs["input_ids"] == model.config.image_token_id).int()}


def difference(what, have, want, keep=None):
    if have.shape != want.shape:
        return [f"{what} are {list(have.shape)}, not {list(want.shape)}"]
    if keep is not None:
        have, want = have[keep], want[keep]
    worst = ((have - want).abs().max() / want.abs().max()).item()
    return [] if worst <= LOGITS else [f"{what} differ by {worst:.2g} of the largest"]


def compare(model, batch, prompt, file):
    """What a model computes otherwise than the outputs in a file."""
    mine, inner = load_file(file), getattr(model, "base_model", model)
    inner = inner.model if isinstance(model, PeftModel) else model
    with torch.no_grad():
        features = inner.model.get_image_features(**{k: batch[k] for k in PICTURES if k in batch},
                                                  return_dict=True).pooler_output
        features = torch.cat(list(features), 0) if isinstance(features, (list, tuple)) else features
        wrong = difference("features", mine["features"], features.reshape(-1, features.shape[-1]))
        inputs = with_types(inner, {k: batch[k] for k in INPUTS if k in batch})
        logits = model(**inputs, use_cache=False).logits
        wrong += difference("logits", mine["logits"], logits, batch["attention_mask"] == 1)
        inner.generation_config.eos_token_id = None
        count = mine["greedy"].numel() - prompt["input_ids"].numel()
        greedy = model.generate(**with_types(inner, prompt), do_sample=False, max_new_tokens=count, use_cache=True)[0]
    if greedy.tolist() != mine["greedy"].tolist():
        wrong.append(f"greedy tokens are {mine['greedy'].tolist()[-count:]}, not {greedy.tolist()[-count:]}")
    return wrong


def adapted(case, folder):
    """The checkpoint with an adapter opened by PEFT, and what is wrong about its names."""
    base, _ = opened(case)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base, folder).eval()
    wrong = [f"PEFT warns: {w.message}" for w in caught if "key" in str(w.message)]
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    with safe_open(os.path.join(folder, "adapter_model.safetensors"), "pt") as f:
        names = set(f.keys())
    if names != set(state):
        wrong.append(f"PEFT has other tensors: {sorted(names ^ set(state))[:4]}")
    return model, wrong


def check(case, work, amlua):
    batch = load_file(os.path.join(case, "golden.safetensors"))
    model, _ = opened(case)
    prompt = prompt_of(model, batch)
    save_file(prompt, os.path.join(work, "prompt.safetensors"))
    ran = subprocess.run([amlua, os.path.join(HERE, "vlm_check.lua"), case, work], cwd=PROJECT, text=True,
                         capture_output=True)
    if ran.returncode != 0:
        return ["amlua: " + (ran.stderr.strip() or ran.stdout.strip())[-400:]]
    wrong = []
    for name, is_adapter in (("full", False), ("merged", False), ("text", True), ("all", True)):
        folder = os.path.join(work, name)
        model, found = adapted(case, folder) if is_adapter else opened(folder)
        found += compare(model, batch, prompt, folder + ".safetensors")
        wrong += [f"{name}: {text}" for text in found]
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--keep", help="a folder for what is written")
    args = parser.parse_args()
    amlua = os.path.abspath(os.environ.get("AMLUA", os.path.join(PROJECT, "build", "amlua")))
    bad = 0
    for case in [os.path.abspath(c) for c in args.cases] or all_cases():
        with tempfile.TemporaryDirectory() as folder:
            work = os.path.join(args.keep or folder, os.path.basename(case))
            os.makedirs(work, exist_ok=True)
            wrong = check(case, work, amlua)
        bad += bool(wrong)
        print(f"{os.path.basename(case):20} {'DIFFERS' if wrong else 'equal'}", flush=True)
        for line in wrong:
            print("    " + line, flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
