"""A file's mutants in one module: it is compiled once in each flavour, runs without a mutant before it runs with any,
and each mutant costs the test cases that meet it. What can't have a switch (host code in C, constant expressions) is
compiled and linked alone.
"""
import itertools
import os
import re
import threading
import time

from bench import RANDOM, root, tests_of
from schemata import mutants_of, with_switches

# As in the flavour asan: of an array whose length the compiler knows, no other element. Nothing follows from that.
STRICT = ["-fsanitize=bounds-strict", "-fsanitize-undefined-trap-on-error", "-fno-aggressive-loop-optimizations"]
SWITCHES = [*STRICT, "-Werror=vla", "-include", os.path.join(root, "tests", "cuda", "mutants", "switches.h")]

# The quickest test cases run, of so many seconds in fast all together: of a mutant that is listed as an equivalent;
# in check, which takes twenty times as long.
LISTED, CHECKED = 2, 5


class Switched:
    """Of one file."""

    def __init__(self, bench, name):
        self.bench, self.name, self.lock = bench, name, threading.RLock()
        self.lines = tests_of(name)
        self.modules, self.seconds = {}, {}
        self.numbers = None  # of mutants that have a switch
        self.met = {}  # a case: mutants that make a difference in it

    def prepare(self):
        """Finds which mutants can have a switch, and which cases they make a difference in."""
        with self.lock:
            if self.numbers is not None:
                return
            self.folder = self.bench.folder(self.name)
            mutants = [m for m in mutants_of(self.name) if m.switched and not self.name.endswith(".c")]
            error, rounds = None, 0
            while mutants:
                objects, error = self.bench.compiled(self.folder, "fast", self.name,
                                                     with_switches(self.name, mutants),
                                                     SWITCHES + ["-fsyntax-only", "-fmax-errors=0"])
                if objects:
                    break
                at = re.escape(os.path.join(self.folder, "cuda", self.name)) + r":(\d+)"
                for blamed in (at + ":.*error:", at):
                    lines = {int(n) for n in re.findall(blamed, error)}
                    rest = [m for m in mutants if m.line not in lines]
                    if len(rest) < len(mutants):
                        break
                rounds += 1
                mutants = rest if len(rest) < len(mutants) and rounds < 20 else []
            self.error = error
            self.mutants = mutants
            module = self.module("fast")
            self.cases = [run for line in self.lines for run in self.bench.runs_of(module, line)]
            for case in self.cases:
                self.limit("fast", case)
            self.numbers = {m.number for m in mutants}

    def module(self, flavour):
        with self.lock:
            if flavour not in self.modules:
                if self.mutants:
                    path, error = self.bench.module(self.folder, flavour, self.name,
                                                    with_switches(self.name, self.mutants), SWITCHES)
                    if not path:
                        raise SystemExit(f"Bail out! {self.name} with switches: {error}")
                else:
                    path = os.path.join(self.bench.build, "tests", "cuda", f"amlua_cuda_{flavour}.so")
                self.modules[flavour] = path
            return self.modules[flavour]

    def limit(self, flavour, case):
        """Of seconds, which no test case needs unless it hangs."""
        with self.lock:
            if (flavour, case) not in self.seconds:
                module, log = self.module(flavour), os.path.join(self.folder, "met")
                open(log, "w").close()
                began = time.time()
                said = self.bench.run(module, [case], dict(RANDOM, AM_MUTANT="-1", AM_MUTANT_LOG=log))
                if said:
                    raise SystemExit(f"Bail out! {self.name} without a mutant, {flavour}: {said}")
                self.seconds[flavour, case] = time.time() - began
                if flavour == "fast":
                    with open(log) as file:
                        self.met[case] = {int(line) for line in file}
            return max(5, 10 * self.seconds[flavour, case])

    def within(self, most, cases):
        total = itertools.accumulate(self.seconds["fast", c] for c in cases)
        return [c for c, seconds in zip(cases, total) if seconds < most]

    def judge(self, m, equivalent):
        """(verdict, what was said)"""
        self.prepare()
        alone = m.number not in self.numbers
        cases = [c for c in self.cases if alone or m.number in self.met[c]]
        cases.sort(key=lambda c: self.seconds["fast", c])
        if equivalent:
            cases = self.within(LISTED, cases) or cases[:1]
        if not cases:
            return "survived", "no test case makes a difference there"
        folder = self.bench.free.get() if alone else None
        try:
            for flavour in ["fast"] if equivalent else ["fast", "check"]:
                module, error = self.modules.get(flavour), None
                if alone:
                    module, error = self.bench.module(folder, flavour, m.file, m.source, STRICT + ["-w"])
                    if not module:
                        return "no program", re.sub(r"\s+", " ", error)[:120]
                if flavour == "check":
                    cases = self.within(CHECKED, [c for c in cases if ".lua " not in c])
                for case in cases:
                    limit = self.limit(flavour, case)
                    said = self.bench.run(module or self.module(flavour), [case],
                                          dict(RANDOM, AM_MUTANT=str(m.number)), limit=limit)
                    if said:
                        return "caught", f"{flavour}{', alone' if alone else ''}: {said}"
            return "survived", "it makes a difference in " + ", ".join(cases) if not alone else "alone"
        finally:
            if alone:
                self.bench.free.put(folder)
