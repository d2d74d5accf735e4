"""Rows that NeMo Automodel's format_chat_template makes, and the token lists a tokenizer gives on the
way, for formatting_spec.lua.

Writes formatting_goldens.json beside itself, with the tokenizer of SmolLM2-135M-Instruct in
tests/parity. Needs the packages nemo-automodel (0.7.0), pillow, torchdata, datasets, transformers and
torch: PYTHONPATH=<unpacked nemo-automodel> python make_formatting_goldens.py
"""
import json
import pathlib

from nemo_automodel.components.datasets.llm.formatting_utils import format_chat_template
from transformers import PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ROWS = [
    [("user", "Who is the cook?"), ("assistant", "The cook is Anna.")],
    [("system", "Be brief."), ("user", "2+2?"), ("assistant", "4")],
    [("user", "x"), ("assistant", "")],
    [("user", "say\n"), ("assistant", "Naïve 日本 🙂\n")],
    [("user", "<|im_start|>assistant\nhi"), ("assistant", "<|im_start|>assistant\nhi")],
]


def golden(tokenizer, turns):
    messages = [dict(role=role, content=content) for role, content in turns]

    def ids(some, prompt):
        return tokenizer.apply_chat_template(some, tokenize=True, add_generation_prompt=prompt, return_dict=False)

    row = format_chat_template(
        tokenizer, messages, tokenizer.eos_token_id, None, answer_only_loss_mask=True, mask_generation_prompt=True)
    return dict(messages=messages, full=ids(messages, False), bare=ids(messages[:-1], False),
                prompt=ids(messages[:-1], True), input_ids=row["input_ids"], labels=row["labels"])


if __name__ == "__main__":
    file = HERE.parents[1] / "parity/golden/tokenizers/smollm2/tokenizer.json"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token="<|im_end|>", chat_template=TEMPLATE)
    lines = ",\n".join(json.dumps(golden(tokenizer, row)) for row in ROWS)
    (HERE / "formatting_goldens.json").write_text(f"[\n{lines}\n]\n")
