"""LoRA adapters made by PEFT on tiny Llamas (`gqa` where nothing else is said), with the logits they give.

    python peft_golden.py [NAME...]

Writes golden/peft/NAME/{adapter_config.json,adapter_model.safetensors,golden.safetensors}; without names all.
Run tiny_llama.py first.
"""
import json
import os
import sys
import warnings

import common
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

BASE = "tiny_llama/gqa"
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = {
    "lora_all": dict(r=4, lora_alpha=8, target_modules=ALL),
    "lora_qv_rslora": dict(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj"], use_rslora=True),
    "dora": dict(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"], use_dora=True),
    "dora_embedding": dict(r=2, lora_alpha=3, target_modules=["embed_tokens", "lm_head"], use_dora=True),
    "embedding": dict(r=3, lora_alpha=5, target_modules=["embed_tokens", "lm_head", "v_proj"]),
    "embedding_tied": dict(r=3, lora_alpha=5, target_modules=["embed_tokens", "v_proj"]),
    "head_tied": dict(r=3, lora_alpha=5, target_modules=["lm_head"], use_rslora=True),
    "saved_tied": dict(r=2, lora_alpha=5, target_modules=["v_proj"], modules_to_save=["embed_tokens"]),
    "seq_cls": dict(r=2, lora_alpha=5, target_modules=["v_proj"], task_type="SEQ_CLS"),
}
BASES = {"dora": "tiny_llama/attention_bias", "embedding_tied": "tiny_llama/gqa_tied",
         "head_tied": "tiny_llama/gqa_tied", "saved_tied": "tiny_llama/gqa_tied"}
# Of these all merged weights are kept, of others one; PEFT changes the head when it merges a tied embedding.
FULL = ["lora_all", "lora_qv_rslora"]
NOT_MERGED = ["embedding_tied", "head_tied", "saved_tied", "seq_cls"]


def save_adapter(model, folder, base_name):
    """As PEFT saves it, without the model card and without the base model's local path."""
    model.peft_config["default"].base_model_name_or_path = base_name
    model.save_pretrained(folder)
    path = os.path.join(folder, "adapter_config.json")
    with open(path, encoding="utf-8") as f:
        config = json.load(f)
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()  # a set's order: another at every run
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config, f, indent=2, sort_keys=True)
    card = os.path.join(folder, "README.md")
    if os.path.exists(card):
        os.remove(card)


def saved_name(key):
    """A parameter's name in adapter_model.safetensors."""
    key = key.replace(".modules_to_save.default", "").replace(".default", "")
    return key.removesuffix(".weight") if "lora_magnitude_vector" in key else key


def random_adapter(model, gen):
    """Give the adapter numbers that do something; magnitudes stay near the norms, a head is all new."""
    with torch.no_grad():
        for key, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=gen) if p.requires_grad else None
            if "lora_magnitude_vector" in key:
                p.copy_(p * (1 + 0.2 * noise))
            elif "lora_embedding_A" in key:
                p.copy_(noise * 0.5)
            elif p.requires_grad:
                p.copy_(noise * p.shape[1] ** -0.5 * (0.5 if "lora_" in key else 1))


def adapter_gradients(model, folder=None):
    """{grad.NAME} of what is trained, by names in adapter_model.safetensors, whose numbers in a folder are the same."""
    saved, out = folder and load_file(os.path.join(folder, "adapter_model.safetensors")), {}
    for key, p in model.named_parameters():
        if p.requires_grad:
            assert not saved or torch.equal(saved[saved_name(key)], p), key
            out["grad." + saved_name(key)] = p.grad
    return out


def report(name, folder, moved):
    """Print of an adapter how far it moves logits, and the sizes of its files."""
    print(f"{name}: logits moved by {moved.abs().max().item():.2f}, " + ", ".join(
        f"{f} {os.path.getsize(os.path.join(folder, f)) / 1e3:.0f} kB" for f in sorted(os.listdir(folder))))


def make_all(adapters, make, seed):
    """make(name, seed) of the adapters that the command line names, or of all, each with a seed of its own."""
    for i, name in enumerate(adapters):
        if len(sys.argv) < 2 or name in sys.argv[1:]:
            make(name, seed + i)


def load_base(name, base_dir):
    if name == "seq_cls":
        return AutoModelForSequenceClassification.from_pretrained(base_dir, dtype=torch.float32, num_labels=3)
    return AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)


def scores(model, inputs):
    """The head's output for every position, where the model gives one for each row."""
    hidden = model.base_model.model.model(**inputs, use_cache=False).last_hidden_state
    return model.base_model.model.score(hidden)


def make(name, seed):
    base_name = BASES.get(name, BASE)
    base_dir = common.golden_path(*base_name.split("/"))
    model = load_base(name, base_dir)
    config = LoraConfig(lora_dropout=0.0, bias="none", **{"task_type": "CAUSAL_LM", **ADAPTERS[name]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that are tied
        model = get_peft_model(model, config)
    gen = torch.Generator().manual_seed(seed)
    random_adapter(model, gen)
    folder = os.path.dirname(common.golden_path("peft", name, "adapter_config.json"))
    save_adapter(model, folder, base_name)

    batch = load_file(os.path.join(base_dir, "golden.safetensors"))
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "labels")}
    if name == "seq_cls":
        logits = scores(model, {k: inputs[k] for k in ("input_ids", "attention_mask")})
        # some scalar whose gradient reaches everything: the sum of squares of what counts
        loss = (logits.pow(2) * inputs["attention_mask"].unsqueeze(2)).sum()
    else:
        out = model(**inputs, use_cache=False)
        logits, loss = out.logits, out.loss
    loss.backward()
    gradients = adapter_gradients(model, folder)
    golden = {**inputs, "logits": logits, "loss": loss.reshape(1), **gradients}
    if name not in NOT_MERGED:
        merged = model.merge_and_unload()
        with torch.no_grad():
            golden["logits_merged"] = merged(**inputs, use_cache=False).logits
        kept = [key for key, _ in merged.named_parameters() if "_proj" in key or "embed" in key]
        for key, p in merged.named_parameters():
            if key in (kept if name in FULL else kept[:2]) and ("_proj" in key or name not in FULL):
                golden["merged." + key] = p
    common.write_tensors(os.path.join(folder, "golden.safetensors"), golden)
    print(f"{name}: {len(gradients)} gradients" + ("" if name in NOT_MERGED else ", merged differs by %.1e"
          % (golden["logits_merged"] - logits).abs().max().item()))


if __name__ == "__main__":
    make_all(ADAPTERS, make, 50)
