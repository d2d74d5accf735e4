#!/usr/bin/env python3
"""Writes golden.json: what PyYAML's safe_load followed by Python's literal_eval make of scalars and
documents. Needs PyYAML; run it in its own folder only when a case is added."""
import ast
import datetime
import json
import os

import yaml

WORDS = {"none": None, "None": None, "true": True, "True": True, "false": False, "False": False}


def translate(value):
    """The second step of NeMo Automodel's loader, for every string."""
    if value in WORDS:
        return WORDS[value]
    if len(value) > 1000:
        return value
    try:
        result = ast.literal_eval(value)
        if isinstance(result, str):
            result.encode("utf-8")  # half of a surrogate pair is no text, nor is a NUL
            if "\0" in result:
                return value
    except Exception:
        return value
    # amlua keeps as text what a configuration cannot hold: bytes, complex numbers, `...`.
    return value if isinstance(result, (bytes, complex)) or result is Ellipsis else result


def walk(value):
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()  # amlua keeps dates as text
    if isinstance(value, str):
        value = translate(value)
    if isinstance(value, dict):
        return {str(k): walk(v) if not isinstance(v, str) else v for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [walk(v) if not isinstance(v, str) else v for v in value]
    return value


def walk_document(value):
    if isinstance(value, dict):
        return {k: walk_document(v) for k, v in value.items()}
    if isinstance(value, list):
        return [walk_document(v) for v in value]
    return walk(value)


def typed(value):
    """Type and value, so that 1 and 1.0 and "1" stay apart and nan survives JSON."""
    if value is None:
        return ["null"]
    if isinstance(value, bool):
        return ["bool", value]
    if isinstance(value, int):
        return ["int", value]
    if isinstance(value, float):
        return ["float", repr(value)]
    if isinstance(value, str):
        return ["str", value]
    if isinstance(value, list):
        return ["list", [typed(v) for v in value]]
    return ["map", [[k, typed(v)] for k, v in value.items()]]


PLAIN = """
1e-5|1e+5|-1e-3|1.0e5|1.0e-5|1.e+5|.5|-.5|+.5|5.|1.5|-1.5|+1.5|1E5|1.5E-3|.5e-3|1e5|12e03
none|None|NONE|null|Null|NULL|~|nil|true|True|TRUE|tRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF
y|n|Y|N|yEs|017|-017|+017|0|00|07|08|018|09.5|0o17|0O17|0x1F|0x1f|-0x1F|0xg|0b101|-0b101|0b102|0_1|1_000|1__000|1_
_1|1_000.5|1_0e1_0|0x_1F|1:30|1:30:00|-1:30|00:05:00|01:30|190:20:30|190:20:30.15|1:60|0:05.5|1:5|1:5.|10:00:00
.inf|-.inf|+.inf|.Inf|.INF|.nan|.NaN|.NAN|inf|nan|-nan|.iNf|2024-01-02|2024-1-2|2024-10-10|2001-12-14T21:59:43
bf16|torch.bfloat16|a.b.c:fn|1.2.3|1-2|1+2|3 4|3 # no|-5|+5|--5|0.1|0.1.2|1,2|1, 2|(1, 2)|(1,)|(1)|()|-0|-0.0|0.0
9007199254740991|-9007199254740991|1e400|-1e400|1e-400|0.0001|1e16|1j|1l|1f|'q'|"q"|1_e5|1e_5|1e5_|0b|0x|0o|+|.|..|...
""".replace("\n", "|").strip("|").split("|")

STRINGS = PLAIN + [
    "", " ", "- 5", " 10", "10 ", "\t10", "10\n", "\n10", "\n 10", " \n10", "10\n ", "10\n \n", "10\n\n", "10 # ten", "# ten", "10\n# ten\n", "1 2",
    "[1, 2]", "[1,2,]", "[,]", "[1 2]", "[]", "[[1], [2, [3]]]", "[1,\n 2]", "(1,\n2)", "1,\n2", "[1, 'a', None, True, 1e-5]",
    "{'a': 1}", "{'a': 1,}", "{'a': {'b': [1.0]}}", "{}", "{1: 2, None: 3, False: 4, 1.5: 5}", "{[1]: 2}", "{a: 1}", "{'a' 1}",
    "'x'", '"x"', "'10'", '"10"', "\"'10'\"", "'a' 'b'", "'a' \"b\"", "'it\\'s'", "'\\n\\t\\\\'", "'\\x41\\u00e9\\U0001F600\\101'", "'a\\0'",
    "'\\q'", "'\\ud800'", "'\\x4'", "'\\N{DASH}'", "r'\\n'", "R'a'", "u'a'", "b'a'", "f'a'", "'''a\nb'''", '"""a"b"""', "'a\nb'",
    "'a", "a'", "''", "'' ''", "'a' b", "None", "[None]", "[none]", "Nonee", "True and False", "1 if 1 else 2", "[1, *x]",
    "__import__('os')", "1 == 1", "-True", "[-1, +2]", "-'a'", "-[1]", "'a' * 2", "2 ** 3", "lambda: 1", "é", "'é'", "[é]",
    "10é", "01.5", "01e5", "1.5e5", "0_0", "00_0", "1.", "1._5", "1_.5", "1.5_5", "1._", "( 1 )", "((1, 2), 3)", "1,", ",", "1,,2",
    "[1]]", "[[1]", "(1", "1)", "[1)", "x" * 1001, "1" * 16, "\\", "a\\", "\x0c10", "[1] # list", "'a' # text", "[1, # one\n 2]",
    "0xDEAD_BEEF", "0x__1", "0o1_7", "0b1_0", "0B11", "0X1f", "'\\\na'", "{'a': 1, 'a': 2}", "{'a': 1, 'b': (1, 2)}", "1 , 2",
    "true ", " None", "None\n", "truE", "$ 5", "100%", "5$", "{}{}", "[] []", "1e5.", "1..2", "..5", "1.e", "1e", "1e+", "0e0",
]

DOCUMENTS = [
    "a: 1\nb: {c: [1, 2.0, x], d: null}\n",
    "base: &b {lr: 0.1, betas: [0.9, 0.99]}\nopt:\n  <<: *b\n  lr: 1e-5\n",
    "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz: {<<: [*x, *y], d: 5}\n",
    "x: &x {a: 1}\ny: {b: 2, <<: *x}\n'<<': 3\n",
    "a: &a [1, 2]\nb: [*a, *a]\n",
    "a: |\n  10\nb: >\n  x\n  y\nc: |-\n  [1]\n",
    "a: !!str 10\nb: !!int '10'\nc: !!float 1\nd: !!bool 'yes'\ne: !!null ''\nf: ! 10\ng: !!seq [1]\nh: !!map {a: 1}\n",
    "a:\n- 1\n- b: 2\n  c: 3\n- - 4\n  - 5\n",
    "'10': 1\n\"a b\": 2\na-b: 3\n? k\n: v\n",
    "%YAML 1.1\n---\na: 017\n...\n",
    "a: {b: }\nc: [~]\n",
    "e: {x: \"a\\u263A\\x41\", y: 'it''s'}\n",
]


def main():
    scalars = []
    for text in PLAIN:
        document = "k: " + text + "\n"
        scalars.append({"yaml": document, "want": typed(walk(yaml.safe_load(document)["k"]))})
    for text in STRINGS:
        # JSON is a double-quoted YAML scalar.
        document = "k: " + json.dumps(text, ensure_ascii=False).replace("\\f", "\\x0c") + "\n"
        loaded = yaml.safe_load(document)["k"]
        assert loaded == text, (document, loaded, text)
        scalars.append({"yaml": document, "want": typed(walk(loaded))})
    documents = [{"yaml": d, "want": typed(walk_document(yaml.safe_load(d)))} for d in DOCUMENTS]
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "golden.json"), "w", encoding="utf-8") as f:
        f.write('{"scalars": [\n' + ",\n".join(json.dumps(s) for s in scalars))
        f.write('\n], "documents": [\n' + ",\n".join(json.dumps(d) for d in documents) + "\n]}\n")


main()
