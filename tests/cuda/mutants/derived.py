#!/usr/bin/env python3
"""Mutants derived from every kernel: a barrier dropped, an asynchronous copy waited for too little or not committed,
a wait of the host dropped, an index taken from elsewhere, a bound off by one (schemata.py). A file's are compiled into
one module (switched.py). Each is run in the flavour fast and, where that finds nothing, in check, on those of its
family's test cases (bench.py) in which it makes a difference, quick ones first. Survivors that equivalents.tsv doesn't
list fail.

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
import sys
import time

from bench import FAMILIES, HEADERS, Bench, root, sources, tests_of
from schemata import mutants_of
from switched import Switched

here = os.path.dirname(os.path.abspath(__file__))

FIRST = ["barrier", "copy", "wait"]  # of a sample


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
    """Changes with the mutant, and with its family's tests."""
    parts = [m.source.encode()]
    for program in sorted({t.split()[0] for t in tests_of(m.file)}):
        folder = root if program.endswith(".lua") else os.path.join(build, "tests")
        with open(os.path.join(folder, program), "rb") as file:
            parts.append(file.read())
    return hashlib.sha1(b"\0".join(parts)).hexdigest()[:16]


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
    if unlisted := [f for f in os.listdir(sources) if f.endswith((".cu", ".cuh", ".c")) and f not in files
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
    switched = {name: Switched(bench, name) for name in files}

    def one(m):
        digest = digest_of(m, options.build)
        known = kept.get(digest)
        if known and not (options.again and known[0] == "survived"):
            return m, known, True
        verdict = switched[m.file].judge(m, key_of(m) in equivalents)
        with open(results, "a") as file:
            file.write("\t".join((digest,) + verdict).replace("\n", " ") + "\n")
        return m, verdict, False

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for m, (verdict, said), old in pool.map(one, chosen):
            count += 1
            reason = equivalents.get(key_of(m))
            listed = verdict == "survived" and reason
            told = verdict == "caught" and reason
            counts["listed as equivalent" if listed else verdict] += 1
            bad = verdict == "survived" and not listed or told
            print(f"{'not ok' if bad else 'ok'} {count} - {m.file}:{m.line} {m.kind}: {m.becomes[:90]}", flush=True)
            print(f"# {verdict}{', listed' if listed else ''}{', kept' if old else ''}: {reason if listed else said}",
                  flush=True)
            if told:
                counts["caught though listed"] += 1
                print(f"# equivalents.tsv says that no test can tell it: {told}", flush=True)
            elif bad:
                print("# to list it: " + "\t".join(key_of(m)) + "\tREASON", flush=True)
    for key in stale:
        count += 1
        print(f"not ok {count} - equivalents.tsv lists what is no mutant any more: {' | '.join(key)}")
    print(f"1..{count}")
    print(f"# {total} mutants of {len(files)} files, {len(chosen)} run: "
          + ", ".join(f"{n} {what}" for what, n in sorted(counts.items())) + f"; {time.time() - began:.0f} s")
    sys.exit(1 if counts["survived"] or counts["caught though listed"] or stale else 0)


main()
