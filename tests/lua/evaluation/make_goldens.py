"""How lm-eval turns rows into questions and texts into tokens, and SQuAD's scores, for evaluation_spec.lua.

    python tests/lua/evaluation/make_goldens.py > tests/lua/evaluation/goldens.json

Needs lm-eval and transformers. The rows are made up, in HellaSwag's schema.
"""
import json
import os
import re
import string
from collections import Counter

from datasets import Dataset
from lm_eval.api.model import TemplateLM
from lm_eval.tasks.hellaswag.utils import process_docs
from transformers import PreTrainedTokenizerFast

rows = [
    {
        "activity_label": "Boiling an egg",
        "ctx_a": "A pot of water stands on the stove.",
        "ctx_b": "the Cook",
        "endings": ["puts an egg into it.", "sings  [laughs] a song.", "eats the pot.", "flies away."],
        "label": "0",
    },
    {
        "activity_label": "Home and Garden",
        "ctx_a": "[header] How to water plants [title] Check the soil. [step] Put a finger in.",
        "ctx_b": "",
        "endings": ["It is dry. [substeps] Water it.", " Wait for rain. ", "Ask a friend [title] Go.", "é ÉCOLE"],
        "label": "3",
    },
    {
        "activity_label": "Ski fahren",
        "ctx_a": "Ein Mann fährt",
        "ctx_b": "éR FÄLLT nicht",
        "endings": ["hin", "um", "ab", "zu"],
        "label": "2",
    },
]
questions = list(process_docs(Dataset.from_list(rows)))

here = os.path.dirname(os.path.abspath(__file__))
tokenizer = PreTrainedTokenizerFast(
    tokenizer_file=os.path.join(here, "../../parity/golden/tokenizers/gpt2/tokenizer.json")
)


class Encoder:
    backend = "causal"
    tok_encode = staticmethod(lambda text, **_: tokenizer.encode(text))


pairs = []
for context, continuation in [
    ("A pot of water", " boils"),
    ("A pot of water ", "boils"),
    ("A pot \t\n", "\n boils over"),
    ("water", "melon"),
    ("wat", "er"),
    ("é", "té"),
]:
    before, after = TemplateLM._encode_pair(Encoder(), context, continuation)
    pairs.append({"context": context, "continuation": continuation, "before": before, "after": after})


# The official evaluate-v1.1.py
def normalize_answer(s):
    def remove_articles(text):
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def white_space_fix(text):
        return " ".join(text.split())

    def remove_punc(text):
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return white_space_fix(remove_articles(remove_punc(s.lower())))


def f1_score(prediction, ground_truth):
    prediction_tokens = normalize_answer(prediction).split()
    ground_truth_tokens = normalize_answer(ground_truth).split()
    common = Counter(prediction_tokens) & Counter(ground_truth_tokens)
    num_same = sum(common.values())
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(prediction_tokens)
    recall = 1.0 * num_same / len(ground_truth_tokens)
    return (2 * precision * recall) / (precision + recall)


answers = []
for prediction, truth in [
    ("the Denver Broncos", "Denver Broncos"),
    ("Broncos", "Denver Broncos"),
    ("in 1999, a year", "1999"),
    ("", "x"),
    ("the", "a"),
    ("An ÉCOLE!", "école"),
    ("x x y", "x y y"),
    ("don't", "dont"),
    ("a-b the-c", "ab c"),
]:
    answers.append(
        {
            "prediction": prediction,
            "truth": truth,
            "f1": f1_score(prediction, truth),
            "exact_match": int(normalize_answer(prediction) == normalize_answer(truth)),
        }
    )

print(
    json.dumps(
        {
            "rows": rows,
            "questions": [{k: q[k] for k in ("query", "choices", "gold")} for q in questions],
            "pairs": pairs,
            "answers": answers,
        },
        indent=1,
        ensure_ascii=False,
    )
)
