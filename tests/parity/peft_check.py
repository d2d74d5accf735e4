"""Does PEFT open an adapter that amlua wrote, and mean the same by it?

    python peft_check.py --model DIR --adapter DIR [--params FILE.safetensors] [--greedy FILE.json] [--converted]

--params: the adapter's tensors as amlua holds them, named as in adapter_model.safetensors.
--greedy: list of {input_ids, output_ids}, greedy continuations by amlua with the adapter active.
--converted: PEFT turns experts' tensors into those of transformers 5, so names in the file may be others.
Exit status 1 when something differs.
"""
import argparse
import json
import os
import sys
import warnings

import check_common
import common  # noqa: F401, sets transformers offline and quiet
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--params")
    parser.add_argument("--greedy")
    parser.add_argument("--converted", action="store_true")
    args = parser.parse_args()
    with open(os.path.join(args.adapter, "adapter_config.json"), encoding="utf-8") as f:
        is_classifier = json.load(f)["task_type"] == "SEQ_CLS"
    kind, more = (AutoModelForSequenceClassification, {"num_labels": 3}) if is_classifier else (AutoModelForCausalLM, {})
    base = kind.from_pretrained(args.model, dtype=torch.float32, **more)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base, args.adapter).eval()
    wrong = [f"PEFT warns: {w.message}" for w in caught if "key" in str(w.message)
             and not (args.converted and "gate_up_proj" in str(w.message))]  # which PEFT itself has put there
    # False: without the base's own embeddings, which PEFT adds to an adapter of them
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    with safe_open(os.path.join(args.adapter, "adapter_model.safetensors"), "pt") as f:
        wrong += [f"{name}: PEFT ignores it" for name in f.keys()
                  if name not in state and not (args.converted and ".experts." in name)]
    done = f"{len(state)} adapter tensors opened by PEFT"
    if not any(v.abs().max() > 0 for k, v in state.items() if "lora_B" in k or "lora_embedding_A" in k):
        wrong.append("what an adapter begins with is zero: nothing was trained, or nothing was loaded")
    if args.params:
        found, count = check_common.same_parameters(state, args.params)
        wrong, done = wrong + found, done + f", {count} compared"
    if args.greedy:
        found, count = check_common.same_greedy(model, args.greedy)
        wrong, done = wrong + found, done + f", {count} greedy continuations"
    return check_common.report(wrong, done)


if __name__ == "__main__":
    sys.exit(main())
