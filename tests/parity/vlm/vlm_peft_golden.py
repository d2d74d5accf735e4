"""LoRA adapters made by PEFT on the tiny models of golden/, with the logits and gradients that they give on the rows of
the model's own golden.

    python vlm_peft_golden.py [NAME...]

Writes golden_peft/NAME/{adapter_config.json,adapter_model.safetensors,golden.safetensors}; without names all. One that
ends in _v4 has the names of transformers 4 and is opened by PEFT.
"""
import os
import shutil
import warnings

import torch
import vlm_families as families
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

import common  # beside this folder, as what follows; vlm_families has put it on the path
import peft_golden

HERE = os.path.dirname(os.path.abspath(__file__))
# name -> model, LoraConfig's arguments
ADAPTERS = {
    "gemma3_text": ("gemma3", dict(target_modules=r".*language_model.*\.(q|v|up)_proj")),
    "gemma3_all": ("gemma3", dict(target_modules="all-linear")),
    "gemma3_v4": ("gemma3", dict(target_modules="all-linear")),
    "idefics3_all": ("idefics3", dict(target_modules="all-linear", use_rslora=True)),
    "smolvlm_saved": ("smolvlm", dict(target_modules=["q_proj", "fc1"], modules_to_save=["connector"])),
}


def to_v4(folder):
    """Rename an adapter's tensors as PEFT wrote them with transformers 4."""
    path = os.path.join(folder, "adapter_model.safetensors")
    save_file({k.replace("base_model.model.model.language_model.", "base_model.model.language_model.model.")
               .replace("base_model.model.model.vision_tower.", "base_model.model.vision_tower.vision_model."): v
               for k, v in load_file(path).items()}, path, metadata={"format": "pt"})


def make(name, seed):
    kind, options = ADAPTERS[name]
    base_dir = os.path.join(HERE, "golden", kind)
    base = families.text.opened(base_dir)
    folder = os.path.join(HERE, "golden_peft", name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that are tied
        model = get_peft_model(base, LoraConfig(r=2, lora_alpha=5, lora_dropout=0.0, bias="none",
                                                task_type="CAUSAL_LM", **options))
    peft_golden.random_adapter(model, torch.Generator().manual_seed(seed))
    peft_golden.save_adapter(model, folder, "golden/" + kind)
    if name.endswith("_v4"):
        to_v4(folder)
        model = PeftModel.from_pretrained(families.text.opened(base_dir), folder, is_trainable=True)
    batch = load_file(os.path.join(base_dir, "golden.safetensors"))
    inputs = {k: batch[k] for k in families.INPUTS if k in batch}
    model.eval()
    out = model(**inputs, use_cache=False)
    out.loss.backward()
    common.write_tensors(os.path.join(folder, "golden.safetensors"), {
        "logits": out.logits, **peft_golden.adapter_gradients(model)})
    peft_golden.report(name, folder, out.logits - batch["logits"])


if __name__ == "__main__":
    peft_golden.make_all(ADAPTERS, make, 170)
