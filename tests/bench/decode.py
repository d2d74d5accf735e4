"""Generated tokens a second of amlua and llama.cpp on the same weights, in turns, beside the rate at which
the machine reads memory: each token reads all weights once, so that rate is what bounds both.

Needs a build of amlua (AMLUA, build/amlua), a C compiler, and a Python with xllamacpp, gguf and numpy:

    python3 -m venv ~/bench && ~/bench/bin/pip install xllamacpp gguf numpy
    ~/bench/bin/python tests/bench/decode.py [ROW ...] [--rounds 3] [--tokens 128] [--threads 2]

ROW is dtype_ROWSxPROMPT: bf16_1x16 is one row after a prompt of 16 tokens; without one, those of
docs/performance.md. llama.cpp keeps keys and values in f16, amlua in the model's dtype. What counts is the
best round of each.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DTYPES = {"f32": "float32", "bf16": "bfloat16"}
DEFAULT = ["f32_1x16", "bf16_1x16", "bf16_1x1024", "bf16_4x16", "bf16_8x16"]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("row", nargs="*", default=DEFAULT)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--tokens", type=int, default=128)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rival", help=argparse.SUPPRESS)  # GGUF: this process is llama.cpp's turn
args = parser.parse_args()

amlua = os.environ.get("AMLUA", os.path.join(ROOT, "build", "amlua"))
environment = dict(os.environ, HF_HUB_OFFLINE="1")


def run(words):
    result = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(words)}\n{result.stdout}{result.stderr}")
    return result.stdout


def llama_cpp(gguf, rows, prompt):
    """Tokens a second of all rows together, in a process of its own."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = gguf
    params.n_parallel = rows
    params.n_ctx = rows * (prompt + args.tokens + 16)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = args.threads
    server = xllamacpp.Server(params)
    request = {"prompt": list(range(1000, 1000 + prompt)), "max_tokens": args.tokens, "temperature": 0,
               "ignore_eos": True, "cache_prompt": False}
    with concurrent.futures.ThreadPoolExecutor(rows) as pool:
        results = list(pool.map(lambda _: server.handle_completions(request), range(rows)))
    print(json.dumps(sum(result["timings"]["predicted_per_second"] for result in results)))


def write_gguf(source, target, dtype):
    """The GGUF file `source` with all matrices in dtype."""
    import gguf

    reader, kind = gguf.GGUFReader(source), gguf.GGMLQuantizationType[dtype.upper()]
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            writer.add_key_value(name, field.contents(), field.types[0], field.types[-1])
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        to = kind if values.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, gguf.quants.quantize(values, to), raw_dtype=to)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def measure(work, row, stream):
    dtype, shape = row.split("_")
    rows, prompt = shape.split("x")
    ours, theirs, share = 0, 0, 0
    for _ in range(args.rounds):
        figures = json.loads(run([amlua, "tests/bench/decode.lua", "--model", f"{work}/{dtype}", "--dtype",
                                  DTYPES[dtype], "--rows", rows, "--prompt", prompt, "--tokens", str(args.tokens),
                                  "--threads", str(args.threads)]))
        ours = max(ours, figures["tokens_per_second"])
        share = ours / int(rows) * figures["weight_bytes"] / stream
        theirs = max(theirs, float(run([sys.executable, __file__, row, "--rival", f"{work}/{dtype}.gguf", "--tokens",
                                        str(args.tokens), "--threads", str(args.threads)]).splitlines()[-1]))
    print(f"{row:14} amlua {ours:7.1f} tok/s, {100 * share:.0f} % of the memory's rate"
          f"  llama.cpp {theirs:7.1f} tok/s  ratio {ours / theirs:.2f}", flush=True)


def main():
    work = tempfile.mkdtemp(prefix="amlua-decode-")
    source = run(["examples/smollm2.sh", "--gguf"]).strip()
    run([amlua, "recipes/convert.lua", "--input", source, "--output-dir", f"{work}/f32"])
    run([amlua, "-e", f'''local dir = "{work}/bf16"
am.AutoModelForCausalLM.from_pretrained("{work}/f32", {{ torch_dtype = "bfloat16" }}):save_pretrained(dir)'''])
    for dtype in {row.split("_")[0] for row in args.row}:
        write_gguf(source, f"{work}/{dtype}.gguf", dtype)
    run(["cc", "-O3", "-march=native", "-fopenmp", "tests/bench/stream.c", "-o", f"{work}/stream"])
    stream = float(run([f"{work}/stream", str(args.threads)]))
    print(f"memory is read at {stream / 1e9:.1f} GB/s by {args.threads} threads", flush=True)
    for row in args.row:
        measure(work, row, stream)


if __name__ == "__main__":
    if args.rival:
        llama_cpp(args.rival, *map(int, args.row[0].split("_")[1].split("x")))
    else:
        main()
