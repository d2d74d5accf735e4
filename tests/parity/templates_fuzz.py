#!/usr/bin/env python3
"""Random chat templates, rendered by transformers (jinja2) and by amlua.

    python tests/parity/templates_fuzz.py COUNT [SEED]

Templates are drawn from a grammar of statements and of expressions that mostly have the types they need. Equal are
texts with the spans of {% generation %} blocks, or that both raise. Left out are the filters that amlua has not
(filters.lua says which), and what it refuses on purpose: integers beyond 2^53, complex numbers. Prints the
differences; exit status 1 when there is one.
"""
import collections
import random
import sys

from templates_check import EPOCH, expected, rendered_by_amlua, verdict

VARIABLES = {
    "messages": [
        {"role": "system", "content": "Be brief.", "name": None},
        {"role": "user", "content": " Grüß 日本 \n", "tags": ["b", "a", "B"]},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1.0, "y": [None]}}}]},
        {"role": "tool", "content": [{"type": "text", "text": "p"}, {"type": "image"}]},
    ],
    "s": "Hello World", "u": "Ünï\t日本 😀 ß", "e": "", "html": "<b>\"A\" & 'B'</b>", "lines": "one\n  two\r\n\nthree\n",
    "words": ["beta", "Alpha", "gamma", "alpha"], "nums": [3, 1, 2, -7], "floats": [1.5, 2.0, -0.25], "none_list": [None, 1],
    "empty": [], "d": {"b": 1, "a": [1, 2.5, None, True], "c": {"x": "y"}, "items": "shadowed"}, "nod": {},
    "people": [{"name": "Ann", "age": 30, "tags": ["x"]}, {"name": "bob", "age": 25, "tags": []}, {"name": "Cid", "age": 30}],
    "n": 7, "z": 0, "neg": -3, "f": 2.5, "big": 123456789012, "none_value": None, "yes": True, "no": False,
}

REFUSED = ("2^53", "complex number")

STRINGS = ["s", "u", "e", "html", "lines", "'a'", "'x-y z'", "\"it's\"", "'{}-{}'", "'%s|%d'", "'\\n \\t'", "' pad '", "'aXbXc'"]
INTS = ["n", "z", "neg", "0", "1", "2", "3", "10", "-1", "True", "big", "0x1F", "1_000"]
FLOATS = ["f", "0.5", "1e3", "2.0", "-1.25", "1e16", "0.1", "1.5e-7"]
LISTS = ["words", "nums", "floats", "empty", "none_list", "people", "messages", "[1, 'a', none]", "('x', 'y')", "range(4)",
         "range(5, 0, -2)", "[[2, 'b'], [1, 'a']]", "messages[1].tags", "d.a"]
DICTS = ["d", "nod", "d.c", "people[0]", "messages[0]", "messages[2].tool_calls[0].function", "{'k': 1, 2: 'v'}", "dict(a=1, b='2')"]
ODD = ["missing", "missing.x", "none_value", "none", "loop", "d.nope", "messages[9]", "undefined_fn()", "ns.x"]
KINDS = {"str": STRINGS, "int": INTS, "float": FLOATS, "list": LISTS, "dict": DICTS, "bool": ["yes", "no", "true", "False"], "odd": ODD}

STR_TO_STR = ["upper", "lower", "trim", "title", "capitalize", "escape", "e", "safe", "string", "forceescape", "urlencode",
              "reverse", "indent", "indent(2, true)", "indent('>', blank=true)", "center(15)", "truncate(8)",
              "truncate(5, true, '..', 0)", "replace('a', 'b')", "replace('l', '', 1)", "default('D')", "d('D', true)", "first",
              "last", "trim('ad ')", "tojson", "join('-')", "list|join", "format(1, 2)"]
STR_METHODS = ["upper()", "lower()", "strip()", "lstrip('H ')", "rstrip()", "title()", "capitalize()", "swapcase()",
               "replace('o', '0')", "replace('l', 'L', 1)", "format(1, 'z')", "zfill(14)", "center(15, '*')", "ljust(14)",
               "rjust(14, '.')", "strip('\\n')", "removeprefix('Hel')", "removesuffix('ld')", "join(['a', 'b'])", "casefold()",
               "expandtabs(4)", "split('X')[0]", "split()[-1]", "splitlines()[0]", "partition('X')[2]", "rpartition(' ')[0]"]
STR_TO_LIST = ["split()", "split('o')", "split(' ', 1)", "rsplit(None, 1)", "splitlines()", "splitlines(true)", "partition('o')",
               "rsplit('X', 1)"]
STR_TO_INT = ["find('o')", "rfind('l')", "count('l')", "index('a')"]
STR_TO_BOOL = ["startswith('He')", "endswith('d')", "isdigit()", "isalpha()", "isupper()", "islower()", "isspace()", "isalnum()",
               "startswith(('a', 'H'))", "istitle()", "isdecimal()", "isidentifier()"]
LIST_TO_LIST = ["list", "sort", "sort(reverse=true)", "sort(case_sensitive=true)", "unique|list", "reverse|list", "map('string')|list",
                "map('upper')|list", "select|list", "reject('none')|list", "select('string')|list", "batch(2)|list",
                "batch(3, 'x')|list", "slice(2)|list", "slice(3, 0)|list", "map(attribute='name')|list", "selectattr('name')|list",
                "selectattr('age', 'equalto', 30)|list", "rejectattr('tags')|list", "map(attribute='age', default=0)|list",
                "groupby('age')|list", "sort(attribute='name')", "map('length')|list", "map(attribute='role')|list", "sort(attribute='age,name')",
                "selectattr('role', 'in', ['user', 'tool'])|list", "map('default', 'X')|list", "rejectattr('content', 'string')|list"]
LIST_TO_STR = ["join", "join(', ')", "join('|', attribute='name')", "tojson", "tojson(indent=2)", "string", "first", "last", "length",
               "max", "min", "sum", "max(attribute='age')", "tojson(separators=(',', ':'))", "tojson(sort_keys=true, indent='\\t')",
               "sum(attribute='age')", "sum(start=1)", "tojson(ensure_ascii=true)"]
DICT_TO_LIST = ["items()|list", "keys()|list", "values()|list", "list", "dictsort", "dictsort(by='value')", "items|list",
                "dictsort(reverse=true)"]
DICT_TO_STR = ["tojson", "tojson(indent=4)", "string", "length", "items()", "keys()", "values()", "get('a')", "get('q', 'Q')", "a", "b",
               "urlencode", "tojson(sort_keys=true)", "copy()"]
NUM_TO_NUM = ["abs", "int", "float", "round", "round(1)", "round(1, 'floor')", "round(method='ceil')", "default(1)", "round(-1)", "int(5)"]
NUM_TO_STR = ["string", "tojson", "filesizeformat", "filesizeformat(true)"]
TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "sequence", "iterable",
         "callable", "true", "false", "odd", "even", "divisibleby(2)", "in([1, 'a'])", "eq(1)", "== 'a'", "ne 2", "lt(3)", "gt 0",
         "sameas true", "lower", "upper", "escaped", "ge(0)", "le 2", "filter", "test", "in words", "divisibleby 3"]


class Grammar:
    def __init__(self, draw):
        self.draw = draw
        self.names = []  # variables that are set
        self.loops = 0
        self.inside = 0  # blocks whose text is caught

    def pick(self, options):
        return self.draw.choice(options)

    def chance(self, p):
        return self.draw.random() < p

    def any(self, depth):
        return getattr(self, self.pick(["str", "str", "int", "float", "list", "dict", "bool", "odd"]))(depth)

    def odd(self, depth):
        return self.pick(ODD)

    def str(self, depth):
        if depth <= 0 or self.chance(0.25):
            return self.pick(self.names + STRINGS if self.chance(0.3) else STRINGS)
        kind = self.draw.randrange(11)
        if kind == 0:
            return f"({self.str(depth - 1)} ~ {self.any(depth - 1)})"
        if kind == 1:
            return f"({self.str(depth - 1)} + {self.str(depth - 1)})"
        if kind == 2:
            return f"({self.str(depth - 1)} if {self.bool(depth - 1)} else {self.any(depth - 1)})"
        if kind == 3:
            return f"{self.str(0)}[{self.slice(depth - 1)}]"
        if kind == 4:
            return f"({self.list(depth - 1)})|{self.pick(LIST_TO_STR)}"
        if kind == 5:
            accessor = self.pick(DICT_TO_STR)
            mark = "." if accessor.endswith(")") and accessor.split("(")[0] in ("items", "keys", "values", "get", "copy") or len(accessor) == 1 else "|"
            return f"({self.dict(depth - 1)}){mark}{accessor}"
        if kind == 6:
            return f"({self.str(depth - 1)}).{self.pick(STR_METHODS)}"
        if kind == 7:
            return f"({self.number(depth - 1)})|{self.pick(NUM_TO_STR)}"
        if kind == 8:
            return f"('{self.pick(['%s', '%5d', '%-4s|', '%.2f', '%05.1f', '%x', '%r', '%%', '%+d', '%e', '%g', '%c', '%i'])}' % {self.any(depth - 1)})"
        if kind == 9:
            spec = self.pick(["{}", "{:>8}", "{:<5}|", "{:^7}", "{:.2f}", "{:,}", "{:05}", "{!r}", "{0}{0}", "{:x}", "{:+}", "{:e}", "{:%}", "{:g}", "{:*^9}"])
            return f"'{spec}'.format({self.any(depth - 1)})"
        return f"({self.str(depth - 1)})|{self.pick(STR_TO_STR)}"

    def number(self, depth):
        return self.int(depth) if self.chance(0.6) else self.float(depth)

    def int(self, depth):
        if depth <= 0 or self.chance(0.4):
            return self.pick(INTS)
        kind = self.draw.randrange(6)
        if kind == 0:
            return f"({self.str(depth - 1)}).{self.pick(STR_TO_INT)}"
        if kind == 1:
            return f"({self.any(depth - 1)})|{self.pick(['length', 'count', 'int', 'wordcount', 'sum'])}"
        if kind == 2:
            return f"-{self.int(depth - 1)}"
        if kind == 3:
            return f"({self.number(depth - 1)})|{self.pick(NUM_TO_NUM)}"
        if kind == 4 and self.chance(0.2):
            return f"({self.number(depth - 1)} ** {self.pick(['0', '2', '3', '-1', '0.5'])})"
        return f"({self.number(depth - 1)} {self.pick(['+', '-', '*', '//', '%', '/'])} {self.number(depth - 1)})"

    def float(self, depth):
        return self.pick(FLOATS) if depth <= 0 or self.chance(0.5) else self.int(depth)

    def list(self, depth):
        if depth <= 0 or self.chance(0.35):
            return self.pick(LISTS)
        kind = self.draw.randrange(7)
        if kind == 0:
            return f"({self.list(depth - 1)})[{self.slice(depth - 1)}]"
        if kind == 1:
            return f"({self.str(depth - 1)}).{self.pick(STR_TO_LIST)}"
        if kind == 2:
            return f"({self.dict(depth - 1)}){self.pick(['.', '|'])}{self.pick(DICT_TO_LIST)}"
        if kind == 3:
            return f"[{self.any(depth - 1)}, {self.any(depth - 1)}]"
        if kind == 4:
            return f"({self.list(depth - 1)} {self.pick(['+', '*'])} {self.pick([self.list(depth - 1), '2'])})"
        return f"({self.list(depth - 1)})|{self.pick(LIST_TO_LIST)}"

    def dict(self, depth):
        if depth <= 0 or self.chance(0.7):
            return self.pick(DICTS)
        return f"{{'a': {self.any(depth - 1)}, {self.pick(['1', 'n', 's', 'none', 'true', '1.0', '(1, 2)'])}: {self.any(depth - 1)}}}"

    def bool(self, depth):
        if depth <= 0 or self.chance(0.15):
            return self.pick(KINDS["bool"])
        kind = self.draw.randrange(7)
        if kind == 0:
            return f"({self.bool(depth - 1)} {self.pick(['and', 'or'])} {self.any(depth - 1)})"
        if kind == 1:
            return f"(not {self.any(depth - 1)})"
        if kind == 2:
            return f"({self.any(depth - 1)} {self.pick(['in', 'not in'])} {self.pick([self.list(depth - 1), self.str(depth - 1), self.dict(depth - 1)])})"
        if kind == 3:
            same = self.pick(["str", "int", "float", "list", "dict"])
            return f"({getattr(self, same)(depth - 1)} {self.pick(['==', '!=', '<', '>', '<=', '>='])} {getattr(self, same)(depth - 1)})"
        if kind == 4:
            return f"({self.str(depth - 1)}).{self.pick(STR_TO_BOOL)}"
        return f"({self.any(depth - 1)} is {self.pick(['', 'not '])}{self.pick(TESTS)})"

    def slice(self, depth):
        parts = [self.pick(["", "1", "-1", "2", "-3", "n", "0", "100", "-100", "none"]) for _ in range(self.pick([1, 2, 2, 3]))]
        if len(parts) == 1:
            return self.pick(["0", "-1", "1", "'a'", "n", "5"])
        return ":".join(parts)

    # statements

    def tag(self, inside):
        sign = lambda: self.pick(["", "", "", "-", "-", "+"])
        return "{%" + sign() + " " + inside + " " + sign() + "%}"

    def text(self):
        return self.pick(["a", " ", "\n", "  \n", "b\n  ", "\n\n", "é ", "{", "}", "<|x|>", "\t", "", "#}", "%", "x \n\t"])

    def caught(self, depth):
        self.inside += 1
        out = self.block(depth)
        self.inside -= 1
        return out

    def block(self, depth):
        return self.text() + "".join(self.statement(depth) + self.text() for _ in range(self.draw.randrange(1, 4)))

    def statement(self, depth):
        if depth <= 0 or self.chance(0.3):
            sign = self.pick(["", "", "-"])
            return "{{" + sign + " " + self.any(2) + " " + self.pick(["", "", "-"]) + "}}"
        return getattr(self, self.pick(["if_", "if_", "for_", "for_", "set_", "set_block", "macro", "with_", "filter_", "raw",
                                        "comment", "namespace", "generation", "call", "control"]))(depth - 1)

    def if_(self, depth):
        out = self.tag(f"if {self.any(2)}") + self.block(depth)
        if self.chance(0.3):
            out += self.tag(f"elif {self.bool(2)}") + self.block(depth)
        if self.chance(0.5):
            out += self.tag("else") + self.block(depth)
        return out + self.tag("endif")

    def for_(self, depth):
        target = self.pick(["x", "x", "x", "k, v", "m"])
        over = self.pick([self.list(2), self.list(1), self.dict(1), "messages", "d.items()" if target == "k, v" else self.str(1), "d|dictsort"])
        test = f" if {self.pick(['x', 'x is string', 'm.role', 'loop', 'loop.first', self.bool(1)])}" if self.chance(0.2) else ""
        field = self.pick(["index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem", "depth",
                           "depth0", "cycle('a', 'b')", "changed(x)", "changed(loop.index // 2)", "nope"])
        self.loops += 1
        body = self.block(depth) + "{{ " + self.pick(["x", "loop." + field, "k", "v", "m.role", "m", "x.name"]) + " }}"
        self.loops -= 1
        out = self.tag(f"for {target} in {over}{test}") + body
        if self.chance(0.2):
            out += self.tag("else") + self.block(depth)
        return out + self.tag("endfor")

    def control(self, depth):
        if not self.loops:
            return ""
        return self.tag(f"if {self.pick(['loop.index > 1', self.bool(1)])}") + self.tag(self.pick(["break", "continue"])) + self.tag("endif")

    def set_(self, depth):
        name = self.pick(["v1", "v2", "s", "x", "n"])
        self.names.append(name)
        if self.chance(0.15):
            return self.tag(f"set {name}, v3 = {self.any(2)}, {self.any(1)}")
        return self.tag(f"set {name} = {self.any(2)}")

    def set_block(self, depth):
        self.names.append("v4")
        return self.tag("set v4" + self.pick(["", " | upper", " | trim | replace('a', 'b')"])) + self.caught(depth) + self.tag("endset")

    def namespace(self, depth):
        return self.tag(f"set ns = namespace(x={self.any(1)}, y=1)") + self.tag(f"set ns.x = {self.any(2)}") + "{{ ns.x }}{{ ns.y }}"

    def macro(self, depth):
        loops, self.loops = self.loops, 0
        parameters = self.pick(["", "a", "a, b=2", "a='q', b=a"])
        body = self.caught(depth) + self.pick(["{{ a }}", "{{ b }}", "{{ varargs }}", "{{ kwargs }}", "{{ caller() if caller else '-' }}", ""])
        self.loops = loops
        arguments = self.pick(["", "1", "'p', 3", "b=5", "a=1, c=2", "*[1, 2]", "**{'a': 7}", self.any(1)])
        use = "{{ mac(" + arguments + ") }}"
        if self.chance(0.3):
            use += self.tag("call" + self.pick(["", "(p)"]) + " mac(" + self.pick(["", "1"]) + ")") + self.caught(depth) + self.tag("endcall")
        return self.tag(f"macro mac({parameters})") + body + self.tag("endmacro") + use

    def call(self, depth):
        return self.macro(depth)

    def with_(self, depth):
        return self.tag(f"with w = {self.any(2)}, q = {self.any(1)}") + self.block(depth) + "{{ w }}" + self.tag("endwith")

    def filter_(self, depth):
        return self.tag("filter " + self.pick(["upper", "trim", "replace('a', 'b')", "indent(2)", "escape", "trim|title"])) + self.caught(depth) + self.tag("endfilter")

    def raw(self, depth):
        return self.tag("raw") + self.pick([" {{ x }} ", "\n{% if %}\n", "a"]) + self.tag("endraw")

    def comment(self, depth):
        sign = lambda: self.pick(["", "-", "+"])
        return "{#" + sign() + self.pick([" c ", "{{ x }}", "\n"]) + sign() + "#}"

    def generation(self, depth):
        if self.inside:  # what is caught there is not where it is counted
            return ""
        loops, self.loops = self.loops, 0
        out = self.tag("generation") + self.caught(depth) + self.tag("endgeneration")
        self.loops = loops
        return out


def differences(templates):
    """(template, ours, theirs) of those that differ."""
    jobs = [{"template": source, "vars": VARIABLES, "now": EPOCH} for source in templates]
    results = collections.Counter()
    out = []
    for job, ours in zip(jobs, rendered_by_amlua(jobs), strict=True):
        theirs = expected(job["template"], VARIABLES)
        if " at 0x" in theirs.get("text", "") or any(word in ours.get("error", "") for word in REFUSED):
            results["not comparable"] += 1
            continue
        result = verdict(ours, theirs)
        results[result] += 1
        if result == "different":
            out.append((job["template"], ours, theirs))
    return out, results


def main():
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    templates = []
    for i in range(count):
        grammar = Grammar(random.Random(f"{seed}/{i}"))
        templates.append("{{ " + grammar.any(3) + " }}" if i % 2 else grammar.block(3))
    found, results = differences(templates)
    for source, ours, theirs in found:
        print(f"DIFFERENT {source!r}\n  transformers: {str(theirs)[:400]}\n  amlua:        {str(ours)[:400]}")
    print(", ".join(f"{name}: {number}" for name, number in sorted(results.items())))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
