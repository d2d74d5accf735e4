"""Does amlua read the files that `datasets` writes as `datasets` reads them?

    python datasets_check.py

Parquet (in one and in several row groups), JSON lines, gzip, CSV; questions in SQuAD's schema, conversations with
tools, and columns of every plain type. AMLUA names the program (build/amlua); exit status 1 at the
first row that differs.
"""
import json
import os
import random
import subprocess
import sys
import tempfile

from datasets import ClassLabel, Dataset, Features, Value

DUMP = """
local rows, json = require("am.datasets.file_rows"), require("am.utils.json")
local source = rows.open(arg[1])
for i = 1, source:len() do io.write(json.encode(source:get(i)), "\\n") end
"""


def squad(draw):
    words = ["light", "fog", "Öl", "keeper", "shore\n"]
    context = " ".join(draw.choice(words) for _ in range(draw.randrange(60)))
    texts = [draw.choice(words) for _ in range(draw.randrange(4))]
    return {"id": "%08x" % draw.randrange(2**32), "title": None if draw.random() < 0.2 else "Lighthouse",
            "context": context, "question": "Which, \"exactly\"?",
            "answers": {"text": texts, "answer_start": [draw.randrange(99) for _ in texts]}}


def chat(draw):
    turns = [{"role": draw.choice(["user", "assistant"]), "content": None if draw.random() < 0.1 else "é" * draw.randrange(20),
              "tool_calls": [{"name": "weather", "arguments": "{}"}] * draw.randrange(2)} for _ in range(draw.randrange(6))]
    return {"messages": turns, "source": draw.choice(["a", "b"]), "tags": [[1, 2], [], [3]][: draw.randrange(4)]}


def plain(draw):
    return {"whole": draw.randrange(-2**53, 2**53), "small": draw.randrange(-100, 100), "real": draw.randrange(-999, 999) / 8,
            "flag": draw.random() < 0.5, "text": draw.choice(["", "x", "long " * 50]), "label": draw.randrange(3)}


PLAIN = Features({"whole": Value("int64"), "small": Value("int8"), "real": Value("float32"), "flag": Value("bool"),
                  "text": Value("string"), "label": ClassLabel(names=["no", "yes", "maybe"])})


def read_by_amlua(name):
    amlua = os.environ.get("AMLUA", "build/amlua")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(DUMP)
        script.flush()
        out = subprocess.run([amlua, script.name, name], check=True, stdout=subprocess.PIPE).stdout
    return [json.loads(line) for line in out.splitlines()]


def compare(what, ours, expected):
    for i, row in enumerate(expected):
        if i >= len(ours) or ours[i] != row:
            sys.exit(f"FAILED: {what}, row {i + 1}\n amlua    {ours[i : i + 1]}\n datasets {row}")
    if len(ours) != len(expected):
        sys.exit(f"FAILED: {what}: {len(ours)} rows instead of {len(expected)}")
    print(f"ok: {what}, {len(expected)} rows")


def main():
    draw = random.Random(7)
    made = {"questions": Dataset.from_list([squad(draw) for _ in range(200)]),
            "conversations": Dataset.from_list([chat(draw) for _ in range(200)]),
            "plain columns": Dataset.from_list([plain(draw) for _ in range(200)], features=PLAIN)}
    with tempfile.TemporaryDirectory() as folder:
        for what, data in made.items():
            expected = [json.loads(json.dumps(row)) for row in data]
            for rows in (None, 17):
                name = os.path.join(folder, "rows.parquet")
                data.to_parquet(name, batch_size=rows)
                compare(f"{what}, Parquet, {rows or 'any'} rows in a group", read_by_amlua(name), expected)
            for name in ("rows.jsonl", "rows.jsonl.gz"):
                data.to_json(os.path.join(folder, name))
                compare(f"{what}, {name}", read_by_amlua(os.path.join(folder, name)), expected)
        name = os.path.join(folder, "rows.csv")
        made["plain columns"].to_csv(name)
        compare("plain columns, CSV", read_by_amlua(name), list(Dataset.from_csv(name, cache_dir=folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
