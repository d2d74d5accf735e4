"""amlua and transformers + PEFT on the same machine, model, ids, batch and dtype, in turns.

Each row of the table is measured in rounds: amlua, eager PyTorch, compiled PyTorch, and again. What counts
is the median step of all rounds, and the highest resident memory of any. amlua's runs have one seed, so
they must end with the same loss, bit for bit: "same seed, same bits" says they did. With --trl, TRL's SFTTrainer
and amlua take their turns too, both with recomputed layers: trl_step.py says with which settings. Needs a
build of amlua (AMLUA, build/amlua); run.sh beside this makes the Python it needs and starts it:

    tests/bench/run.sh [ROW ...] [--rounds 3] [--steps 3] [--threads 2] [--trl]

ROW is kind_dtype_ROWSxLENGTH: full_f32_4x512, lora_bf16_1x2048, …; without one, those of docs/performance.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DTYPES = {"f32": "float32", "bf16": "bfloat16"}
DEFAULT = [f"{kind}_{dtype}_4x512" for kind in ("full", "lora") for dtype in ("f32", "bf16")]
WARMUP = 1

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("row", nargs="*", default=DEFAULT)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--steps", type=int, default=3)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--no-compile", action="store_true")
parser.add_argument("--trl", action="store_true")
parser.add_argument("--json", help="write the figures there")
args = parser.parse_args()

amlua = os.environ.get("AMLUA", os.path.join(ROOT, "build", "amlua"))
work = tempfile.mkdtemp(prefix="amlua-bench-")
environment = dict(os.environ, HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


def run(words):
    result = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(words)}\n{result.stdout}{result.stderr}")
    return result.stdout


def checkpoint():
    """SmolLM2-135M-Instruct as a Hugging Face directory."""
    gguf = run(["examples/smollm2.sh", "--gguf"]).strip()
    run([amlua, "recipes/convert.lua", "--input", gguf, "--output-dir", f"{work}/model"])
    return f"{work}/model"


def write_ids(rows, length, vocab):
    """The rows of recipes/benchmark.lua as an .npy file."""
    code = f"""local row, ids = require("recipes.benchmark").row, {{}}
for i = 1, {rows} do
    local r = row(42, i, {length}, {vocab})
    r.input_ids[{length + 1}] = r.labels[{length}]
    ids[i] = r.input_ids
end
am.save_npy("{work}/ids.npy", am.tensor(ids, {{ dtype = "int64" }}))"""
    run([amlua, "-e", code])


def measure_amlua(model, lora, dtype, rows, length, recompute=False):
    config = {
        "model": {"_target_": "am.AutoModelForCausalLM.from_pretrained", "pretrained_model_name_or_path": model,
                  "torch_dtype": dtype, "activation_checkpointing": recompute},
        "optimizer": {"_target_": "am.optim.AdamW", "lr": 1e-4},
        "step_scheduler": {"global_batch_size": rows, "local_batch_size": rows},
        "benchmark": {"steps": args.steps, "warmup_steps": WARMUP, "seq_len": length,
                      "json_output_path": f"{work}/figures.json"},
    }
    if dtype == "bfloat16":  # as PyTorch does it: no masters, moments in bf16
        config["optimizer"].update(master_weights=False, state_dtype="bfloat16")
    if lora:
        config["peft"] = {"target_modules": "*_proj", "dim": 8, "alpha": 32}
    with open(f"{work}/config.yaml", "w") as file:
        json.dump(config, file)  # JSON is YAML
    run([amlua, "recipes/benchmark.lua", f"{work}/config.yaml", "--threads", str(args.threads)])
    with open(f"{work}/figures.json") as file:
        figures = json.load(file)
    return figures


def measure_python(script, model, lora, dtype, rows, *flags):
    words = [sys.executable, f"tests/bench/{script}", model, f"{work}/ids.npy", "--dtype", dtype, "--rows",
             str(rows), "--threads", str(args.threads), *flags]
    words += ["--lora"] if lora else []
    figures = json.loads(run(words).strip().splitlines()[-1])
    figures["seconds"] = figures["seconds"][WARMUP:]
    return figures


def contenders(setting, length):
    """Who takes a turn: name -> what measures it."""
    turns = {"amlua": lambda: measure_amlua(*setting, length),
             "eager": lambda: measure_python("torch_step.py", *setting)}
    if not args.no_compile:
        turns["compiled"] = lambda: measure_python("torch_step.py", *setting, "--compile")
    if args.trl:
        turns["amlua, recomputing"] = lambda: measure_amlua(*setting, length, recompute=True)
        turns["TRL, recomputing"] = lambda: measure_python("trl_step.py", *setting, "--recompute")
    return turns


def measure(model, vocab, row):
    kind, dtype, shape = row.split("_")
    rows, length = map(int, shape.split("x"))
    write_ids(rows * (WARMUP + args.steps), length, vocab)
    turns = contenders((model, kind == "lora", DTYPES[dtype], rows), length)
    results = {name: [] for name in turns}
    for _ in range(args.rounds):
        for name, turn in turns.items():
            results[name].append(turn())
    speed = {name: rows * length / statistics.median(t for r in rounds for t in r["seconds"])
             for name, rounds in results.items()}
    memory = {name: max(r["peak_resident_bytes"] for r in rounds) for name, rounds in results.items()}
    share = [r["gemm_share"] for r in results["amlua"]]
    losses = [r["last_loss"] for name in results if name.startswith("amlua") for r in results[name]]
    same = "" if len(losses) == 1 else "  same seed, " + ("same bits" if len(set(losses)) == 1 else "OTHER BITS")
    best = max(value for name, value in speed.items() if name in ("eager", "compiled"))
    for name in turns:
        print(f"{row:18} {name:18} {speed[name]:7.1f} tok/s {memory[name] / 1e9:6.2f} GB", flush=True)
    print(f"{row:18} ratio {speed['amlua'] / best:.2f}  of eager's memory {memory['amlua'] / memory['eager']:.2f}"
          f"  of GEMM {100 * statistics.median(share):.0f} %{same}", flush=True)
    if args.trl:
        ours, theirs = "amlua, recomputing", "TRL, recomputing"
        print(f"{row:18} recomputing: ratio {speed[ours] / speed[theirs]:.2f}"
              f"  of TRL's memory {memory[ours] / memory[theirs]:.2f}", flush=True)
    return {"row": row, "tokens_per_second": speed, "peak_resident_bytes": memory, "gemm_share": share,
            "last_losses": losses}


if __name__ == "__main__":
    directory = checkpoint()
    with open(f"{directory}/config.json") as file:
        vocabulary = json.load(file)["vocab_size"]
    table = [measure(directory, vocabulary, row) for row in args.row]
    if args.json:
        with open(args.json, "w") as file:
            json.dump(table, file, indent=1)
