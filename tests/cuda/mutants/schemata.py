"""The mutants of a file of kernels/cuda/, and that file with all of them in it, each behind a switch (switches.h).

Runs nothing.
"""
import collections
import os
import re

from bench import sources


def pick(number, plain, other):
    return f"am_mutant_pick<{number}>({plain}, {other})"


def without(number, statement):
    return f"AM_MUTANT_WITHOUT({number}, {statement.rstrip(';')});"


def comparison(name, first, second):
    return lambda n, m, group: f" {first} {name}<{n}>() {second} "


def swapped(number, m, group):
    one, two = group(1), group(2)
    return f"[{pick(number, one, two)}][{pick(number, two, one)}]"


# Kind, what is looked for in a line without comments and strings, what comes in its place (None: it is left out), and
# what stands there where a switch decides: of the mutant's number, the match, and the match's groups with switches of
# their own in them. None where it is host code in C, which has no overloads.
OPERATORS = [
    ("barrier", r"__syncthreads\(\);|__syncwarp\(\);", lambda m: ";", lambda n, m, group: without(n, m[0])),
    ("copy", r"am_cp_async_wait<(\d)>\(\)", lambda m: f"am_cp_async_wait<{int(m[1]) + 1}>()",
     lambda n, m, group: f"(am_mutant_on<{n}>() ? am_cp_async_wait<{int(m[1]) + 1}>() : {m[0]})"),
    ("copy", r"am_cp_async_wait<([A-Za-z][^<>()]*)>\(\)", lambda m: f"am_cp_async_wait<{m[1]} + 1>()",
     lambda n, m, group: f"(am_mutant_on<{n}>() ? am_cp_async_wait<{m[1]} + 1>() : {m[0]})"),
    ("copy", r"am_cp_async_commit\(\);", lambda m: ";", lambda n, m, group: without(n, m[0])),
    ("wait", r"cuda(?:StreamSynchronize|StreamWaitEvent|EventSynchronize)\([^()]*\)", lambda m: "cudaSuccess", None),
    ("index", r"threadIdx\.x & 31", lambda m: "threadIdx.x >> 5",
     lambda n, m, group: pick(n, m[0], "threadIdx.x >> 5")),
    ("index", r"threadIdx\.x >> 5", lambda m: "(threadIdx.x & 31)",
     lambda n, m, group: pick(n, m[0], "threadIdx.x & 31")),
    ("index", r"\[([^\[\]]+)\]\[([^\[\]]+)\]", lambda m: f"[{m[2]}][{m[1]}]", swapped),
    ("index", r"lane >> 2\b", lambda m: "lane >> 3", lambda n, m, group: "lane >> " + pick(n, 2, 3)),
    ("index", r"lane & 3\b", lambda m: "lane & 7", lambda n, m, group: "lane & " + pick(n, 3, 7)),
    ("bound", r" < ", lambda m: " <= ", comparison("am_less", "<", ">")),
    ("bound", r" <= ", lambda m: " < ", comparison("am_not_more", "<", ">")),
    ("bound", r" >= ", lambda m: " > ", comparison("am_not_less", "<", ">")),
    ("bound", r" > ", lambda m: " >= ", comparison("am_more", "<", ">")),
    ("bound", r" [+-] 1\b(?![.\w])", lambda m: "", lambda n, m, group: m[0][:3] + pick(n, 1, 0)),
]
# Lines that declare arrays, types and constants, which are no index and no bound.
DECLARES = re.compile(r"static_assert|constexpr|\btemplate\b|\bAM_SHARED\b|\btypedef\b|\(&\w+\)\["
                      r"|\btypename\b.*\w\[|^\s*(?!return\b|else\b)(const )?[\w:]+ \*?\w+\[")
# nth: of the kind on lines of this text; source: the file with it; number: of its switch; match: where in the file.
Mutant = collections.namedtuple("Mutant", "file kind line text nth becomes source number match switched")


def blanked(text):
    """Without comments, strings and preprocessor lines, positions kept."""
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|^[ \t]*#[^\n]*(?:\\\n[^\n]*)*',
                  lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.S | re.M)


def read(name):
    with open(os.path.join(sources, name)) as file:
        return file.read()


def mutants_of(name):
    source = read(name)
    code, out, at, count = blanked(source), [], 0, collections.Counter()
    for number, (line, shown) in enumerate(zip(code.split("\n"), source.split("\n")), 1):
        if not DECLARES.search(line):
            for kind, pattern, change, switched in OPERATORS:
                for match in re.compile(pattern).finditer(code, at, at + len(line)):
                    if match[0] == change(match):
                        continue
                    count[kind, shown.strip()] += 1
                    begin, end = match.start() - at, match.end() - at
                    becomes = line[:begin] + change(match) + line[end:]
                    out.append(Mutant(name, kind, number, shown.strip(), count[kind, shown.strip()], becomes.strip(),
                                      source[:match.start()] + change(match) + source[match.end():],
                                      len(out), match, switched))
        at += len(line) + 1
    return out


def with_switches(name, mutants):
    """The file with these mutants of its own in it."""
    source = read(name)
    # What a mutant's place encloses comes after it, and is rewritten inside of its groups.
    mutants = sorted(mutants, key=lambda m: (m.match.start(), -m.match.end()))

    def rewritten(begin, end, outer=None):
        out, at = [], begin
        for m in mutants:
            if m is outer or m.match.start() < at or m.match.end() > end:
                continue
            out.append(source[at:m.match.start()])
            out.append(m.switched(m.number, m.match, lambda g, m=m: rewritten(*m.match.span(g), m)))
            at = m.match.end()
        return "".join(out) + source[at:end]

    return rewritten(0, len(source))
