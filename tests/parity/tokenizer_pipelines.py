"""Small tokenizers, one for each normalizer, pre-tokenizer, post-processor, decoder and model option
that amlua supports, and what Hugging Face `tokenizers` makes of a few texts with them.

    python tokenizer_pipelines.py

Writes golden/tokenizers/pipelines.json: a list of {name, tokenizer, cases}, each case with `text`,
`ids`, `ids_plain`, `offsets` (of ids, in bytes) and `decoded` (of ids). Offsets are left out where
tokenizers' own are off or coarser by design: texts whose characters have no token (it does not count
them) and normalized sequences (amlua gives the range of the whole sequence).
"""
import json

import common
from tokenizers import Tokenizer, pre_tokenizers

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
BYTE_MERGES = ["t h", "th e", "Ġ the", "Ġ a", "h e", "i n", "in g", "1 2", "Ġ Ġ", "ĠĠ ĠĠ", "a a", "aa aa",
               "Ã ©", "l l", "' s", "o r", "w or", "wor d"]
TEXTS = ["", "a", "the thing  12345 in the word's end\n", " the  the", "a1b22c333-d!!?,e", "Hello WORLD ÀÉÎ",
         "caf\u00e9 cafe\u0301 \u212b \ufb01 \u00bd", "a\u3000b\u00a0c\td\r\ne", "x_y z\u200dw \u0301q", "\u4e2d\u6587\uff0c\u3002 \u0663\u2167\u00b2",
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
         "\U0001f999 <x> <y>the<x>", "  lead and trail  ", "--a--b-", "thethethe the-the", "\ud55c\uae00 \u1112\u1161\u11ab \u0958 \u1e9b\u0323 q\u0307\u0323",
         "\u0130I\u0131\u03a3\u03c2", "\u00e9<x>\u00e9"]


def byte_vocab(extra=()):
    tokens = ALPHABET + [m.replace(" ", "") for m in BYTE_MERGES] + list(extra)
    return {t: i for i, t in enumerate(dict.fromkeys(tokens))}


def char_vocab(extra=()):
    chars = [chr(c) for c in range(32, 127)] + list("\u2581\u00e9\u4e2d\u0300\u0301\u00c5\u0660")
    tokens = ["<unk>"] + chars + [m.replace(" ", "") for m in BYTE_MERGES if "Ġ" not in m and "Ã" not in m] + list(extra)
    return {t: i for i, t in enumerate(dict.fromkeys(tokens))}


def model(vocab, merges=BYTE_MERGES, **options):
    vocab_merges = [m for m in merges if all(p in vocab for p in m.split(" "))]
    return {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            **options, "vocab": vocab, "merges": vocab_merges}


def byte_level(**options):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True, **options}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def sequence(key, *items):
    return {"type": "Sequence", key: list(items)}


def added(*tokens):
    default = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": 0, "content": c, **default, **flags} for c, flags in tokens]


def document(model_part, **parts):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": None, "post_processor": None, "decoder": None, **parts, "model": model_part}


def template(single, **ids):
    pieces = [{"Sequence": {"id": "A", "type_id": 0}} if t == "$A" else {"SpecialToken": {"id": t, "type_id": 0}} for t in single]
    return {"type": "TemplateProcessing", "single": pieces, "pair": pieces + [{"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {t: {"id": t, "ids": i, "tokens": [t] * len(i)} for t, i in ids.items()}}


def byte_documents():
    vocab = byte_vocab()
    xy = added(("<x>", {}), ("<y>", {}))

    def doc(pre=byte_level(), **parts):
        return document(model(vocab), **{"pre_tokenizer": pre, "decoder": byte_level(), "added_tokens": xy, **parts})

    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        yield form, doc(normalizer={"type": form})
    yield "lowercase", doc(normalizer={"type": "Lowercase"})
    yield "lowercase_nfd", doc(normalizer=sequence("normalizers", {"type": "NFD"}, {"type": "Lowercase"}))
    yield "replace_string", doc(normalizer={"type": "Replace", "pattern": {"String": "the"}, "content": "ab"})
    yield "replace_regex", doc(normalizer={"type": "Replace", "pattern": {"Regex": "\\s+|\\d"}, "content": "_"})
    yield "strip", doc(normalizer={"type": "Strip", "strip_left": True, "strip_right": True})
    yield "strip_left", doc(normalizer={"type": "Strip", "strip_left": True, "strip_right": False})
    yield "byte_normalizer", doc(normalizer={"type": "ByteLevel"}, pre=split("Ġ", "MergedWithNext", kind="String"))
    yield "prefix_space", doc(byte_level(add_prefix_space=True), post_processor=byte_level(add_prefix_space=True))
    yield "trim", doc(post_processor=byte_level())
    yield "no_regex", doc(byte_level(use_regex=False))
    yield "digits", doc(sequence("pretokenizers", {"type": "Digits", "individual_digits": True}, byte_level()))
    yield "digits_together", doc(sequence("pretokenizers", {"type": "Digits", "individual_digits": False}, byte_level()))
    yield "bytes_then_digits", doc(sequence("pretokenizers", {"type": "Punctuation", "behavior": "Contiguous"},
                                            byte_level(), {"type": "Digits", "individual_digits": False}))
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            yield f"split_{behavior}_{invert}", doc(sequence("pretokenizers", split("-|th", behavior, invert), byte_level(use_regex=False)))
        yield f"punctuation_{behavior}", doc(sequence("pretokenizers", {"type": "Punctuation", "behavior": behavior}, byte_level(use_regex=False)))
    yield "split_string", doc(sequence("pretokenizers", split("the", "Isolated", kind="String"), byte_level(use_regex=False)))
    yield "split_empty_matches", doc(sequence("pretokenizers", split("(?=e)|x*"), byte_level(use_regex=False)))
    yield "whitespace", doc(sequence("pretokenizers", {"type": "Whitespace"}, byte_level(use_regex=False)))
    yield "whitespace_split", doc(sequence("pretokenizers", {"type": "WhitespaceSplit"}, byte_level(use_regex=False)))
    for name, pattern in REGEXES.items():
        yield "regex_" + name, doc(sequence("pretokenizers", split(pattern), byte_level(use_regex=False)))
    yield "template", doc(post_processor=template(["<x>", "$A", "<y>", "<x>"], **{"<x>": [len(vocab)], "<y>": [len(vocab) + 1, 3]}))
    yield "processors", doc(post_processor=sequence("processors", byte_level(), template(["<x>", "$A", "<y>"], **{"<x>": [5], "<y>": [6]})))
    yield "added_flags", doc(normalizer={"type": "Lowercase"}, added_tokens=added(
        ("<x>", {"lstrip": True}), ("<y>", {"rstrip": True, "special": False}), ("the", {"single_word": True, "special": False}),
        ("<x>the", {}), ("WORLD", {"normalized": True, "special": False}), ("thing", {"normalized": True})))
    yield "added_over_vocabulary", doc(added_tokens=added(("the", {"special": False}), ("the thing", {}), ("Ġ", {})))
    yield "no_decoder", doc(decoder=None)
    yield "no_pre_tokenizer", doc(None)


REGEXES = {
    "ignore_case": "(?i:'S|THE)|\\p{L}", "word": "\\w+", "not_word": "\\W+", "not_space": "\\S+", "digit": "\\d{2,3}|\\D",
    "edges": "\\b.|.\\B", "lines": "^.|.$", "dot_all": "(?m:e.)", "hex": "\\h+", "script": "\\p{Han}+|\\p{Latin}", "not_property": "\\p{^L}+|\\P{Ll}",
    "interval": "a{,2}|e{1,}", "possessive": "a*+b|\\s++", "classes": "[^\\s\\p{L}\\d]+|[a-f\\-\\]]", "code_points": "\\x61|\\u4e2d|\\x{3000}",
    "look_behind": "(?<=t)h|(?<!t)e", "gpt4": "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
}


def char_documents():
    vocab = char_vocab()

    def doc(options, pre=None, **parts):
        return document(model(vocab, **options), **{"pre_tokenizer": pre, **parts})

    yield "unk", doc({"unk_token": "<unk>"})
    yield "fuse_unk", doc({"unk_token": "<unk>", "fuse_unk": True})
    yield "no_unk", doc({})
    fallback = char_vocab([f"<0x{i:02X}>" for i in range(256)])
    decoders = sequence("decoders", {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
                        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0})
    normalizer = sequence("normalizers", {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"})
    yield "byte_fallback", document(model(fallback, unk_token="<unk>", fuse_unk=True, byte_fallback=True), normalizer=normalizer,
                                    decoder=decoders, added_tokens=added(("<x>", {}), ("<y>", {"rstrip": True})))
    for scheme in ("always", "first", "never"):
        metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": scheme != "first"}
        yield "metaspace_" + scheme, document(model(fallback, byte_fallback=True), pre_tokenizer=metaspace, decoder=metaspace,
                                              added_tokens=added(("<x>", {})))
    some = char_vocab(["<0xC3>", "<0xA9>", "<0xC3>a"])
    yield "some_fallback", document(model(some, unk_token="<unk>", byte_fallback=True))
    words = char_vocab(["the thing", "word's"])
    yield "ignore_merges", document(model(words, ignore_merges=True), pre_tokenizer={"type": "WhitespaceSplit"})
    joined = char_vocab(["e\u2581", "e\u2581a", "\u2581t", "\u2581the"])
    yield "joined_words", document(model(joined, ["t h", "e \u2581", "e\u2581 a", "\u2581 t", "th e"]), normalizer=normalizer, decoder=decoders)
    repeated = char_vocab(["ab", "abc", "bc"])
    yield "merge_order", document(model(repeated, ["a b", "b c", "ab c", "a bc", "a b"]))


def lattice_vocab():
    words = ["\u2581the", "\u2581a", "the", "ing", "thing", "in", "th", "he", "word", "wor", "or", "\u2581", "\u2581\u2581", "aa", "aaaa", "\u2581in",
             "caf", "\u00e9", "e\u0301", "1", "2", "12", "345", "\u4e2d", "end", "'s", "lead", "\u2581and", "and", "trail"]
    letters = [chr(c) for c in range(33, 127) if chr(c) not in "xXqQ"]
    scores = {t: -3.0 - 0.37 * len(t) - 0.01 * i for i, t in enumerate(words)}
    scores.update({c: -9.5 - 0.001 * i for i, c in enumerate(letters) if c not in scores})
    return [["<unk>", 0.0]] + [[t, s] for t, s in scores.items()]


def model_documents():
    """Unigram and WordPiece, and the steps that go with them."""
    vocab = lattice_vocab()
    meta = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    fallback = vocab + [[f"<0x{i:02X}>", -20.0 - i / 100] for i in range(256)]

    def unigram(entries=vocab, unk=0, **parts):
        options = {"byte_fallback": parts.pop("byte_fallback", False)}
        return document({"type": "Unigram", "unk_id": unk, "vocab": entries, **options},
                        **{"pre_tokenizer": meta, "decoder": meta, "added_tokens": added(("<x>", {}), ("<y>", {"lstrip": True})), **parts})

    yield "unigram", unigram()
    yield "unigram_whole", unigram(pre_tokenizer={**meta, "split": False})
    yield "unigram_fallback", unigram(fallback, byte_fallback=True, decoder=sequence("decoders", {"type": "ByteFallback"}, meta))
    yield "unigram_some_fallback", unigram(fallback[:-30], byte_fallback=True)
    nmt = sequence("normalizers", {"type": "Nmt"}, {"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    yield "unigram_nmt", unigram(normalizer=nmt)
    yield "unigram_precompiled", unigram(normalizer={"type": "Precompiled", "precompiled_charsmap": common.charsmap()})
    yield "unigram_scripts", unigram(pre_tokenizer=sequence("pretokenizers", {"type": "UnicodeScripts"}, meta))

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "a", "thing", "##ing", "th", "##e", "##s", "in", "word", "wor", "##d", "end", "cafe", "caf",
              "##\u00e9", "\u4e2d", "\u6587", "hello", "world", "aei", "1", "##2", "12", "##345", "'", "-", "!", "?", ",", ".", "lead", "and", "trail", "##\u0301"]
    pieces += [p for c in "abcdefghijklmnopqrstuvwyz" for p in (c, "##" + c) if p not in pieces]
    bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    processor = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}

    def wordpiece(most=100, **parts):
        model_part = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": most,
                      "vocab": {t: i for i, t in enumerate(pieces)}}
        return document(model_part, **{"normalizer": bert, "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": processor,
                                       "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
                                       "added_tokens": added(("[UNK]", {}), ("[CLS]", {}), ("[SEP]", {})), **parts})

    yield "bert", wordpiece()
    yield "bert_cased", wordpiece(normalizer={**bert, "lowercase": False}, decoder={"type": "WordPiece", "prefix": "##", "cleanup": False})
    yield "bert_accents", wordpiece(normalizer={**bert, "lowercase": False, "strip_accents": True})
    yield "bert_short", wordpiece(6, normalizer={**bert, "clean_text": False, "handle_chinese_chars": False})
    yield "strip_accents", wordpiece(normalizer=sequence("normalizers", {"type": "NFD"}, {"type": "StripAccents"}))
    yield "delimiter", wordpiece(pre_tokenizer={"type": "CharDelimiterSplit", "delimiter": "e"})
    roberta = {"type": "RobertaProcessing", "sep": ["the", 5], "cls": ["Ġ", 7], "trim_offsets": True, "add_prefix_space": False}
    byte = byte_vocab()
    yield "roberta", document(model(byte), pre_tokenizer=byte_level(), decoder=byte_level(), post_processor=roberta)


INEXACT_OFFSETS = {"joined_words", "bert", "bert_cased", "bert_accents", "bert_short", "strip_accents", "delimiter", "unigram", "unigram_whole", "unigram_fallback",
                   "unigram_some_fallback", "unigram_nmt", "unigram_precompiled", "unigram_scripts", "roberta", "no_pre_tokenizer", "NFC", "NFD", "NFKC", "NFKD", "lowercase_nfd", "unk", "fuse_unk", "no_unk", "some_fallback", "ignore_merges",
                   "merge_order", "replace_string", "replace_regex"}


def run(name, table):
    tokenizer = Tokenizer.from_str(json.dumps(table))
    cases = []
    for text in TEXTS + (["the apple a the e a the"] if name == "joined_words" else []):
        encoding = tokenizer.encode(text, add_special_tokens=True)
        case = {"text": text, "ids": encoding.ids, "ids_plain": tokenizer.encode(text, add_special_tokens=False).ids,
                "decoded": tokenizer.decode(encoding.ids, skip_special_tokens=False)}
        if name not in INEXACT_OFFSETS:
            case["offsets"] = [len(text[:i].encode()) for pair in encoding.offsets for i in pair]
        cases.append(case)
    return {"name": name, "tokenizer": table, "cases": cases}


def main():
    rows = [run(name, table) for documents in (byte_documents(), char_documents(), model_documents()) for name, table in documents]
    with open(common.golden_path("tokenizers", "pipelines.json"), "w", encoding="ascii") as f:
        f.write("[\n" + ",\n".join(json.dumps(r, ensure_ascii=True, separators=(",", ":")) for r in rows) + "\n]\n")
    print(f"{len(rows)} tokenizers, {len(TEXTS)} texts")


if __name__ == "__main__":
    main()
