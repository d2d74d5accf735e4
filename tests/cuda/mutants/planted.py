#!/usr/bin/env python3
"""The faults of planted.txt, each in the project's own kernels: compiled, linked, run in the flavour and on the test
that it names, and caught with the words that it names. Before that the same test passes without the fault.

usage: python planted.py BUILD [NAME...]   of faults, or parts of their names

Prints TAP, a line a fault. tests/cuda/mutants/run.sh builds what this needs.
"""
import concurrent.futures
import os
import re
import sys
import time

from bench import Bench, sources

here = os.path.dirname(os.path.abspath(__file__))


def read_faults():
    faults, changes = [], None
    with open(os.path.join(here, "planted.txt")) as file:
        for number, line in enumerate(file, 1):
            line = line.strip()
            word, _, rest = line.partition(" ")
            if word == "==":
                changes = []
                faults.append({"name": rest, "changes": changes, "which": 0})
            elif word == "-":
                changes.append((rest, []))
            elif word == "+":
                changes[-1][1].append(rest)
            elif word in ("file", "run", "test", "says", "which"):
                faults[-1][word] = rest
            elif line and word != "#" and changes is not None:
                sys.exit(f"Bail out! planted.txt:{number}: {line}")
    return faults


def planted(fault):
    """The file's text with the fault."""
    with open(os.path.join(sources, fault["file"])) as file:
        lines = file.read().split("\n")
    for old, new in fault["changes"]:
        at = [i for i, line in enumerate(lines) if line.strip() == old]
        which = int(fault["which"])
        if not at or (not which and len(at) > 1):
            sys.exit(f"Bail out! {fault['name']}: {len(at)} lines of {fault['file']} are: {old}")
        at = at[max(which, 1) - 1]
        lines[at:at + 1] = new
    return "\n".join(lines)


def judge(bench, fault):
    folder = bench.free.get()
    try:
        flavour, *options = fault["run"].split()
        options = dict(option.split("=") for option in options)
        good = os.path.join(bench.build, "tests", "cuda", f"amlua_cuda_{flavour}.so")
        if said := bench.run(good, [fault["test"]], options, whole=True):
            return False, f"fails without the fault: {said[-300:]}"
        module, error = bench.module(folder, flavour, fault["file"], planted(fault))
        if not module:
            return False, error
        said = bench.run(module, [fault["test"]], options, whole=True)
        if not said:
            return False, "not caught"
        match = re.search(fault["says"], said)
        return bool(match), match[0] if match else f"caught, without {fault['says']}:\n{said[-1500:]}"
    finally:
        bench.free.put(folder)


def main():
    build, names = sys.argv[1], sys.argv[2:]
    faults = [f for f in read_faults() if not names or any(n in f["name"] for n in names)]
    if not faults:
        sys.exit("Bail out! planted.txt has no such fault")
    for fault in faults:
        planted(fault)
    bench, failed, began = Bench(build, os.path.join(build, "planted"), 2), 0, time.time()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for count, (fault, (caught, said)) in enumerate(zip(faults, pool.map(lambda f: judge(bench, f), faults)), 1):
            print(f"{'ok' if caught else 'not ok'} {count} - {fault['name']} ({fault['file']}, {fault['run']})",
                  flush=True)
            print("# " + said.strip().replace("\n", "\n# "), flush=True)
            failed += not caught
    print(f"1..{len(faults)}")
    print(f"# {len(faults)} faults, {len(faults) - failed} caught; {time.time() - began:.0f} s")
    sys.exit(1 if failed else 0)


main()
