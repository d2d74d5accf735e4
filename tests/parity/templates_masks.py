#!/usr/bin/env python3
"""Does amlua find what the assistant wrote in templates without {% generation %} blocks?

    python tests/parity/templates_masks.py DIR [--match TEXT]

DIR is that of templates_check.py. Two questions are asked, and everything that is not as it should be is printed:

1. of every template, with conversations whose messages say who said them: is every word of the assistant (answer,
   reasoning, arguments of calls) in what is found, and no other's?
2. of every template with {% generation %} blocks, and of the originals of TRL's training variants where both write
   the same text: is what is found in the template without blocks what transformers' return_assistant_tokens_mask gives with them? "with header": the
   blocks take in the header that the prompt supplies; "header in part": they begin within it; "but blanks": the
   blocks draw the line at the other side of a blank.

Exit status 1 where a word is on the wrong side, or a mask differs otherwise than in the header.
"""
import argparse
import collections
import json
import pathlib
import re
import sys

from template_conversations import CONVERSATIONS, TOOLS, TURNS, assistant, call, system, text, tool, user
from templates_check import EPOCH, SPECIAL, expected, fetch, rendered_by_amlua

# The model stops with the header of the next turn, which TRL's variant counts as the assistant's and adds at the end.
KNOWN = {"trl/glm4moe"}
BLOCK = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")


# ---------------------------------------------------------------- words on the right side

def parts(messages):
    return [{**message, "content": [text(message["content"])]} for message in messages]


def with_strings(messages):
    """The same with the arguments of calls as JSON text."""
    def calls(message):
        return [call(json.dumps(one["function"]["arguments"])) for one in message["tool_calls"]]
    return [{**message, "tool_calls": calls(message)} if "tool_calls" in message else message for message in messages]


PLAIN = [user("QUESTION1"), assistant("ANSWER1"), user("QUESTION2"), assistant("ANSWER2"), user("QUESTION3"),
         assistant("ANSWER3")]
CALLS = [user("QUESTION1"), assistant("ANSWER1", tool_calls=[call({"city": "ARGUMENT1"})]),
         tool("RESULT1", name="get_weather", tool_call_id="abcdef123"), assistant("ANSWER2"), user("QUESTION2"),
         assistant("", tool_calls=[call({"city": "ARGUMENT2"})]),
         tool("RESULT2", name="get_weather", tool_call_id="abcdef123"), assistant("ANSWER3")]
MARKED = {
    "turns": {"messages": PLAIN},
    "system": {"messages": [system("SYSTEM1"), *PLAIN]},
    "parts": {"messages": parts(PLAIN)},
    "calls": {"messages": CALLS, "tools": TOOLS},
    "calls, strings": {"messages": with_strings(CALLS), "tools": TOOLS},
    "calls, parts": {"messages": parts(CALLS)},
    "reasoning": {"messages": [user("QUESTION1"), assistant("ANSWER1", reasoning_content="REASON1"), user("QUESTION2"),
                               assistant("ANSWER2", reasoning_content="REASON2")]},
    "thinking": {"messages": [user("QUESTION1"), assistant("<think>\nREASON1\n</think>\n\nANSWER1"), user("QUESTION2"),
                              assistant("<think>\nREASON2\n</think>\n\nANSWER2")]},
}
WORDS = re.compile(rb"(ANSWER|REASON|ARGUMENT|QUESTION|SYSTEM|RESULT)\d")
ASSISTANTS = (b"ANSWER", b"REASON", b"ARGUMENT")


def mask(length, spans):
    """A byte each, 1 in the spans (from, to) counted from 0."""
    out = bytearray(length)
    for first, last in spans:
        out[first:last] = b"\1" * max(last - first, 0)
    return bytes(out)


def misplaced(found):
    """The words on the wrong side of an answer of templates_render.lua."""
    data = found["text"].encode()
    own = mask(len(data), [(answer - 1, last) for _, last, answer in found["turns"]])
    wrong = []
    for word in WORDS.finditer(data):
        inside = own[word.start():word.end()]
        if not (all(inside) if word[1] in ASSISTANTS else not any(inside)):
            wrong.append(word[0].decode())
    return wrong


def job(source, variables):
    return {"template": source, "vars": {**SPECIAL, **variables}, "now": EPOCH, "turns": True}


def check_words(templates):
    names = [(template, case) for template in templates for case in MARKED]
    jobs = [job(templates[template], MARKED[case]) for template, case in names]
    count, wrong = collections.defaultdict(collections.Counter), 0
    for (template, case), found in zip(names, rendered_by_amlua(jobs), strict=True):
        if "error" in found:
            count[case]["raises"] += 1
        elif found["turns"] is None:
            count[case]["not told"] += 1
            print(f"NOT TOLD {template}: {case}")
        else:
            words = misplaced(found)
            count[case]["wrong" if words else "exact"] += 1
            if words:
                wrong += 1
                print(f"WRONG {template}: {case}: {' '.join(words)}")
    table("conversation", count, ("exact", "wrong", "not told", "raises"))
    return wrong


# ---------------------------------------------------------------- against generation blocks

def without_blocks(source):
    """The template with calls of a macro for {% generation %}, which write the same text."""
    macro = "{% macro same_text() %}{{ caller() }}{% endmacro +%}"
    return macro + BLOCK.sub(lambda tag: f"{{%{tag[1]} {'endcall' if tag[2] else 'call same_text()'} {tag[3]}%}}", source)


def shown(data, own):
    out, inside = b"", 0
    for byte, now in zip(data, own):
        if now != inside:
            out, inside = out + (b"<<<" if now else b">>>"), now
        out += bytes([byte])
    return out.decode(errors="replace")[-300:]


def compared(found, theirs):
    """How a mask compares with that of the blocks, and both masks."""
    data = theirs["text"].encode()
    want = mask(len(data), [(first - 1, last) for first, last in theirs["spans"]])
    got = mask(len(data), [(answer - 1, last) for _, last, answer in found["turns"]])
    whole = mask(len(data), [(first - 1, last) for first, last, _ in found["turns"]])
    if want == got:
        return "equal", want, got
    if want == whole:
        return "with header", want, got
    if all(w == g or (full and not g) for w, g, full in zip(want, got, whole)):
        return "header in part", want, got
    if all(w == g or byte in b" \n" for w, g, byte in zip(want, got, data)):
        return "but blanks", want, got
    return "differs", want, got


def check_blocks(templates):
    cases = {**{name: CONVERSATIONS[name] for name in (
        "turns", "turns without system", "thinking", "reasoning", "call", "call, strings", "calls, parallel",
        "reasoning and calls", "parts, text", "unicode", "two users", "long")}, "parts": {"messages": parts(TURNS[1:])}}
    # name: (without blocks, with blocks)
    pairs = {name: (without_blocks(source), source) for name, source in templates.items() if BLOCK.search(source)}
    for name, source in templates.items():
        original = name.removesuffix("_training")
        if original != name and original in templates:
            pairs[original] = (templates[original], source)
    names = [(template, case) for template in sorted(pairs) for case in cases]
    jobs = [job(pairs[template][0], cases[case]) for template, case in names]
    count, wrong = collections.defaultdict(collections.Counter), 0
    for (template, case), found in zip(names, rendered_by_amlua(jobs), strict=True):
        theirs = expected(pairs[template][1], {**SPECIAL, **cases[case]})
        want = got = b""
        if "error" in theirs or "error" in found:
            result = "raises"
        elif found["text"] != theirs["text"]:
            result = "other text"
        elif not found["turns"]:
            result = "differs" if theirs["spans"] else "equal"
        else:
            result, want, got = compared(found, theirs)
        count[template][result] += 1
        if result == "differs":
            wrong += template not in KNOWN
            data = theirs["text"].encode()
            print(f"DIFFERS {template}: {case}\n  blocks {shown(data, want)!r}\n  found  {shown(data, got)!r}")
    table("template", count, ("equal", "with header", "header in part", "but blanks", "differs", "other text", "raises"))
    return wrong


def table(what, count, columns):
    print(f"{what:<36}" + "".join(f"{column:>16}" for column in columns))
    for name, results in [*count.items(), ("all", sum(count.values(), collections.Counter()))]:
        print(f"{name:<36}" + "".join(f"{results[column]:>16}" for column in columns))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--match", default="")
    options = parser.parse_args()
    templates = {name: source for name, source in fetch(options.dir).items() if options.match in name}
    wrong = check_words(templates) + check_blocks(templates)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
