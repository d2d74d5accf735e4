"""What transformers does with small tokenizer directories: goldens.json, read by tokenizer_spec.lua.

    HF_HUB_OFFLINE=1 python make_goldens.py        (transformers 5.23.0)

Each case is a set of files to put beside tests/parity/golden/tokenizers/smollm2/tokenizer.json, and
what the tokenizer loaded from there gives.
"""
import json
import os
import shutil
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
from transformers import AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENIZER = os.path.join(HERE, "../../parity/golden/tokenizers/smollm2/tokenizer.json")

CHATML = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
MARKED = ("{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n{% generation %}"
          "{{ m.content }}<|im_end|>{% endgeneration %}\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
          "{% endif %}{% endfor %}")
TOOLS = "{{ tools | tojson }}|{{ flavour }}|{% for m in messages %}{{ m.content }}{% endfor %}"

ADDED = {"content": "[PAD]", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
TALK = [{"role": "user", "content": "Hi, 12 caf\u00e9s?"}, {"role": "assistant", "content": "\u4e2d\u6587 yes \U0001f999"},
        {"role": "user", "content": "ok"}, {"role": "assistant", "content": " bye "}]


def config(**values):
    return {"tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **values})}


CASES = {
    "plain": config(bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>", unk_token="<|endoftext|>",
                    chat_template=CHATML, add_bos_token=True, clean_up_tokenization_spaces=True),
    "objects": config(bos_token={"__type": "AddedToken", **ADDED, "content": "<|im_start|>"}, eos_token=None, chat_template=MARKED),
    "named": config(eos_token="<|im_end|>", chat_template=[{"name": "default", "template": CHATML}, {"name": "tool_use", "template": TOOLS}]),
    "files": {**config(eos_token="<|im_end|>", chat_template="unused"), "chat_template.jinja": CHATML, "chat_templates/rag.jinja": TOOLS},
    "file": {**config(eos_token="<|im_end|>", chat_template="unused"), "chat_template.jinja": MARKED},
    "new_tokens": config(pad_token="[PAD]", eos_token="the", chat_template=CHATML, additional_special_tokens=["<extra>", "<|im_end|>"]),
    "decoder": config(pad_token="[PAD]", chat_template=CHATML, added_tokens_decoder={
        "4": {**ADDED, "content": "<reponame>"}, "49152": {**ADDED, "content": "<soft>", "special": False}, "49153": ADDED}),
    "map_only": {"special_tokens_map.json": json.dumps({"bos_token": "<|im_start|>", "eos_token": {**ADDED, "content": "<|im_end|>"}})},
    "bare": {},
}
TEXT = "the [PAD] <extra> <soft> <|im_end|> . Hello , I'm <reponame> the"


def run(files):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(TOKENIZER, os.path.join(folder, "tokenizer.json"))
        for name, text in files.items():
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        t = AutoTokenizer.from_pretrained(folder)
    ids = t.encode(TEXT)
    out = {"files": files, "len": len(t), "special": {k: v for k, v in t.special_tokens_map.items() if isinstance(v, str)},
           "special_ids": {k: t.convert_tokens_to_ids(v) for k, v in t.special_tokens_map.items() if isinstance(v, str)},
           "ids": ids, "ids_plain": t.encode(TEXT, add_special_tokens=False),
           "decoded": t.decode(ids), "decoded_skip": t.decode(ids, skip_special_tokens=True)}
    if t.chat_template:
        out["chat"] = t.apply_chat_template(TALK, return_dict=False)
        out["chat_prompt"] = t.apply_chat_template(TALK[:3], add_generation_prompt=True, return_dict=False)
        out["chat_text"] = t.apply_chat_template(TALK, tokenize=False)
        out["chat_tools"] = t.apply_chat_template(TALK[:1], tools=[{"name": "f"}], flavour="sweet", tokenize=False)
        if "{% generation %}" in t.get_chat_template():
            out["mask"] = t.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)["assistant_masks"]
    return out


def main():
    goldens = {"text": TEXT, "talk": TALK, "cases": {name: run(files) for name, files in CASES.items()}}
    with open(os.path.join(HERE, "goldens.json"), "w", encoding="ascii") as f:
        json.dump(goldens, f, ensure_ascii=True, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
