"""evaluate.lua's acc and acc_norm beside lm-eval's, on the same rows in HellaSwag's schema.

    python tests/parity/lm_eval_check.py MODEL_DIR QA_JSONL [ROWS]

MODEL_DIR is a Hugging Face directory, QA_JSONL has objects with a text "context" of several sentences. A
row's right ending is the sentence that follows, its wrong ones are sentences from elsewhere. Needs lm-eval,
transformers and a built amlua (AMLUA, or build/amlua).
"""
import json
import os
import random
import re
import subprocess
import sys
import tempfile

import numpy as np
from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks.hellaswag.utils import process_docs

model, source, count = sys.argv[1], sys.argv[2], int(sys.argv[3] if len(sys.argv) > 3 else 60)
contexts = []
for line in open(source, encoding="utf-8"):
    sentences = re.findall(r"[^.!?]{20,160}[.!?]", json.loads(line)["context"])
    if len(sentences) >= 3 and sentences not in contexts:
        contexts.append(sentences)
draw = random.Random(1)
rows = []
for i, sentences in enumerate(contexts[:count]):
    others = [draw.choice(draw.choice(contexts)) for _ in range(3)]
    label = draw.randrange(4)
    endings = others[:label] + [sentences[2]] + others[label:]
    rows.append(
        {"activity_label": "Text", "ctx_a": sentences[0], "ctx_b": sentences[1], "endings": endings, "label": str(label)}
    )

lm = HFLM(pretrained=model, dtype="float32", device="cpu", batch_size=8)
docs = list(process_docs(Dataset.from_list(rows)))
requests = [
    Instance("loglikelihood", doc, (doc["query"], " " + choice), i)
    for doc in docs
    for i, choice in enumerate(doc["choices"])
]
scores = [score for score, _ in lm.loglikelihood(requests)]
acc = acc_norm = 0
for i, doc in enumerate(docs):
    sums = np.array(scores[4 * i : 4 * i + 4])
    acc += int(np.argmax(sums) == doc["gold"])
    acc_norm += int(np.argmax(sums / np.array([float(len(c)) for c in doc["choices"]])) == doc["gold"])
theirs = {"acc": acc / len(docs), "acc_norm": acc_norm / len(docs)}

with tempfile.TemporaryDirectory() as folder:
    data, out = os.path.join(folder, "rows.jsonl"), os.path.join(folder, "results.json")
    with open(data, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    config = {
        "model": {
            "_target_": "am.AutoModelForCausalLM.from_pretrained",
            "pretrained_model_name_or_path": os.path.abspath(model),
            "torch_dtype": "float32",
        },
        "evaluation": {
            "tasks": [{"_target_": "am.evaluation.HellaSwag", "path_or_dataset": data}],
            "json_output_path": out,
        },
    }
    with open(os.path.join(folder, "config.yaml"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    amlua = os.environ.get("AMLUA", "build/amlua")
    subprocess.run([amlua, "recipes/evaluate.lua", file.name], check=True)
    ours = json.load(open(out, encoding="utf-8"))["results"]["hellaswag"]

print(f"{len(docs)} rows: lm-eval acc {theirs['acc']:.4f}, acc_norm {theirs['acc_norm']:.4f}")
failed = [key for key in theirs if abs(theirs[key] - ours[key]) > 1e-12]
print("FAILED: " + ", ".join(failed) if failed else "the same")
sys.exit(1 if failed else 0)
