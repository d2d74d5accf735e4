"""LoRA adapters made by PEFT on the tiny Llama `gqa`, with the logits they give.

    python peft_golden.py

Writes golden/peft/NAME/{adapter_config.json,adapter_model.safetensors,golden.safetensors}.
Run tiny_llama.py first.
"""
import json
import os

import common
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

BASE = "tiny_llama/gqa"
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = {
    "lora_all": dict(r=4, lora_alpha=8, target_modules=ALL),
    "lora_qv_rslora": dict(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj"], use_rslora=True),
}


def save_adapter(model, folder, base_name):
    """As PEFT saves it, without the model card and without the base model's local path."""
    model.peft_config["default"].base_model_name_or_path = base_name
    model.save_pretrained(folder)
    path = os.path.join(folder, "adapter_config.json")
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    config["target_modules"].sort()  # a set's order: another at every run
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config, f, indent=2, sort_keys=True)
    card = os.path.join(folder, "README.md")
    if os.path.exists(card):
        os.remove(card)


def make(name, seed):
    base_dir = common.golden_path(*BASE.split("/"))
    model = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    config = LoraConfig(lora_dropout=0.0, bias="none", task_type="CAUSAL_LM", **ADAPTERS[name])
    model = get_peft_model(model, config)
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_" in key:
                p.copy_(torch.randn(p.shape, generator=gen) * p.shape[1] ** -0.5 * 0.5)
    folder = os.path.dirname(common.golden_path("peft", name, "adapter_config.json"))
    save_adapter(model, folder, BASE)

    batch = load_file(os.path.join(base_dir, "golden.safetensors"))
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "labels")}
    out = model(**inputs, use_cache=False)
    out.loss.backward()
    golden = {**inputs, "logits": out.logits, "loss": out.loss.reshape(1)}
    saved = get_peft_model_state_dict(model)
    for key, p in model.named_parameters():
        if p.requires_grad:
            saved_as = key.replace(".default", "")
            assert torch.equal(saved[saved_as], p)
            golden["grad." + saved_as] = p.grad
    moved = (out.logits - batch["logits"]).abs().max().item()
    merged = model.merge_and_unload()
    with torch.no_grad():
        golden["logits_merged"] = merged(**inputs, use_cache=False).logits
    for key, p in merged.named_parameters():
        if "_proj" in key:
            golden["merged." + key] = p
    common.write_tensors(os.path.join(folder, "golden.safetensors"), golden)
    difference = (golden["logits_merged"] - out.logits).abs().max().item()
    print(f"{name}: moves logits by {moved:.2f}, merged differs by {difference:.1e}")


def main():
    for i, name in enumerate(ADAPTERS):
        make(name, 50 + i)


if __name__ == "__main__":
    main()
