"""amlua and transformers + PEFT on the same machine, model, ids, batch and dtype, in turns.

Each row of the table is measured in rounds: amlua, eager PyTorch, compiled PyTorch, and again. What counts
is the median step of all rounds, and the highest resident memory of any. amlua's rounds have one seed, so
they must end with the same loss, bit for bit: "same seed, same bits" says they did. Needs a build of amlua
(AMLUA, build/amlua); run.sh beside this makes the Python it needs and starts it:

    tests/bench/run.sh [ROW ...] [--rounds 3] [--steps 3] [--threads 2]

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


def measure_amlua(model, lora, dtype, rows, length):
    config = {
        "model": {"_target_": "am.AutoModelForCausalLM.from_pretrained", "pretrained_model_name_or_path": model,
                  "torch_dtype": dtype},
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
        return json.load(file)


def measure_torch(model, lora, dtype, rows, compiled):
    words = [sys.executable, "tests/bench/torch_step.py", model, f"{work}/ids.npy", "--dtype", dtype, "--rows",
             str(rows), "--threads", str(args.threads)]
    words += ["--lora"] if lora else []
    words += ["--compile"] if compiled else []
    figures = json.loads(run(words).strip().splitlines()[-1])
    figures["seconds"] = figures["seconds"][WARMUP:]
    return figures


def measure(model, vocab, row):
    kind, dtype, shape = row.split("_")
    rows, length = map(int, shape.split("x"))
    lora, dtype = kind == "lora", DTYPES[dtype]
    write_ids(rows * (WARMUP + args.steps), length, vocab)
    seconds, memory, share, losses = {}, {}, [], set()
    for _ in range(args.rounds):
        ours = measure_amlua(model, lora, dtype, rows, length)
        share.append(ours["gemm_share"])
        losses.add(ours["last_loss"])
        rivals = {"eager": False} if args.no_compile else {"eager": False, "compiled": True}
        results = {"amlua": {"seconds": [ours["seconds_median"]], "peak_resident_bytes": ours["peak_resident_bytes"]}}
        for name, compiled in rivals.items():
            results[name] = measure_torch(model, lora, dtype, rows, compiled)
        for name, result in results.items():
            seconds.setdefault(name, []).extend(result["seconds"])
            memory[name] = max(memory.get(name, 0), result["peak_resident_bytes"])
    speed = {name: rows * length / statistics.median(times) for name, times in seconds.items()}
    best = max(value for name, value in speed.items() if name != "amlua")
    print(f"{row:18}" + "".join(f"  {name} {speed[name]:7.1f} tok/s {memory[name] / 1e9:5.2f} GB" for name in speed)
          + f"  ratio {speed['amlua'] / best:.2f}  of eager's memory {memory['amlua'] / memory['eager']:.2f}"
          + f"  of GEMM {100 * statistics.median(share):.0f} %"
          + ("" if args.rounds == 1 else "  same seed, " + ("same bits" if len(losses) == 1 else "OTHER BITS")),
          flush=True)
    return {"row": row, "tokens_per_second": speed, "peak_resident_bytes": memory, "gemm_share": share,
            "last_losses": sorted(losses)}


if __name__ == "__main__":
    directory = checkpoint()
    with open(f"{directory}/config.json") as file:
        vocabulary = json.load(file)["vocab_size"]
    table = [measure(directory, vocabulary, row) for row in args.row]
    if args.json:
        with open(args.json, "w") as file:
            json.dump(table, file, indent=1)
