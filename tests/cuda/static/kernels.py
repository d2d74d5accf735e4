#!/usr/bin/env python3
"""Every kernel as nvcc compiles it for every architecture, against kernels.tsv: static proofs, no GPU needed.

usage: python kernels.py BUILD_FOLDER [--arch 80,90] [--file attention.cu] [--write]

Fails when a kernel spills, has a stack frame, touches local memory, has no __launch_bounds__, needs more registers or
shared memory than the table has, keeps fewer blocks on a multiprocessor than the table or its launch bounds plan,
lacks a tensor-core, ldmatrix or cp.async instruction that it should have, is not in the table or has gone from it.
--write renews the table (of all files and architectures). tests/cuda/static/run.sh finds the tools; NVCC, NVDISASM and
CXXFILT name them. Prints TAP, a line a file. Holds no rule about sources: those are in tests/rules/.
"""
import argparse
import concurrent.futures
import hashlib
import os
import re
import subprocess
import sys

ARCHS = ["80", "89", "90", "100", "120"]
# Of a multiprocessor (CUDA programming guide, "Compute Capabilities"): warps, blocks, bytes of shared memory; and the
# most that a block may ask for. All have 65536 registers in four parts.
LIMITS = {
    "80": (64, 32, 164 << 10, 163 << 10), "89": (48, 24, 100 << 10, 99 << 10), "90": (64, 32, 228 << 10, 227 << 10),
    "100": (64, 32, 228 << 10, 227 << 10), "120": (48, 24, 100 << 10, 99 << 10),
}
# The dynamic shared memory that a kernel's launch asks for; {0}, {1}: its template's arguments.
DYNAMIC = {
    "attention_kernel": "forward_tile<{1}>::SHARED",
    "attention_dq_kernel": "backward_tile<{1}>::DQ_SHARED",
    "attention_dkv_kernel": "backward_tile<{1}>::DKV_SHARED",
}
# What the 100 kB of sm_89 and sm_120 don't hold: there attention_bwd.cu leaves the work to attention_plain.cu.
SMALL, TOO_LARGE = {"89", "120"}, re.compile(r"attention_(dq|dkv)_kernel<.*, 256>")
# How instructions begin that a kernel whose name matches has to have, on every architecture.
EXPECTED = [
    (r"attention(_dq|_dkv)?_kernel<bf16,", {"HMMA.16816.F32.BF16", "LDSM.16.M88", "LDSM.16.MT88", "LDGSTS"}),
    (r"attention(_dq|_dkv)?_kernel<f16,", {"HMMA.16816.F32", "LDSM.16.M88", "LDSM.16.MT88", "LDGSTS"}),
    (r"(grouped|packed_gemm)(_dw)?_kernel<bf16\b", {"HMMA.16816.F32.BF16", "LDSM.16.M", "LDGSTS"}),
    (r"(grouped|packed_gemm)(_dw)?_kernel<f16\b", {"HMMA.16816.F32", "LDSM.16.M", "LDGSTS"}),
]
WATCHED = re.compile(r"\b((?:[HIDQO]MMA|UTC\w*MMA)\.[A-Z0-9.]+|LDSM\.16\.MT?88|LDGSTS|LDL|STL)\b")
HEAD = "file\tkernel\tthreads\tblocks asked\tstatic\tdynamic\tregisters\tblocks\tinstructions"

here = os.path.dirname(os.path.abspath(__file__))
root = os.path.join(here, "..", "..", "..")
kernels = os.path.join(root, "kernels", "cuda")
table_path = os.path.join(here, "kernels.tsv")
nvcc = os.environ.get("NVCC", "nvcc")


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"Bail out! {' '.join(command)}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def short_names(symbols):
    """Names as the source has them: no parameters, short types."""
    out = {}
    demangled = subprocess.run([os.environ.get("CXXFILT", "c++filt")], input="\n".join(symbols), text=True,
                               capture_output=True, check=True).stdout.splitlines()
    for symbol, text in zip(symbols, demangled):
        text = text.replace("(anonymous namespace)::", "")
        depth = 0
        for at, c in enumerate(text):
            depth += (c == "<") - (c == ">")
            if c == "(" and depth == 0:
                text = text[:at]
                break
        for long, word in [("__nv_bfloat16", "bf16"), ("__half", "f16"), ("double", "f64"), ("float", "f32"),
                           ("unsigned char", "u8"), ("signed char", "i8"), ("unsigned short", "u16"),
                           ("unsigned int", "u32"), ("unsigned long", "u64")]:
            text = re.sub(rf"\b{long}\b", word, text)
        out[symbol] = re.sub(r"^void ", "", text).replace(" >", ">")
    return out


def digest_of(name, arch):
    """Of what a file is compiled from, and how."""
    paths = [os.path.join(folder, f) for folder in (kernels, os.path.join(kernels, "gpu"), os.path.join(root, "engine"))
             for f in sorted(os.listdir(folder)) if f.endswith((".h", ".cuh", ".def"))]
    digest = hashlib.sha1(f"{arch} {run([nvcc, '--version'])}".encode())
    for path in paths + [os.path.join(kernels, name)]:
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def compile_file(name, arch, folder, cubin):
    """As cuda.cmake has it: what ptxas says. Leaves PTX and machine code in the folder."""
    return run([nvcc, "-std=c++17", "-O3", "-lineinfo", "-DNDEBUG", "-D_GNU_SOURCE", f"-I{kernels}",
                f"-I{kernels}/gpu", f"-I{root}/engine", f"-arch=sm_{arch}", "-cubin", "--keep", "--keep-dir", folder,
                "-o", cubin, "-Xptxas", "-v", os.path.join(kernels, name)])


def compiled(job):
    """What nvcc, ptxas and the disassembler say of a file's kernels: {symbol: facts}."""
    name, arch, build = job
    folder = os.path.join(build, f"{name}.{arch}")
    os.makedirs(folder, exist_ok=True)
    cubin = os.path.join(folder, "out.cubin")
    # What the last run compiled is taken where no source has changed since.
    kept, digest = os.path.join(folder, "ptxas.txt"), digest_of(name, arch)
    said = open(kept).read() if os.path.exists(kept) else ""
    ptx = os.path.join(folder, name.replace(".cu", ".ptx"))
    if not (said.startswith(digest) and os.path.exists(cubin) and os.path.exists(ptx)):
        said = digest + "\n" + compile_file(name, arch, folder, cubin)
        with open(kept, "w") as file:
            file.write(said)
    facts, symbol, before = {}, None, 0
    for line in said.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)'", line):
            symbol = match[1]
            facts[symbol] = {"threads": 0, "asked": 0, "static": 0, "local": before, "sass": set()}
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            local = sum(map(int, match.groups()))  # of a kernel, or of a function that some kernel calls
            if symbol:
                facts[symbol]["local"] += local
            else:
                before += local
        elif match := re.search(r"Used (\d+) registers", line):
            facts[symbol]["registers"] = int(match[1])
            if match := re.search(r"(\d+) bytes smem", line):
                facts[symbol]["static"] = int(match[1])
    with open(ptx) as file:
        for symbol, text in re.findall(r"\.entry (\w+)\((.*?)\n\{", file.read(), re.S):
            if match := re.search(r"\.maxntid (\d+)(?:, (\d+), (\d+))?", text):
                facts[symbol]["threads"] = int(match[1]) * int(match[2] or 1) * int(match[3] or 1)
            if match := re.search(r"\.minnctapersm (\d+)", text):
                facts[symbol]["asked"] = int(match[1])
    symbol, seen = None, set()
    for line in run([os.environ.get("NVDISASM", "nvdisasm"), "-c", cubin]).splitlines():
        if match := re.match(r"\.text\.(\w+):", line):
            symbol = match[1]
            seen.add(symbol)
        elif symbol in facts and (match := WATCHED.search(line)):
            facts[symbol]["sass"].add(match[1])
    if missing := facts.keys() - seen:
        sys.exit(f"Bail out! {name}: no instructions of {missing}")
    return name, arch, facts


def dynamic_of(name, names, build):
    """Bytes of dynamic shared memory for each of a file's kernels: constants of the source, as g++ sees them."""
    asks = {}
    for kernel in names:
        base, _, rest = kernel.partition("<")
        if base in DYNAMIC:
            words = {"bf16": "__nv_bfloat16", "f16": "__half", "f32": "float", "f64": "double"}
            asks[kernel] = DYNAMIC[base].format(*[words.get(a, a) for a in rest[:-1].split(", ")])
    if not asks:
        return asks
    probe = os.path.join(build, f"{name}.probe.cpp")
    with open(probe, "w") as file:
        file.write(f'#include "{name}"\n')
        for at, what in enumerate(asks.values()):
            file.write(f'extern "C" {{ extern const int am_probe_{at}; const int am_probe_{at} = {what}; }}\n')
    include = os.path.join(os.path.dirname(os.path.realpath(nvcc)), "..", "include")
    text = run(["g++", "-std=c++17", "-w", "-march=x86-64-v3", "-D_GNU_SOURCE", f"-I{here}/../emulator", f"-I{kernels}",
                f"-I{root}/engine", "-isystem", include, "-S", "-O0", "-o", "-", probe])
    for at, kernel in enumerate(asks):
        value = re.search(rf"^am_probe_{at}:\n\s*\.(?:long\s+(\d+)|zero)", text, re.M)
        asks[kernel] = int(value[1] or 0)
    return asks


def resident(arch, threads, registers, shared):
    """Blocks on a multiprocessor: CUDA's rules of occupancy."""
    warps_most, blocks, shared_most, block_most = LIMITS[arch]
    warps = (threads + 31) // 32
    if shared > block_most:
        return 0
    by_registers = 65536 // 4 // ((registers * 32 + 255) // 256 * 256) * 4 // warps
    by_shared = shared_most // ((shared + 1024 + 127) // 128 * 128)
    return min(blocks, warps_most // warps, by_registers, by_shared)


def folded(values):
    return str(values[0]) if len(set(values)) == 1 else ",".join(map(str, values))


def read_table():
    rows, release = {}, None
    if not os.path.exists(table_path):
        return rows, release
    with open(table_path) as file:
        for line in file:
            fields = line.rstrip("\n").split("\t")
            if line.startswith("#"):
                release = (re.search(r"nvcc ([\d.]+)", line) or [None, release])[1]
            elif fields[0] != "file":
                five = [[int(v) for v in f.split(",")] * (1 if "," in f else len(ARCHS)) for f in fields[6:8]]
                rows[fields[0], fields[1]] = [int(f) for f in fields[2:6]] + five + [set(fields[8].split())]
    return rows, release


def faults(name, kernel, arch, fact, row, same_release):
    """What is wrong with a kernel on an architecture."""
    if fact["local"]:
        yield f"{fact['local']} bytes of stack frame and spills"
    if local := fact["sass"] & {"LDL", "STL"}:
        yield f"local memory: {' '.join(sorted(local))}"
    if not fact["threads"]:
        yield "no __launch_bounds__"
    if fact["static"] > 48 << 10:
        yield f"{fact['static']} bytes of static shared memory, 49152 at most"
    if fact["blocks"] == 0 and not (arch in SMALL and TOO_LARGE.match(kernel)):
        yield f"does not fit: {fact['registers']} registers, {fact['static'] + fact['dynamic']} bytes shared"
    by_registers = resident(arch, fact["threads"] or 1024, fact["registers"], 0)
    if by_registers < fact["asked"]:
        yield f"registers for {by_registers} blocks on a multiprocessor, launch bounds ask for {fact['asked']}"
    for pattern, wanted in EXPECTED:
        missing = {w for w in wanted if not any(s.startswith(w) for s in fact["sass"])}
        if re.match(pattern, kernel) and missing:
            yield f"lacks {' '.join(sorted(missing))}"
    if not row:
        yield "is not in kernels.tsv (--write renews it)"
        return
    at = ARCHS.index(arch)
    for what, is_, was in [("threads", fact["threads"], row[0]), ("blocks asked", fact["asked"], row[1]),
                           ("bytes of dynamic shared memory", fact["dynamic"], row[3])]:
        if is_ != was:
            yield f"{is_} {what}, the table has {was}"
    if fact["static"] > row[2]:
        yield f"{fact['static']} bytes of static shared memory, the table has {row[2]}"
    if same_release and fact["registers"] > row[4][at]:
        yield f"{fact['registers']} registers, the table has {row[4][at]}"
    if fact["blocks"] < row[5][at]:
        yield f"{fact['blocks']} blocks on a multiprocessor, the table has {row[5][at]}"
    if missing := row[6] - fact["sass"]:
        yield f"lacks {' '.join(sorted(missing))}, which the table has"


def main():
    options = argparse.ArgumentParser()
    options.add_argument("build")
    options.add_argument("--arch", default=",".join(ARCHS))
    options.add_argument("--file", action="append")
    options.add_argument("--write", action="store_true")
    options = options.parse_args()
    archs = options.arch.split(",")
    if unknown := set(archs) - set(ARCHS):
        sys.exit(f"Bail out! --arch: {', '.join(unknown)} is none of {', '.join(ARCHS)}")
    files = sorted(f for f in os.listdir(kernels) if f.endswith(".cu"))
    if unknown := set(options.file or []) - set(files):
        sys.exit(f"Bail out! --file: kernels/cuda has no {', '.join(unknown)}")
    if options.write and (options.file or archs != ARCHS):
        sys.exit("Bail out! --write takes all files and architectures")
    chosen = options.file or files
    release = re.search(r"release ([\d.]+)", run([nvcc, "--version"]))[1]
    table, table_release = read_table()
    # The slowest first; two at a time.
    jobs = sorted(((f, a, options.build) for f in chosen for a in archs),
                  key=lambda job: -os.path.getsize(os.path.join(kernels, job[0])))
    found = {}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for name, arch, facts in pool.map(compiled, jobs):
            names = short_names(list(facts))
            if len(set(names.values())) != len(names):
                sys.exit(f"Bail out! {name}: two kernels of one name")
            found.setdefault(name, {})[arch] = {names[symbol]: fact for symbol, fact in facts.items()}
    rows, failed = [], 0
    for count, name in enumerate(chosen, 1):
        here_names = sorted(set().union(*found[name].values()))
        dynamic = dynamic_of(name, here_names, options.build)
        wrong = [f"{kernel} has gone" for file, kernel in sorted(table)
                 if file == name and kernel not in here_names and not options.write]
        for kernel in here_names:
            facts = [found[name][arch].get(kernel) for arch in archs]
            if None in facts:
                wrong.append(f"{kernel} is not compiled for every architecture")
                continue
            for arch, fact in zip(archs, facts):
                fact["dynamic"] = dynamic.get(kernel, 0)
                fact["blocks"] = resident(arch, fact["threads"] or 1024, fact["registers"],
                                          fact["static"] + fact["dynamic"])
            facts[0]["static"] = max(f["static"] for f in facts)
            row = [facts[0]["threads"], facts[0]["asked"], facts[0]["static"], facts[0]["dynamic"],
                   [f["registers"] for f in facts], [f["blocks"] for f in facts],
                   set.intersection(*[f["sass"] for f in facts])]
            if options.write:
                rows.append("\t".join([name, kernel, *map(str, row[:4]), folded(row[4]), folded(row[5]),
                                       " ".join(sorted(row[6]))]))
            for arch, fact in zip(archs, facts):
                known = row if options.write else table.get((name, kernel))
                if options.write:
                    known = known[:4] + [[fact["registers"]] * 5, [fact["blocks"]] * 5, known[6]]
                wrong += [f"sm_{arch} {kernel}: {f}" for f in faults(name, kernel, arch, fact, known,
                                                                     release == table_release)]
        print("not ok" if wrong else "ok", count, "-", name, f"({len(here_names)} kernels)")
        for line in wrong:
            print("#", line)
        failed += bool(wrong)
    if not options.file:
        gone = sorted({file for file, _ in table} - set(files)) if not options.write else []
        print("not ok" if gone else "ok", len(chosen) + 1, "- the table has no other files", *gone)
        failed += bool(gone)
    print(f"1..{len(chosen) + (not options.file)}")
    if options.write:
        with open(table_path, "w") as file:
            file.write(f"# Written by kernels.py --write, with nvcc {release}. Bytes of shared memory; registers of a "
                       f"thread and blocks on a\n# multiprocessor for sm_{', '.join(ARCHS)}, once where all are the "
                       f"same.\n{HEAD}\n" + "\n".join(rows) + "\n")
    sys.exit(1 if failed else 0)


main()
