"""LoRA adapters made by PEFT on the tiny models of models/golden that differ from Llama where an adapter is put,
with the logits and, where both keep the same tensors, the gradients they give.

    python peft_families_golden.py [NAME...]

Writes golden/peft_families/NAME/{adapter_config.json,adapter_model.safetensors,golden.safetensors}; without names
all. A name that ends in _v4 has the names of transformers 4, an adapter for each expert, and is opened by PEFT.
"""
import os
import shutil
import warnings

import common
import peft_golden
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

MODELS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "models", "golden")
# name -> model, LoraConfig's arguments, are its tensors those that amlua keeps
ADAPTERS = {
    "mixtral": ("mixtral", dict(target_modules=["q_proj", "w1", "w2", "w3"]), False),
    "mixtral_v4": ("mixtral", dict(target_modules=["q_proj", "w1", "w2", "w3"]), False),
    "qwen3_moe_v4": ("qwen3_moe", dict(target_modules=["gate_proj", "up_proj", "down_proj"]), False),
    "olmoe": ("olmoe", dict(target_modules="all-linear"), False),
    "granitemoe": ("granitemoe", dict(target_modules=["q_proj"], target_parameters=[
        "experts.gate_up_proj", "experts.down_proj"]), True),
    "gpt2": ("gpt2", dict(target_modules=["c_attn", "c_proj"]), True),
    "gpt2_dora": ("gpt2", dict(target_modules=["c_fc", "c_attn"], use_dora=True), True),
    "gpt_neox": ("gpt_neox", dict(target_modules="all-linear"), True),
    "phi3": ("phi3", dict(target_modules=["qkv_proj", "gate_up_proj"], rank_pattern={"qkv_proj": 3},
                          alpha_pattern={r"layers\.1\..*gate_up_proj": 9}), True),
    "gemma3": ("gemma3", dict(target_modules=["embed_tokens", "o_proj"]), True),
}
EXPERTS = {"mixtral": ("block_sparse_moe", ["w1", "w2", "w3"]),
           "qwen3_moe": ("mlp", ["gate_proj", "up_proj", "down_proj"])}


def write_v4(model, folder, kind, config, gen):
    """An adapter as PEFT wrote it with transformers 4, of random numbers."""
    block, names = EXPERTS[kind]
    c, tensors = model.config, {}
    inner = getattr(c, "moe_intermediate_size", None) or c.intermediate_size

    def add(path, out, into):
        for side, shape in (("A", (config.r, into)), ("B", (out, config.r))):
            tensors[f"base_model.model.{path}.lora_{side}.weight"] = 0.5 * shape[1] ** -0.5 * torch.randn(
                shape, generator=gen)

    for layer in range(c.num_hidden_layers):
        for expert in range(c.num_local_experts if hasattr(c, "num_local_experts") else c.num_experts):
            for name in names:
                down = name in ("w2", "down_proj")
                add(f"model.layers.{layer}.{block}.experts.{expert}.{name}", *(
                    (c.hidden_size, inner) if down else (inner, c.hidden_size)))
        if "q_proj" in config.target_modules:
            q = model.model.layers[layer].self_attn.q_proj
            add(f"model.layers.{layer}.self_attn.q_proj", q.out_features, q.in_features)
    config.save_pretrained(folder)
    save_file(tensors, os.path.join(folder, "adapter_model.safetensors"), metadata={"format": "pt"})


def make(name, seed):
    kind, options, same_tensors = ADAPTERS[name]
    base_dir = os.path.join(MODELS, kind)
    base = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32, attn_implementation="eager")
    gen = torch.Generator().manual_seed(seed)
    folder = os.path.dirname(common.golden_path("peft_families", name, "adapter_config.json"))
    shutil.rmtree(folder)
    os.makedirs(folder)
    config = LoraConfig(r=2, lora_alpha=5, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM", **options)
    if name.endswith("_v4"):
        write_v4(base, folder, kind, config, gen)
        model = PeftModel.from_pretrained(base, folder)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of weights that are tied, of [in, out]
            model = get_peft_model(base, config)
        peft_golden.random_adapter(model, gen)
        peft_golden.save_adapter(model, folder, "models/golden/" + kind)
    batch = load_file(os.path.join(base_dir, "golden.safetensors"))
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "position_ids", "labels")}
    model.eval()
    out = model(**inputs, use_cache=False)
    golden = {**inputs, "logits": out.logits}
    if same_tensors:
        out.loss.backward()
        golden.update(peft_golden.adapter_gradients(model, folder))
    common.write_tensors(os.path.join(folder, "golden.safetensors"), golden)
    peft_golden.report(name, folder, out.logits - batch["logits"])


if __name__ == "__main__":
    peft_golden.make_all(ADAPTERS, make, 150)
