#!/usr/bin/env python3
"""Write the seeds of tests/fuzz/corpus. usage: python3 tests/fuzz/make_corpus.py

Small files that reach every branch of the readers; Python's standard library is enough. The images are written by
tests/c/data/image/make.py.
"""
import base64
import gzip
import io
import json
import os
import struct
import sys
import zipfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lua/datasets/parquet"))
import tiny_parquet  # noqa: E402

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def write(reader, name, data):
    folder = os.path.join(here, reader)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


def json_seeds():
    write("json", "values", b'[null,true,false,0,-1,1.5,-2e-3,9223372036854775808,"a"]')
    write("json", "strings", '"é€😀 \\u00e9\\ud83d\\ude00\\u0000\\n\\t\\"\\\\\\/"'.encode())
    write("json", "object", json.dumps({"k%d" % i: i for i in range(12)}).encode())
    write("json", "nested", b' { "a" : [ { "b" : [ [ ] , { } ] } ] , "a" : 1 }\r\n')


def safetensors(header, data):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def safetensors_seeds():
    def entry(dtype, shape, begin, end):
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    write("safetensors", "empty", safetensors({}, b""))
    write("safetensors", "types", safetensors({
        "__metadata__": {"format": "pt"},
        "a": entry("F64", [1], 0, 8), "b": entry("F32", [1, 1], 8, 12),
        "c": entry("BF16", [1], 12, 14), "d": entry("BOOL", [2], 14, 16),
        "e": entry("F32", [0], 16, 16), "f": entry("I8", [1], 16, 17),
        "g": entry("F99", [1], 17, 18)}, bytes(range(18))))


def protobuf(number, value):
    """One field: bytes, a float or a small number."""
    if isinstance(value, bytes):
        return bytes([number << 3 | 2, len(value)]) + value
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    tag = number << 3
    return (bytes([tag]) if tag < 128 else bytes([tag & 0x7f | 0x80, tag >> 7])) + bytes([value])


def vocabulary_seeds():
    """SentencePiece models, tiktoken files, tekken.json, and GGUF vocabularies of each model."""
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("<0x61>", 0.0, 6), ("<m>", 0.0, 4), ("\u2581t", -1.0, 1), ("he", -2.0, 1),
              ("\u2581the", -3.0, 1)] + [(c, -9.0 - i, 1) for i, c in enumerate("\u2581theode ml".replace(" ", ""))]
    pieces = list(dict((p[0], p) for p in pieces).values())
    body = b"".join(protobuf(1, protobuf(1, t.encode()) + protobuf(2, s) + protobuf(3, k)) for t, s, k in pieces)
    for name, kind in (("unigram", 1), ("bpe", 2)):
        write("sentencepiece", name, body + protobuf(2, protobuf(3, kind) + protobuf(35, 1)) + protobuf(3, protobuf(3, 1) + protobuf(4, 1)))
    lines = [bytes([c]) for c in b"abthe 12"] + [b"th", b"the", b" th"]
    lines = list(dict.fromkeys(lines))
    write("tiktoken", "ranks", b"".join(base64.b64encode(t) + b" %d\n" % i for i, t in enumerate(lines)))
    vocab = [{"rank": i, "token_bytes": base64.b64encode(t).decode()} for i, t in enumerate(lines)]
    write("tiktoken", "tekken", json.dumps({"config": {"default_vocab_size": len(lines) + 2, "default_num_special_tokens": 2}, "vocab": vocab,
                                            "special_tokens": [{"rank": 0, "token_str": "<s>"}]}).encode())

    def text(value):
        return struct.pack("<Q", len(value.encode())) + value.encode()

    for model, names in (("llama", []), ("t5", []), ("bert", []), ("gpt2", ["smollm"])):
        tokens = [p[0] for p in pieces]
        entries = [text("tokenizer.ggml.model") + struct.pack("<I", 8) + text(model),
                   text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, len(tokens)) + b"".join(map(text, tokens)),
                   text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, len(tokens)) + b"".join(struct.pack("<f", p[1]) for p in pieces),
                   text("tokenizer.ggml.token_type") + struct.pack("<IIQ", 9, 5, len(tokens)) + b"".join(struct.pack("<i", p[2]) for p in pieces),
                   text("tokenizer.ggml.merges") + struct.pack("<IIQ", 9, 8, 1) + text("h e"),
                   text("tokenizer.ggml.unknown_token_id") + struct.pack("<II", 4, 0), text("tokenizer.ggml.bos_token_id") + struct.pack("<II", 4, 1)]
        entries += [text("tokenizer.ggml.pre") + struct.pack("<I", 8) + text(n) for n in names]
        write("gguf_vocabulary", model, b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + b"".join(entries))


def tokenizer_seeds():
    vocab = {t: i for i, t in enumerate(["a", "b", "ab", "\u0120", "\u0120a", "1", "\u2581", "<0xC3>", "<0xA9>", "<s>"])}
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    text = " ab <s>1a\ne\u0301 \u00c9".encode() + b"\xff\xc3"

    def seed(name, model=None, tokens=(("<s>", {}),), **parts):
        table = {"added_tokens": [{"content": c, **added, **flags} for c, flags in tokens], **parts, "model": {
            "type": "BPE", "vocab": vocab, "merges": ["a b", ["\u0120", "a"]], **(model or {})}}
        write("tokenizer", name, json.dumps(table, ensure_ascii=False).encode() + b"\0" + text)

    def split(pattern, behavior):
        return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": False}

    level = {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}
    seed("bytes", pre_tokenizer=level, decoder=level, post_processor=level, normalizer={"type": "NFKC"},
         tokens=(("<s>", {"lstrip": True}), ("ab", {"single_word": True, "normalized": True, "special": False})))
    seed("split", pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True}, {"type": "Punctuation"},
        split({"Regex": "(?i:'s)|\\s+(?!\\S)|[^\\s\\p{L}]{1,3}|\\w+"}, "Contiguous"),
        split({"String": "b"}, "MergedWithNext"), {**level, "use_regex": False}]}, model={"ignore_merges": True})
    template = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    seed("metaspace", model={"byte_fallback": True, "unk_token": "a", "fuse_unk": True},
         normalizer={"type": "Sequence", "normalizers": [
             {"type": "Strip"}, {"type": "Lowercase"}, {"type": "Prepend", "prepend": "b"}, {"type": "NFD"},
             {"type": "Replace", "pattern": {"Regex": "\\d"}, "content": " "}]},
         pre_tokenizer={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first"},
         post_processor={"type": "TemplateProcessing", "single": template, "special_tokens": {"<s>": {"ids": [9]}}},
         decoder={"type": "Sequence", "decoders": [
             {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
             {"type": "Strip", "content": " ", "start": 1, "stop": 1}, {"type": "Metaspace", "replacement": "b"}]})


def model_seeds():
    """A Unigram and a WordPiece with their pipelines."""
    text = "\u00c9 the thing\t\u4e2d a1 <s>!".encode() + b"\xff"
    mark = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    added = [{"content": "<s>", "special": True, "normalized": False}]
    pieces = [["<unk>", 0], ["\u2581t", -1.5], ["he", -2], ["\u2581the", -1], ["t", -9], ["h", -9], ["e", -9], ["\u2581", -3]]
    bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    cls = {"type": "BertProcessing", "cls": ["c", 1], "sep": ["s", 2]}
    tables = {
        "unigram": {"added_tokens": added, "normalizer": {"type": "Nmt"}, "pre_tokenizer": mark, "decoder": mark,
                    "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": False, "vocab": pieces}},
        "wordpiece": {"added_tokens": added, "normalizer": bert, "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": cls,
                      "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
                      "model": {"type": "WordPiece", "unk_token": "u", "continuing_subword_prefix": "##",
                                "vocab": {"u": 0, "c": 1, "s": 2, "the": 3, "##ing": 4, "th": 5, "a": 6, "##1": 7}}}}
    for name, table in tables.items():
        write("tokenizer", name, json.dumps(table, ensure_ascii=False).encode() + b"\0" + text)


def gguf_string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def gguf_seeds():
    values = [
        ("i", 5, struct.pack("<i", -5)), ("f", 6, struct.pack("<f", 0.5)), ("b", 7, b"\1"),
        ("s", 8, gguf_string("text")), ("u", 10, struct.pack("<Q", 2**64 - 1)),
        ("as", 9, struct.pack("<IQ", 8, 2) + gguf_string("one") + gguf_string("")),
        ("ai", 9, struct.pack("<IQ3h", 3, 3, 1, -2, 3)),
        ("af", 9, struct.pack("<IQ1d", 12, 1, 2.5)),
        ("aa", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 8, 1) + gguf_string("in")),
        ("general.alignment", 4, struct.pack("<I", 8))]
    types = [(0, 4), (1, 2), (2, 18), (3, 20), (6, 22), (7, 24), (8, 34), (24, 1), (28, 8), (39, 17)]
    k_quants = [(10, 84), (11, 110), (12, 144), (13, 176), (14, 210)]

    def gguf(types):
        tensors, data = b"", b""
        for number, size in types:
            items = 256 if number in range(10, 15) else 32 if number in (2, 3, 6, 7, 8, 39) else 1
            data += b"\0" * (-len(data) % 8)
            tensors += gguf_string("t%d" % number) + struct.pack("<IQQIQ", 2, items, 1, number, len(data))
            data += bytes(i * 7 % 256 for i in range(size))
        head = b"GGUF" + struct.pack("<IQQ", 3, len(types), len(values))
        head += b"".join(gguf_string(k) + struct.pack("<I", t) + v for k, t, v in values) + tensors
        return head + b"\0" * (-len(head) % 8) + data

    write("gguf", "all", gguf(types))
    write("gguf", "k_quants", gguf(k_quants))
    write("gguf", "empty", b"GGUF" + struct.pack("<IQQ", 2, 0, 0))


def pytorch_seeds():
    def text(t):
        return b"X" + struct.pack("<I", len(t)) + t.encode()

    def name(module, t):
        return b"c%s\n%s\n" % (module.encode(), t.encode())

    def tensor(kind, key, numel, first, shape, stride, version="_v2", rest=b"\x89" + name("collections", "OrderedDict") + b")R"):
        storage = b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + b"K%ctQ" % numel
        sizes = b"".join(b"(" + b"".join(b"K%c" % v for v in values) + b"t" for values in (shape, stride))
        return name("torch._utils", "_rebuild_tensor" + version) + b"(" + storage + b"K%c" % first + sizes + rest + b"tR"

    def items(*pairs):
        return b"(" + b"".join(text(k) + v for k, v in pairs) + b"u"

    w = tensor("FloatStorage", "0", 6, 0, [2, 3], [3, 1])
    state = items(("w", w), ("t", tensor("FloatStorage", "0", 6, 1, [2, 2], [1, 2])), ("b", tensor("BoolStorage", "1", 4, 0, [4], [1])),
                  ("p", name("torch._utils", "_rebuild_parameter") + w + b"\x88}\x87R"), ("s", tensor("HalfStorage", "1", 2, 1, [], [])),
                  ("u", tensor("UntypedStorage", "1", 4, 0, [2], [1], "_v3", b"\x89}" + name("torch", "uint16"))),
                  ("o", tensor("LongStorage", "0", 3, 0, [3], [1], "", b"")))
    ordered = b"\x80\2" + name("collections", "OrderedDict") + b")Rq\0" + state + b"}(" + text("_metadata") + b"}ub."
    nested = b"\x80\2}q\0(" + text("epoch") + b"\x8a\2\xff\xffJ\0\0\0\xffM\1\2NN\x86\x85000" + text("x") + b"G" + bytes(8)
    nested += b"U\1yT\1\0\0\0zu" + text("model") + b"}r\1\0\0\0" + state + b"s](h\0j\1\0\0\0eK\1a0."

    def zipped(pickle, **others):
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as z:
            for k, v in {"data.pkl": pickle, "data/0": bytes(range(24)), "data/1": b"\0\1\2\3", "version": b"3\n", **others}.items():
                z.writestr(zipfile.ZipInfo("top/" + k), v)
        return data.getvalue()

    write("pytorch", "zip", zipped(ordered, byteorder=b"little"))
    write("pytorch", "nested", zipped(nested))
    plain = zipped(b"\x80\2}" + items(("w", w)) + b".")
    end = plain.rindex(b"PK\5\6")
    count, size, begin = struct.unpack("<HII", plain[end + 10:end + 20])
    central = b"".join(part[:20] + b"\xff" * 8 + part[28:30] + b"\x14\0" + part[32:] + struct.pack("<HHQQ", 1, 16, n, n)
                       for part in (b"PK\1\2" + p for p in plain[begin:end].split(b"PK\1\2")[1:])
                       for n in struct.unpack("<I", part[24:28]))
    write("pytorch", "zip64", plain[:begin] + central + struct.pack(
        "<4sQ2H2I4Q4sIQI", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(central), begin, b"PK\6\7", 0, begin + len(central), 1)
        + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0))
    magic = b"\x80\2\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\2M\xe9\3."
    write("pytorch", "legacy", magic + b"\x80\2}" + items(("little_endian", b"\x88")) + b".\x80\2}" + items(("w", w)) + b"."
          + b"\x80\2](" + text("0") + b"e." + struct.pack("<Q", 6) + bytes(range(24)))
    write("pytorch", "refused", zipped(b"\x80\2" + name("os", "system") + text("true") + b"\x85R."))


def npy_seeds():
    def npy(descr, fortran, shape, data):
        text = ("{'descr': '%s', 'fortran_order': %s, 'shape': %s, }\n" % (descr, fortran, shape)).encode()
        return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data

    write("npy", "f4", npy("<f4", False, (2, 1), bytes(8)))
    write("npy", "fortran", npy("<i8", True, (2, 3), bytes(range(48))))
    write("npy", "bool", npy("|b1", False, (3,), b"\0\1\2"))
    write("npy", "scalar", npy("<f2", False, (), b"\0\1"))


def token_rows_seeds():
    def token_rows(rows):
        data, entries = b"AMROWS\r\n" + struct.pack("<II", 1, 0), b""
        for number, (has, arrays) in enumerate(rows):
            entries += struct.pack("<QQIIII", len(data), number + 1, len(arrays[0]), 1, 0, has)
            data += b"".join(struct.pack("<%di" % len(a), *a) for a in arrays)
        data += b"\0" * (-len(data) % 8)
        group = len(data)
        data += entries
        directory = len(data)
        data += struct.pack("<Q", group)
        metadata = len(data)
        data += b"{}" + b"\0" * 6
        return data + bytes(32) + struct.pack("<4Q", len(rows), directory, metadata, 2) + bytes(32)

    write("token_rows", "plain", token_rows([(0, [[1, 2], [2, -100]]), (0, [[5], [6]])]))
    write("token_rows", "masks", token_rows([(1, [[1], [2], [1]]), (2, [[1], [2], [0]]), (3, [[1], [2], [1], [0]])]))


def yaml_seeds():
    write("yaml", "scalars", b"""a: 1\nb: -2.5e-3\nc: 'x ''y'\nd: "\\u00e9\\x41\\n"\ne: null\nf: ~\ng: yes\nh: 0x1f
i: 1_000\nj: .inf\nk: 12:30\nl: 2001-01-01\nm: !!int '10'\nn: !!float 1\n? o\n: p\nq-r: 017\n""")
    write("yaml", "collections", b"""x: &x {a: 1, b: [1, 2.0, {c: d}]}\ny:\n  <<: *x\n  - 1\nz: [*x, ~, []]
w:\n  - 1\n  - k: v\n    l:\n    - - 1\n""")
    write("yaml", "blocks", b"---\na: |\n  two\n   lines\nb: >-\n  folded\n  text\n\nc: |+2\n    x\n\n# end\n...\n")
    write("yaml", "short_form", b"model: {name: $A, config_overrides: {a: 1}}\ndata: {dataset_type: packed, path: r, "
          b"columns: {q: a}, seq_length: 8, batch_size: 2, validation_path: v}\ntraining: {optimizer: sgd, loss: fused, "
          b"learning_rate: 1e-4}\ndistributed: {strategy: ddp, tensor_parallel_size: 1}\n")
    write("yaml", "sections", b"""model:\n  _target_: am.AutoModelForCausalLM.from_pretrained
  pretrained_model_name_or_path: ${HOME}/model\ntoken: ${oc.env:HF_TOKEN,none}\napi_key: secret
lr: ${NOT_SET:-1e-5}\nstep_scheduler: {max_steps: 3, a.b: "${HOME}"}\n""")


def hub_seeds():
    def answer(**parts):
        return json.dumps({"sha": "0123456789" * 4, "siblings": [], **parts}).encode()

    files = ["README.md", "config.json", "model.safetensors", "data/train-00000-of-00001.parquet", "en/train/0000.parquet"]
    write("hub", "files", answer(siblings=[
        {"rfilename": name, "size": 3, "blobId": "ab" * 20, "lfs": {"sha256": "cd" * 32, "size": 3}} for name in files]))
    write("hub", "empty", answer())
    write("hub", "escape", answer(siblings=[{"rfilename": "../../x"}, {"rfilename": "/x"}, {"rfilename": "a\u0000b"}]))
    write("hub", "shapes", answer(sha=1, siblings=[1, None, {"rfilename": []}, {"size": -1}]))
    write("card", "splits", b"""---\nlicense: [mit, &a x]\nconfigs:\n- config_name: en\n  default: true\n  data_files:
  - split: train\n    path: data/train-*\n  - split: test\n    path: [data/*.jsonl, "**/*.gz"]\n---\n# Title\n""")
    write("card", "lists", b"---\nconfigs: [{config_name: a, data_files: [a.csv, '*[a-c]?.*']}]\n---\n")
    write("card", "folder", b"---\r\nconfigs:\r\n- {config_name: &n default, data_dir: data}\r\n---\r\n")
    write("card", "none", b"# Title\n---\n")


def jsonl_seeds():
    write("jsonl", "lines", b'\xef\xbb\xbf{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}\r\n\n{"input_ids":[5]}')
    write("jsonl", "array", b' [ {"input_ids": [1], "loss_mask": [1]} ,\n{"a": "]}\\",{"}, [] , 1]\n')
    write("jsonl", "odd", b'{"input_ids": [1.5, 100, -1]}\n{"input_ids": "x"}\n{"input_ids": []}\nnull\n{\n')
    text = {"question": "q?", "answer": "a.", "context": "c", "answers": {"text": ["a"], "answer_start": [0]},
            "ctx": "x", "endings": ["a", "b", "c", "d"], "label": "1", "sentence1": "s t", "sentence2": "u",
            "query": "q", "id": 1, "tools": [{"name": "f", "description": "d", "parameters": {
                "p": {"type": "int", "default": 1.0, "enum": [1], "description": ""}, "n": None}}]}
    text["messages"] = [
        {"role": "system", "content": [{"type": "text", "text": "t"}]}, {"role": "user", "content": "u"},
        {"role": "assistant", "content": None, "reasoning_content": "r", "tool_calls": [
            {"id": "i", "type": "function", "function": {"name": "f", "arguments": {"a": [1.0, None]}}}]},
        {"role": "tool", "tool_call_id": "i", "content": "o"}, {"role": "assistant", "content": "e"}]
    line = json.dumps(text)
    for i in range(11):  # the reader is chosen by the length
        write("jsonl", f"text{i}", (line + " " * i + "\n").encode())
    calls = json.dumps(dict(text, answers=[{"name": "f", "arguments": {"p": 1}}]))
    write("jsonl", "calls", (calls + " " * ((6 - len(calls)) % 11)).encode())
    share = {"conversations": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}], "tools": "[]"}
    for i in range(2):
        write("jsonl", f"share{i}", (json.dumps(share) + " " * ((3 + i - len(json.dumps(share))) % 11)).encode())
    agent = {"id": 1, "tools": " ", "messages": [
        {"role": "user", "content": "u"}, {"role": "assistant", "content": "a", "reasoning_content": "r"},
        {"role": "tool_call", "content": '{"name": "f", "arguments": {"a": 1}}'},
        {"role": "tool_call", "content": {"name": "g"}}, {"role": "tool_response", "content": ["o"], "name": "f"},
        {"role": "tool", "content": None}, {"role": "user", "content": "v"}, {"role": "assistant", "content": "b"}]}
    turns = {"conversations": [{"from": "human", "value": "h"}, {"from": "function_call", "value": '{"name": "f"}'},
                               {"from": "observation", "value": "o"}, {"from": "gpt", "value": "g"}]}
    for name, row in (("agent", agent), ("turns", turns)):
        for i in range(2):
            write("jsonl", f"{name}{i}", (json.dumps(row) + " " * ((9 + i - len(json.dumps(row))) % 11)).encode())


def parquet_seeds():
    write("parquet", "legacy", tiny_parquet.legacy_lists())
    for name, data in tiny_parquet.lies().items():
        write("parquet", name, data)


def csv_seeds():
    write("csv", "quotes", b'\xef\xbb\xbfa,"b ""c""",,a\r\n"x\n,y",1,true,NA\r\n\n -2,"",False,inf\n1.5e3,x\r"z"w,,TRUE,"1"')
    write("csv", "tabs", b"\t\tb\n1\tx y\t007\n\"1\t2\"\t,\n")
    write("csv", "numbers", b"a,b,c\n18446744073709551616,-1,+.5\n9223372036854775808,99999999999999999999,1e400\n")
    write("csv", "odd", b'a,b\n1,2,3\n"x\n')


def rows_seeds():
    lines = b'{"input_ids": [1, 2]}\n{"input_ids": []}\n'
    write("rows", "gzip", gzip.compress(lines, mtime=0))
    write("rows", "gzip_parts", gzip.compress(lines, mtime=0) + gzip.compress(b'{"a":1}', mtime=0) + bytes(9))
    write("rows", "zstd", bytes.fromhex("28b52ffd0058") + struct.pack("<I", len(lines) << 3 | 1)[:3] + lines)
    write("rows", "zstd_run", bytes.fromhex("502a4d1801000000ff28b52ffd0058") + struct.pack("<I", 100000 << 3 | 3)[:3] + b"x")
    write("rows", "xz", bytes.fromhex("fd377a585a000004"))


def template_seeds():
    write("template", "turns", b"""{%- for m in messages if m.role != 'system' -%}
<{{ m['role'] }}>{{ m.content | trim ~ eos_token }}{% generation %}x{% endgeneration %}{{ loop.index0 }}
{%- else %}none{% endfor %}{% if add_generation_prompt %}<a>{% elif tools is defined %}{{ tools | tojson(indent=2) }}
{% endif %}\0Hello {{ x }}""")
    write("template", "expressions", b"""{% set ns = namespace(n=0, s='') %}{% macro f(a, b=2) %}{{ a ** b // 3 % 5 - -1 }}{% endmacro %}
{% for i in range(3) %}{% set ns.n = ns.n + i %}{{ f(i, b=i) }}{{ loop.cycle('a', "b") }}{% endfor %}
{{ [1, 2.5, none, true][::-1] }}{{ {'a': (1, 2)}.items() | list }}{{ 'a,b'.split(',') | join('-') | upper }}
{{ 'x' if 1 < 2 <= 3 and not false else 'y' }}{{ "%s %d" | format('a', 3) }}{{ 'abc'[1:] in ('bc', 'd') }}""")
    write("template", "loop", b"""{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and not loop.last %}<think>
</think>{% endif %}{{ m.content }}.{% endfor %}{% for i in range(messages|length) %}{% set m = messages[i] %}{{ m.content }}
{% endfor %}{% if add_generation_prompt %}<assistant>{% else %}{{ eos_token }}{% endif %}""")
    write("template", "filters", b"""{{ messages | map(attribute='content') | map('length') | sum }}{{ messages | selectattr('role', 'equalto', 'user')
| list | first | tojson }}{{ 'a b' | replace(' ', '_') | title | indent(2, true) }}{{ [3, 1] | sort(reverse=true) | unique | max }}
{{ strftime_now('%Y-%m-%d') }}{% filter upper %}x{% endfilter %}{# comment #}{% raw %}{{ }}{% endraw %}{{ raise_exception('no') }}""")


def trackers_seeds():
    def answers(*bodies, history=b""):
        return history + b"".join(b"\0" + str(status).encode() + json.dumps(body).encode() for status, body in bodies)

    run = {"run": {"info": {"run_id": "a", "experiment_id": "1", "artifact_uri": "mlflow-artifacts:/1/a/artifacts"},
                   "data": {"metrics": [{"key": "loss", "step": "3", "value": 1}]}}}
    lines = b'{"step": 3, "loss": 1.0}\n{"step": 4, "loss": NaN, "timestamp": "2026-01-31T12:00:00.250Z"}\n{"step": 4'
    write("trackers", "mlflow", answers((200, {"experiment": {"experiment_id": "1"}}), (200, run), (200, {}), (200, {}),
                                        history=lines))
    write("trackers", "refusals", answers((404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}),
                                          (503, "busy"), (401, None), (400, {"message": ["x"]})))
    bucket = {"name": "a", "historyLineCount": 2, "historyTail": '["{\\"_step\\": 3}"]', "summaryMetrics": "{}",
              "project": {"name": "p", "entity": {"name": "e"}}}
    write("trackers", "wandb", answers((200, {"data": {"model": {"bucket": bucket}, "upsertBucket": {
        "bucket": bucket, "inserted": True}}}), history=b'{"step": 1e300, "val_loss": -1e308}\n'))


def nanogpt_seeds():
    def shard(magic, width, tokens):
        head = struct.pack("<4i", magic, 1, len(tokens), width) + bytes(1008)
        return head + struct.pack("<%d%s" % (len(tokens), "I" if width == 4 else "H"), *tokens)

    write("nanogpt", "two", shard(278895051, 2, [1, 5, 2, 3, 4, 5, 6, 7, 8, 9]))
    write("nanogpt", "four", shard(278895051, 4, [5, 70000, 2, 3, 5, 6, 7, 8]))
    write("nanogpt", "legacy", shard(20240520, 0, [5, 1, 2, 3, 5, 1, 2, 3]))


def conversation_seeds():
    def lines(*rows):
        return b"\n".join(json.dumps(row).encode() for row in rows)

    text, answer = {"type": "text", "text": "a"}, {"role": "assistant", "content": [{"type": "text", "text": "b"}]}
    write("conversation", "parts", lines(
        {"conversation": [{"role": "user", "content": [{"type": "image", "image": "a.png"}, text]}, answer]},
        {"images": ["a", {"bytes": "x", "path": None}], "messages": [
            {"role": "user", "content": [{"type": "image"}, text, {"type": "image_url", "image_url": {"url": "http://h"}},
                                         {"type": "image"}]}, answer]}))
    write("conversation", "llava", json.dumps([
        {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nA <b>?"}, {"from": "gpt", "value": "C"}]},
        {"image": ["a", "b"], "conversations": [{"from": "human", "value": "<image><image>"}, {"from": "gpt", "value": "C"}]},
    ]).encode())
    write("conversation", "unimm", lines({"image": "a", "conversation": json.dumps([
        {"from": "human", "value": "<image> <image>"}, {"from": "gpt", "value": " c "}])}))
    write("conversation", "cord", lines(
        {"image": "data:image/png;base64,QUJD", "ground_truth": json.dumps({"gt_parse": {"a": [1, 2.5, {"b": None}], "c": {}}})},
        {"file_name": "a", "ground_truth": json.dumps({"gt_parses": [{"a": "b"}, {"text_sequence": "c"}]})}))
    write("conversation", "captions", lines(
        {"file_name": "a.png", "text": "b", "prompt": "c"}, {"file_names": ["a", "b"], "conversation": [
            {"role": "user", "content": "<image><image>"}, {"role": "assistant", "content": "d"}]},
        {"image_id": "a", "question": "b", "answer": "c"}, {"image": {"base64": "QQ=="}, "caption": "x", "text": None}))


def megatron_seeds():
    def pair(code, letter, lengths):
        ids = [k % 7 for k in range(sum(lengths))]
        size = struct.calcsize(letter)
        places = [size * sum(lengths[:k]) for k in range(len(lengths))]
        idx = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, len(lengths), 2)
        idx += struct.pack("<%di" % len(lengths), *lengths) + struct.pack("<%dq" % len(lengths), *places)
        idx += struct.pack("<2q", 0, len(lengths))
        idx += bytes(-len(idx) % 4)
        return bytes([len(idx) // 4]) + idx + struct.pack("<%d%s" % (len(ids), letter), *ids)

    write("megatron", "two", pair(8, "H", [5, 3, 4]))
    write("megatron", "eight", pair(5, "q", [2, 0, 9]))
    write("megatron", "one", pair(1, "B", [30]))


def adapter_seeds():
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "lora_dropout": 0.5, "use_dora": False, "use_rslora": True,
              "modules_to_save": None, "task_type": "CAUSAL_LM", "bias": "none", "init_lora_weights": True,
              "target_modules": ["q_proj"], "rank_pattern": {}}
    at = "base_model.model.model.layers.0.self_attn.q_proj."

    def seed(name, changes, pattern, tensors):
        write("adapter", name, "\0".join([json.dumps({**config, **changes}), pattern, "\n".join(tensors)]).encode())
    lora = [at + "lora_A.weight 2 12", at + "lora_B.default.weight 18 2"]
    seed("lora", {}, "*.layers.0.*_proj", lora)
    seed("dora", {"use_dora": True}, r".*\.[qk]_proj", lora + [at + "lora_magnitude_vector 18"])
    seed("embedding", {}, "embed_tokens", [
        "base_model.model.model.embed_tokens.lora_embedding_A 2 29",
        "base_model.model.model.embed_tokens.lora_embedding_B.default 12 2",
        "base_model.model.model.embed_tokens.base_layer.weight 29 12"])
    seed("saved", {"modules_to_save": ["norm", "lm_head"], "task_type": "SEQ_CLS"}, "(a|b)+$",
         lora + ["base_model.model.model.norm.weight 12", "base_model.model.lm_head.modules_to_save.default.weight 29 12"])
    seed("refused", {"init_lora_weights": "pissa", "fan_in_fan_out": True, "r": -1}, "(.+)+x", [at + "weight 2"])


def processor_seeds():
    def seed(name, image, processor=None):
        write("processor", name, "\0".join(json.dumps(c) for c in (image, processor) if c is not None).encode())
    seed("clip", {"image_processor_type": "CLIPImageProcessor", "size": 30, "crop_size": {"height": 20, "width": 9},
                  "image_mean": [0.5, 0.4, 0.3], "resample": 2, "do_pad": True, "pad_size": {"height": 9, "width": 9}},
         {"processor_class": "LlavaProcessor", "patch_size": 14, "vision_feature_select_strategy": "default",
          "vision_config": {"image_size": 9, "patch_size": 3}, "image_token_index": 3})
    seed("nested", {}, {"processor_class": "Gemma3Processor", "image_seq_length": 4, "image_processor": {
        "image_processor_type": "Gemma3ImageProcessor", "do_pan_and_scan": None, "size": {"height": 5, "width": 6}}})
    seed("qwen", {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor",
                  "min_pixels": 784, "max_pixels": 50000, "patch_size": 7, "merge_size": 3, "temporal_patch_size": 1})
    seed("idefics3", {"image_processor_type": "Idefics3ImageProcessorFast", "max_image_size": {"longest_edge": 64},
                      "size": {"longest_edge": 256}, "do_image_splitting": True, "rescale_factor": 0.004},
         {"processor_class": "Idefics3Processor", "image_seq_len": 4})
    seed("siglip", {"image_processor_type": "SiglipImageProcessor", "size": {"max_height": 30, "max_width": 40},
                    "image_seq_length": 4, "processor_class": "PaliGemmaProcessor"})
    seed("llava", {"image_processor_type": "LlavaImageProcessor", "do_pad": True, "do_center_crop": False,
                   "size": {"shortest_edge": 20, "longest_edge": 30}, "default_to_square": True})


def checkpoint_seeds():
    def seed(name, manifest, plan, *shards):
        write("checkpoint", name, b"\0".join(json.dumps(part).encode() for part in (manifest, plan, *shards)))

    def rows(**firsts):
        return {name: {"saved_offsets": at} for name, at in firsts.items()}

    shard = "model/shard-00001-model-00001-of-00001.safetensors"
    manifest = {"version": 1, "files": {shard: {"bytes": 288}}}
    plan = {"version": 1, "total": 64, "indexed": True, "targets": {
        "a": {"each": True, "at": [["x.0", 0], ["x.1", 0], ["x.0", 3]]}, "b": {"each": False, "at": [["b", 0]]},
        "c": {"each": False, "at": [["c", 0]]}}, "files": [
        {"name": "model-00001-of-00002.safetensors", "tensors": [["x.0", "F32", [6]], ["c", "F32", []]]},
        {"name": "model-00002-of-00002.safetensors", "tensors": [["x.1", "F32", [3]], ["b", "F32", [6]]]}]}
    whole = rows(a=[0, 0], b=[0]), rows(a=[2, 0], b=[4], c=[])
    seed("whole", manifest, plan, *whole)
    seed("gap", {"files": {}}, {"files": []}, whole[0], rows(a=[3, 0], b=[9007199254740991]))
    seed("columns", {"files": {"../../etc/passwd": {"bytes": 1}}}, {**plan, "total": 1e99}, rows(a=[0, 1]), [])


def pattern_seeds():
    write("pattern", "names", b"layers\\.[0-3]\\.|(?i)NORM$\0model.layers.2.mlp.weight")
    write("pattern", "groups", b"^(?!.*lm_head)(?P<n>a+)(?P=n)\\d{2,5}?\0aa123")
    write("pattern", "slow", b"(a+)+$\0" + b"a" * 60 + b"b")
    write("pattern", "utf8", "ü.\\w\0grün".encode())


def store_seeds():
    kinds = dict(set=1, get=2, look=3, remove=4, meet=5, abort=6, bye=7, yes=32)

    def said(kind, key=b"", value=b"", number=1):
        return struct.pack("<BBHII", kinds[kind], len(key), 0, number, len(value)) + key + value

    write("store", "names", b"\1\xff" + said("set", b"a", b"12") + said("get", b"a") + said("set", b"a", b"3")
          + said("look", b"a", number=9) + said("look", b"b") + said("remove", b"a") + said("get", b"a", number=4))
    write("store", "here", b"\2\3" + said("get", b"here/0") + said("get", b"here/1") + said("set", b"here/1"))
    write("store", "meet", b"\0\x10" + said("meet", b"m", b"2") + said("meet", b"m", b"2", 2) + said("set", b"m")
          + said("meet", b"m", b"2", 3))
    write("store", "abort", b"\0\x20" + said("abort", value=b"no space left") + said("bye"))
    write("store", "many", b"\1\xff" + b"".join(said("get", b"k%d" % i, number=i) for i in range(70)))
    write("store", "wrong", b"\1\xff" + said("yes") + b"\1\0\0\0\1\0\0\0\xff\xff\xff\xff")
    write("store", "hello", b"\3\xff" + b"amrank_1" + bytes(range(144)))
    write("store", "stranger", b"\3\5GET / HTTP/1.1\r\n\r\n")


json_seeds()
safetensors_seeds()
gguf_seeds()
pytorch_seeds()
npy_seeds()
token_rows_seeds()
tokenizer_seeds()
model_seeds()
vocabulary_seeds()
yaml_seeds()
hub_seeds()
jsonl_seeds()
nanogpt_seeds()
conversation_seeds()
megatron_seeds()
parquet_seeds()
csv_seeds()
rows_seeds()
template_seeds()
trackers_seeds()
adapter_seeds()
processor_seeds()
checkpoint_seeds()
pattern_seeds()
store_seeds()
