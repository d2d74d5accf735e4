"""Token ids and decoded texts by Hugging Face `tokenizers`, over the texts of tokenizer_cases.py.

    python tokenizer_golden.py MODEL_DIR [--vocabs DIR --out DIR]

MODEL_DIR is what get_model.py wrote. Writes golden/tokenizers/NAME.json, and beside it
NAME/tokenizer.json for the tokenizers small enough to commit:

smollm2     SmolLM2's own vocabulary (Apache-2.0): Digits, then ByteLevel; no post-processor
gpt2        ByteLevel with a prefix space, its vocabulary the first 4000 merges of SmolLM2's
llama3      Split by Llama-3's pattern, ignore_merges, <|begin_of_text|> put first, same vocabulary
            plus whole words that no merge reaches
qwen2       NFC, Split by Qwen2's pattern, added tokens with lstrip, rstrip, single_word, normalized

With --vocabs (a folder holding ggml-vocab-gpt-2.gguf and ggml-vocab-llama-bpe.gguf, out of
vendor/llama.cpp/models/ in the source package of llama-cpp-python) the real GPT-2 and Llama-3
vocabularies are converted too, into --out DIR/NAME/tokenizer.json, which is not committed; their
goldens gpt2_full.json and llama3_full.json are.
"""
import argparse
import json
import os

import common
import tokenizer_cases
from tokenizers import Tokenizer

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def added(first_id, contents, special=True, **flags):
    default = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [{"id": first_id + i, "content": c, **default, **flags, "special": special}
            for i, c in enumerate(contents)]


def byte_level(**flags):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True,
            **flags}


def truncated(source, merge_count, extra_words=()):
    """The vocabulary of the first `merge_count` merges of `source`, numbered anew."""
    merges = source["model"]["merges"][:merge_count]
    vocab = {}
    specials = {a["content"] for a in source["added_tokens"]}
    ranked = sorted(source["model"]["vocab"].items(), key=lambda item: item[1])
    for token, _ in ranked:
        if len(token) == 1 and token not in specials:
            vocab[token] = len(vocab)
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    for word in extra_words:
        vocab.setdefault(word, len(vocab))
    return vocab, merges


def document(vocab, merges, **parts):
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
             "ignore_merges": parts.pop("ignore_merges", False), "vocab": vocab, "merges": merges}
    base = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
            "normalizer": None, "pre_tokenizer": None, "post_processor": None,
            "decoder": byte_level(add_prefix_space=True)}
    return {**base, **parts, "model": model}


def committed(model_dir):
    """name -> tokenizer.json as a table, for every committed tokenizer."""
    with open(os.path.join(model_dir, "tokenizer.json"), encoding="utf-8") as f:
        smollm2 = json.load(f)
    smollm2["post_processor"] = None  # the empty template that the import adds does nothing

    vocab, merges = truncated(smollm2, 4000)
    as_strings = [" ".join(m) for m in merges]
    gpt2 = document(vocab, as_strings, pre_tokenizer=byte_level(add_prefix_space=True),
                    post_processor=byte_level(add_prefix_space=True, trim_offsets=False),
                    added_tokens=added(len(vocab), ["<|endoftext|>", "<|x|>", "<|y|>"]))

    words = ["\u0120question", "supercalifragilistic", "\u0120Bulgarian", "HELLO", "zzzz", "\u0109\u0109\u0109\u0109", "\u0120\u00f0\u0141\u00a6\u013b",
             "\u00e6\u0139\u00a5\u00e6\u013e\u00ac"]
    vocab, merges = truncated(smollm2, 4000, words)
    first = len(vocab)
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>",
             "<|end_header_id|>"]
    single = [{"SpecialToken": {"id": names[0], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    llama3 = document(
        vocab, merges, ignore_merges=True,
        pre_tokenizer={"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False},
            byte_level(use_regex=False)]},
        post_processor={"type": "Sequence", "processors": [
            byte_level(trim_offsets=False),
            {"type": "TemplateProcessing", "single": single,
             "pair": single + [{"SpecialToken": {"id": names[0], "type_id": 1}},
                               {"Sequence": {"id": "B", "type_id": 1}}],
             "special_tokens": {names[0]: {"id": names[0], "ids": [first], "tokens": [names[0]]}}}]},
        added_tokens=added(first, names))

    vocab, merges = truncated(smollm2, 4000)
    first = len(vocab)
    qwen2 = document(
        vocab, merges, normalizer={"type": "NFC"},
        pre_tokenizer={"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False},
            byte_level(use_regex=False)]},
        post_processor=byte_level(trim_offsets=False),
        added_tokens=(added(first, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
                      + added(first + 3, ["<l>"], lstrip=True)
                      + added(first + 4, ["<r>"], rstrip=True)
                      + added(first + 5, ["word"], special=False, single_word=True)
                      + added(first + 6, ["<tool_call>"], special=False)
                      + added(first + 7, ["Caf\u00e9"], special=False, normalized=True)))
    return {"smollm2": smollm2, "gpt2": gpt2, "llama3": llama3, "qwen2": qwen2}


QWEN2_TEXTS = ["a <l> b", "a  \n<l><l> b", "a <r> b", "a<r>  \n b", " <l> <r> ", "word", "a word b",
               "words", "sword", "_word", "word.", "wordword", "\u00e9word", "word1", "a<tool_call>b",
               "Cafe\u0301", "Caf\u00e9", "xCafe\u0301y", "cafe\u0301", "\u212b\u1e9b\u0323"]

LLAMA3_TEXTS = ["a question", "HELLO", " Bulgarian", "zzzz zzzzz", "x \U0001f999", "\u65e5\u672c", "\t\t\t\tx"]
EXTRA_TEXTS = {"llama3": LLAMA3_TEXTS, "qwen2": QWEN2_TEXTS}


def encode_all(tokenizer, extra_texts=()):
    specials = [t.content for _, t in sorted(tokenizer.get_added_tokens_decoder().items()) if t.special]
    specials = (specials * 3)[:3] if len(specials) < 3 else specials
    cases = []
    for text in tokenizer_cases.texts(specials) + list(extra_texts):
        ids = tokenizer.encode(text, add_special_tokens=True).ids
        cases.append({"text": text, "ids": ids,
                      "ids_plain": tokenizer.encode(text, add_special_tokens=False).ids,
                      "decoded": tokenizer.decode(ids, skip_special_tokens=False),
                      "decoded_skip": tokenizer.decode(ids, skip_special_tokens=True)})
    decode = [{"ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False),
               "decoded_skip": tokenizer.decode(ids, skip_special_tokens=True)}
              for ids in tokenizer_cases.id_lists(tokenizer.get_vocab_size(), 60, 11)]
    return {"encode": cases, "decode": decode}


def write_golden(name, value):
    """One case a line."""
    with open(common.golden_path("tokenizers", name + ".json"), "w", encoding="ascii") as f:
        f.write("{\n")
        for i, (key, cases) in enumerate(value.items()):
            rows = ",\n".join("  " + json.dumps(c, ensure_ascii=True, separators=(",", ":")) for c in cases)
            f.write(f' "{key}": [\n{rows}\n ]' + (",\n" if i + 1 < len(value) else "\n"))
        f.write("}\n")
    print(f"{name}: {len(value['encode'])} texts, {len(value['decode'])} id lists")


def full_vocabularies(folder, out):
    from transformers import AutoTokenizer
    for name, stem in (("gpt2_full", "ggml-vocab-gpt-2.gguf"), ("llama3_full", "ggml-vocab-llama-bpe.gguf")):
        backend = AutoTokenizer.from_pretrained(folder, gguf_file=stem).backend_tokenizer
        table = json.loads(backend.to_str())
        table["model"]["ignore_merges"] = name == "llama3_full"  # lost by the import
        tokenizer = Tokenizer.from_str(json.dumps(table))
        check_against_llama_cpp(tokenizer, os.path.join(folder, stem))
        os.makedirs(os.path.join(out, name), exist_ok=True)
        tokenizer.save(os.path.join(out, name, "tokenizer.json"))
        write_golden(name, encode_all(tokenizer))


def check_against_llama_cpp(tokenizer, vocab):
    """The .inp and .out files beside the vocabulary: texts, and the ids llama.cpp expects."""
    with open(vocab + ".inp", encoding="utf-8", newline="") as f:
        inputs = f.read().split("\n__ggml_vocab_test__\n")
    with open(vocab + ".out", encoding="utf-8") as f:
        outputs = [[int(i) for i in line.split()] for line in f.read().split("\n")]
    wrong = [text for text, ids in zip(inputs, outputs)
             if tokenizer.encode(text, add_special_tokens=False).ids != ids]
    print(f"{os.path.basename(vocab)}: {len(inputs) - len(wrong)}/{len(inputs)} as llama.cpp", wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_dir")
    parser.add_argument("--vocabs")
    parser.add_argument("--out")
    args = parser.parse_args()
    for name, table in committed(args.model_dir).items():
        path = common.golden_path("tokenizers", name, "tokenizer.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(table, f, ensure_ascii=False, separators=(",", ":"))
            f.write("\n")
        write_golden(name, encode_all(Tokenizer.from_file(path), EXTRA_TEXTS.get(name, ())))
    if args.vocabs:
        full_vocabularies(args.vocabs, args.out)


if __name__ == "__main__":
    main()
