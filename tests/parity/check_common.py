"""What peft_check.py and hf_check.py share: comparing parameters and greedy tokens."""
import json

import torch
from safetensors.torch import load_file


def same_parameters(found, dump_path, aliases=()):
    """Complaints about `found` (name -> tensor) against a safetensors dump; bits must agree.
    Names in `aliases` (a tied head) may be absent from the dump."""
    dump = load_file(dump_path)
    wrong = []
    for name in sorted(set(dump) | set(found)):
        if name not in dump:
            if name not in aliases:
                wrong.append(f"{name}: not in the dump")
        elif name not in found:
            wrong.append(f"{name}: only in the dump")
        elif found[name].dtype != dump[name].dtype or found[name].shape != dump[name].shape:
            wrong.append(f"{name}: {found[name].dtype} {list(found[name].shape)} loaded, "
                         f"{dump[name].dtype} {list(dump[name].shape)} in the dump")
        elif not torch.equal(found[name], dump[name]):
            delta = (found[name].double() - dump[name].double()).abs().max().item()
            wrong.append(f"{name}: values differ by up to {delta:.3g}")
    return wrong, len(dump)


def same_greedy(model, greedy_path):
    """Complaints about the greedy continuations in a JSON list of {input_ids, output_ids}."""
    with open(greedy_path, encoding="utf-8") as f:
        cases = json.load(f)
    wrong = []
    for i, case in enumerate(cases):
        ids = torch.tensor([case["input_ids"]])
        expected = case["output_ids"]
        with torch.no_grad():
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                 max_new_tokens=len(expected), num_beams=1)
        got = out[0, ids.shape[1]:].tolist()
        if got != expected:
            at = next((j for j, (a, b) in enumerate(zip(got, expected)) if a != b),
                      min(len(got), len(expected)))
            wrong.append(f"greedy {i}: differs at token {at} of {len(expected)}: {got[at:at + 4]} "
                         f"instead of {expected[at:at + 4]}")
    return wrong, len(cases)


def report(wrong, done):
    for line in wrong:
        print("WRONG " + line)
    print(f"{done}: {'FAILED' if wrong else 'equal'}")
    return 1 if wrong else 0
