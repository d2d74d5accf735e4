"""Which files of a data set the Python package `datasets` takes for which split: dataset_files_goldens.json.

    python tests/lua/utils/make_dataset_files_goldens.py      (datasets 5.2; any recent version gives the same)

Each case is a folder of empty files with a README.md. What `datasets` says is kept with duplicates removed,
since amlua reads no row twice; an error is kept as its class.
"""

import json
import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import datasets

CASES = [
    {"files": ["train.jsonl", "test.jsonl", "README.md"]},
    {"files": ["data.jsonl"]},
    {"files": ["a.csv", "b.csv", "c.json"]},
    {"files": ["a.parquet", "b.json"]},
    {"files": ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
               "data/test-00000-of-00001.parquet", "other/x.parquet"]},
    {"files": ["data/train-00000-of-00001-abc123.parquet", "data/validation-00000-of-00001.parquet",
               "data/extra-00000-of-00001.parquet"]},
    {"files": ["train/a.jsonl", "train/b.jsonl", "val/a.jsonl", "eval/x.jsonl"]},
    {"files": ["my-train-set/a.jsonl", "my_dev_set/b.jsonl"]},
    {"files": ["training_data.csv", "dev.csv", "sub/my-testing.csv", "trainer.csv"]},
    {"files": ["train-training.jsonl", "x.jsonl"]},
    {"files": [".hidden/train.jsonl", "a.jsonl", "__pycache__/b.jsonl", ".c.jsonl"]},
    {"files": ["train.jsonl.gz", "test.jsonl.gz", "notes.txt"]},
    {"files": ["train.txt", "LICENSE", "config.json"]},
    {"files": ["README.md"]},
    {"files": ["LICENSE", "run.sh"]},
    {"files": ["en/a.jsonl", "de/b.jsonl"], "configs": """
- config_name: en
  data_files: en/*.jsonl
- config_name: de
  data_files: "de/*"
""", "names": [None, "en", "de", "fr"]},
    {"files": ["en/train.jsonl", "en/test.jsonl", "de/train.jsonl"], "configs": """
- config_name: en
  data_dir: en
  default: true
- config_name: de
  data_dir: de
""", "names": [None, "de"]},
    {"files": ["a.jsonl", "b.jsonl", "c.jsonl", "d.csv"], "configs": """
- config_name: default
  data_files:
  - split: train
    path: [b.jsonl, a.jsonl]
  - split: held_out.1
    path: "c.*"
""", "names": [None, "default"]},
    {"files": ["a.jsonl", "b/c.jsonl", "b/d/e.jsonl"], "configs": """
- config_name: x
  data_files: ["**/e.jsonl", "*.jsonl", "b/*.jsonl", "nothing*"]
"""},
    {"files": ["a.jsonl"], "configs": "\n- config_name: x\n  data_files: missing.jsonl\n"},
    {"files": ["d0/x1.jsonl", "d1/x2.jsonl", "d2/y3.jsonl", "d2/x!.jsonl"], "configs": """
- config_name: x
  data_files:
  - split: sets
    path: "d[01]/x[0-9].jsonl"
  - split: negated
    path: "d?/[!y]?.jsonl"
  - split: deep
    path: "**"
"""},
    {"files": ["validation.jsonl", "train.jsonl"], "configs": "\n- config_name: a\n- config_name: b\n",
     "names": [None, "a", "b"]},
]


def of(case, folder, name):
    for file in case["files"]:
        os.makedirs(os.path.dirname(os.path.join(folder, file)), exist_ok=True)
        open(os.path.join(folder, file), "w").close()
    if "configs" in case:
        with open(os.path.join(folder, "README.md"), "w") as f:
            f.write("---\nlicense: mit\nconfigs:" + case["configs"] + "---\n# Title\n")
    try:
        found = datasets.load_dataset_builder(folder, name=name).config.data_files
    except Exception as e:
        return {"error": type(e).__name__}
    return {str(split): list(dict.fromkeys(os.path.relpath(f, folder) for f in files)) for split, files in found.items()}


def main():
    out = []
    for case in CASES:
        for name in case.get("names", [None]):
            with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
                datasets.config.HF_DATASETS_CACHE = cache
                result = of(case, os.path.realpath(folder), name)
            out.append({"files": case["files"], "configs": case.get("configs"), "name": name, "splits": result})
    place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "dataset_files_goldens.json")
    with open(place, "w") as f:
        json.dump(out, f, indent=1)
        f.write("\n")


main()
