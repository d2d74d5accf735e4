#!/usr/bin/env python3
"""Mutants derived from every kernel: a barrier dropped, an asynchronous copy waited for too little or not committed,
a wait of the host dropped, an index taken from elsewhere, a bound off by one. Each is run in the flavour fast and,
where that finds nothing, in check, on its family's tests (bench.py). Survivors that equivalents.tsv doesn't list fail.

usage: python derived.py BUILD [--list] [--sample N --seed S] [--file softmax.cu] [--kind barrier] [--jobs 2] [--again]

Results are kept in BUILD/mutants.tsv, and what is there is not run again while the file and the tests' programs are
the same; --again runs survivors anew. --sample takes N of each file, barriers and copies first. Prints TAP, a line a
mutant, then counts. tests/cuda/mutants/run.sh builds what this needs.
"""
import argparse
import collections
import concurrent.futures
import hashlib
import os
import random
import re
import sys
import time

from bench import FAMILIES, HEADERS, RANDOM, Bench, sources, tests_of

here = os.path.dirname(os.path.abspath(__file__))

# Kind, what is looked for in a line without comments and strings, what comes in its place.
OPERATORS = [
    ("barrier", r"__syncthreads\(\);|__syncwarp\(\);", lambda m: ";"),
    ("copy", r"am_cp_async_wait<(\d)>\(\)", lambda m: f"am_cp_async_wait<{int(m[1]) + 1}>()"),
    ("copy", r"am_cp_async_commit\(\);", lambda m: ";"),
    ("wait", r"cuda(?:StreamSynchronize|StreamWaitEvent|EventSynchronize)\([^()]*\)", lambda m: "cudaSuccess"),
    ("index", r"threadIdx\.x & 31", lambda m: "threadIdx.x >> 5"),
    ("index", r"threadIdx\.x >> 5", lambda m: "(threadIdx.x & 31)"),
    ("index", r"\[([^\[\]]+)\]\[([^\[\]]+)\]", lambda m: f"[{m[2]}][{m[1]}]"),
    ("index", r"lane >> 2\b", lambda m: "lane >> 3"),
    ("index", r"lane & 3\b", lambda m: "lane & 7"),
    ("bound", r" < ", lambda m: " <= "),
    ("bound", r" <= ", lambda m: " < "),
    ("bound", r" >= ", lambda m: " > "),
    ("bound", r" > ", lambda m: " >= "),
    ("bound", r" [+-] 1\b(?![.\w])", lambda m: ""),
]
FIRST = ["barrier", "copy", "wait"]  # of a sample
Mutant = collections.namedtuple("Mutant", "file kind line text nth becomes source")


def blanked(text):
    """Without comments, strings and preprocessor lines, positions kept."""
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|^[ \t]*#[^\n]*(?:\\\n[^\n]*)*',
                  lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.S | re.M)


def mutants_of(name):
    with open(os.path.join(sources, name)) as file:
        source = file.read()
    code, out, at = blanked(source), [], 0
    for number, (line, shown) in enumerate(zip(code.split("\n"), source.split("\n")), 1):
        count = collections.Counter()
        # Declarations of arrays, types and constants are no index and no bound.
        if not re.search(r"static_assert|constexpr|\btemplate\b|\bAM_SHARED\b|^\s*(float|M|int|T) \w+\[|\btypedef\b",
                         line):
            for kind, pattern, change in OPERATORS:
                for match in re.finditer(pattern, line):
                    if match[0] == change(match):
                        continue
                    count[kind] += 1
                    begin, end = at + match.start(), at + match.end()
                    becomes = line[:match.start()] + change(match) + line[match.end():]
                    out.append(Mutant(name, kind, number, shown.strip(), count[kind], becomes.strip(),
                                      source[:begin] + change(match) + source[end:]))
        at += len(line) + 1
    return out


def key_of(m):
    """A mutant's name, which survives that other lines move."""
    return m.file, m.kind, str(m.nth), m.text


def read_equivalents():
    known = {}
    with open(os.path.join(here, "equivalents.tsv")) as file:
        for line in file:
            if not line.startswith("#"):
                *key, reason = line.rstrip("\n").split("\t")
                known[tuple(key)] = reason
    return known


def digest_of(m, build):
    """Changes with the mutant, and when its family's tests are built anew."""
    programs = [t.split()[0] for t in tests_of(m.file)]
    stamps = [str(os.stat(os.path.join(build, "tests", p)).st_mtime_ns) for p in programs]
    return hashlib.sha1("\0".join([m.source] + stamps).encode()).hexdigest()[:16]


def judge(bench, m):
    folder = bench.free.get()
    try:
        tests = tests_of(m.file)
        for flavour in ("fast", "check"):
            module, error = bench.module(folder, flavour, m.file, m.source)
            if not module:
                return "no program", re.sub(r"\s+", " ", error)[:120]
            said = bench.run(module, tests, RANDOM)
            if said:
                return "caught", f"{flavour}: {said}"
        return "survived", ""
    finally:
        bench.free.put(folder)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("build")
    options.add_argument("--list", action="store_true")
    options.add_argument("--sample", type=int)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--file", action="append")
    options.add_argument("--kind", action="append")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--again", action="store_true")
    options = options.parse_args()
    files = sorted(f for f in os.listdir(sources) if f in FAMILIES or f in HEADERS)
    if unlisted := [f for f in os.listdir(sources) if f.endswith((".cu", ".cuh")) and f not in files
                    and mutants_of(f)]:
        sys.exit(f"Bail out! bench.py names no tests for {', '.join(sorted(unlisted))}")
    if unknown := set(options.file or []) - set(files):
        sys.exit(f"Bail out! --file: kernels/cuda/ has no {', '.join(unknown)}")
    chosen, total, draw = [], 0, random.Random(options.seed)
    for name in files:
        here_all = mutants_of(name)
        total += len(here_all)
        if options.file and name not in options.file:
            continue
        here_all = [m for m in here_all if not options.kind or m.kind in options.kind]
        if options.sample is not None and len(here_all) > options.sample:
            draw.shuffle(here_all)
            here_all.sort(key=lambda m: m.kind not in FIRST)
            most = (options.sample + 1) // 2  # of the first kinds
            first = [m for m in here_all if m.kind in FIRST]
            rest = [m for m in here_all if m.kind not in FIRST]
            taken = first[:max(most, options.sample - len(rest))]
            here_all = taken + rest[:options.sample - len(taken)]
        chosen += here_all
    if options.list:
        for m in chosen:
            print(f"{m.file}:{m.line}\t{m.kind}\t{m.becomes}")
        print(f"{total} mutants, {len(chosen)} chosen")
        return
    equivalents = read_equivalents()
    everything = {key_of(m) for name in files for m in mutants_of(name)}
    stale = sorted(set(equivalents) - everything)
    results, kept = os.path.join(options.build, "mutants.tsv"), {}
    if os.path.exists(results):
        with open(results) as file:
            for line in file:
                digest, verdict, said = line.rstrip("\n").split("\t")
                kept[digest] = verdict, said
    bench = Bench(options.build, os.path.join(options.build, "mutants"), options.jobs)
    counts, count, began = collections.Counter(), 0, time.time()

    def one(m):
        digest = digest_of(m, options.build)
        known = kept.get(digest)
        if known and not (options.again and known[0] == "survived"):
            return m, known, True
        verdict = judge(bench, m)
        with open(results, "a") as file:
            file.write("\t".join((digest,) + verdict).replace("\n", " ") + "\n")
        return m, verdict, False

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for m, (verdict, said), old in pool.map(one, chosen):
            count += 1
            reason = equivalents.get(key_of(m))
            listed = verdict == "survived" and reason
            counts["listed as equivalent" if listed else verdict] += 1
            bad = verdict == "survived" and not listed
            print(f"{'not ok' if bad else 'ok'} {count} - {m.file}:{m.line} {m.kind}: {m.becomes[:90]}", flush=True)
            print(f"# {verdict}{', listed' if listed else ''}{', kept' if old else ''}: {reason if listed else said}",
                  flush=True)
            if bad:
                print("# to list it: " + "\t".join(key_of(m)) + "\tREASON", flush=True)
    for key in stale:
        count += 1
        print(f"not ok {count} - equivalents.tsv lists what is no mutant any more: {' | '.join(key)}")
    print(f"1..{count}")
    print(f"# {total} mutants of {len(files)} files, {len(chosen)} run: "
          + ", ".join(f"{n} {what}" for what, n in sorted(counts.items())) + f"; {time.time() - began:.0f} s")
    sys.exit(1 if counts["survived"] or stale else 0)


main()
