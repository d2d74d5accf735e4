"""Small vocabularies in the formats beside tokenizer.json, and what the programs that the formats belong to make of
a few texts with them.

    python tokenizer_formats.py        (sentencepiece 0.2.3, tiktoken 0.14.0, gguf 0.19.0, tokenizers 0.23.3)

Writes golden/tokenizers/formats/: bpe.model and unigram.model (judge: sentencepiece), small.tiktoken and tekken.json
(judge: tiktoken), llama.gguf, t5.gguf, bert.gguf (judges: sentencepiece for the same models, tokenizers for
WordPiece), and formats.json: for each file its format and cases of text and ids without what goes around.
"""
import base64
import io
import json
import os

import common
import gguf
import sentencepiece
import tiktoken
import tokenizer_pipelines
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer

OUT = os.path.dirname(common.golden_path("tokenizers", "formats", "formats.json"))
# Without the one text where Hugging Face's way through a charsmap (by grapheme), which amlua takes, is not
# SentencePiece's (the longest match).
TEXTS = [t for t in tokenizer_pipelines.TEXTS if "\u1112" not in t] + [" x", "\n\nthe\tthe", "f(x) = {a: 1}", "'Tis I'LL", "   ", "the   the ", "\u2581 a\u2581b", "\U0001f600\u200d\u00e9 naïve"]
# As tiktoken 0.14 has it.
CL100K = ("'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}++|\\p{N}{1,3}+| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*+|\\s++$|\\s*[\\r\\n]"
          "|\\s+(?!\\S)|\\s")
UPPER, LOWER = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]", "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
TEKKEN = (f"[^\\r\\n\\p{{L}}\\p{{N}}]?{UPPER}*{LOWER}+|[^\\r\\n\\p{{L}}\\p{{N}}]?{UPPER}+{LOWER}*|\\p{{N}}"
          "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")


def corpus():
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "../../README.md"), encoding="utf-8") as f:
        return [line.strip() for line in f if line.strip()] + [t for t in TEXTS if t.strip()] * 3


def train(name, **options):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(corpus()), model_writer=out, minloglevel=2, num_threads=1, **options)
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(out.getvalue())
    if name == "unigram.model":
        model.normalizer_spec.precompiled_charsmap = base64.b64decode(common.charsmap())
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(model.SerializeToString())
    processor = sentencepiece.SentencePieceProcessor(model_file=os.path.join(OUT, name))
    return model, [processor.encode(t) for t in TEXTS]


def ranks():
    """Bytes, then pairs by how often they stand side by side, merged in turn."""
    words = [list(bytes([b]) for b in w.encode()) for line in corpus() for w in (" " + line).replace("  ", " ").split(" ")[1:] for w in (" " + w,)]
    vocab = {bytes([i]): i for i in range(256)}
    while len(vocab) < 600:
        counts = {}
        for w in words:
            for pair in zip(w, w[1:]):
                counts[pair] = counts.get(pair, 0) + 1
        best = max(counts, key=lambda p: (counts[p], p))
        vocab[best[0] + best[1]] = len(vocab)
        for w in words:
            i = 0
            while i + 1 < len(w):
                if (w[i], w[i + 1]) == best:
                    w[i:i + 2] = [best[0] + best[1]]
                i += 1
    return vocab


def by_tiktoken(vocab, pattern, first=0):
    encoding = tiktoken.Encoding(name="small", pat_str=pattern, mergeable_ranks=vocab, special_tokens={})
    return [[i + first for i in encoding.encode_ordinary(t)] for t in TEXTS]


def write_gguf(name, model, tokens, types, scores=None, **values):
    writer = gguf.GGUFWriter(os.path.join(OUT, name), "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if scores:
        writer.add_token_scores(scores)
    for key, value in values.items():
        key = "tokenizer.ggml." + key
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_key_value(key, list(value), gguf.GGUFValueType.ARRAY, sub_type=gguf.GGUFValueType.UINT8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def from_model(name, kind, model, **values):
    write_gguf(name, kind, [p.piece for p in model.pieces], [p.type for p in model.pieces], [p.score for p in model.pieces], unknown_token_id=0,
               bos_token_id=1, eos_token_id=2, remove_extra_whitespaces=model.normalizer_spec.remove_extra_whitespaces, **values)


def main():
    os.makedirs(OUT, exist_ok=True)
    rows = []
    bpe, ids = train("bpe.model", model_type="bpe", vocab_size=700, byte_fallback=True, character_coverage=0.99, split_digits=True,
                     normalization_rule_name="identity", remove_extra_whitespaces=False, user_defined_symbols=["<mask>"])
    rows.append(["bpe.model", "sentencepiece", ids])
    from_model("llama.gguf", "llama", bpe)
    rows.append(["llama.gguf", "gguf", ids])
    unigram, ids = train("unigram.model", model_type="unigram", vocab_size=500, normalization_rule_name="identity")
    rows.append(["unigram.model", "sentencepiece", ids])
    from_model("t5.gguf", "t5", unigram, precompiled_charsmap=unigram.normalizer_spec.precompiled_charsmap)
    rows.append(["t5.gguf", "gguf", ids])

    vocab = ranks()
    with open(os.path.join(OUT, "small.tiktoken"), "w", encoding="ascii") as f:
        f.writelines(f"{base64.b64encode(t).decode()} {r}\n" for t, r in vocab.items())
    rows.append(["small.tiktoken", "tiktoken", by_tiktoken(vocab, CL100K)])
    entries = [{"rank": r, "token_bytes": base64.b64encode(t).decode(), "token_str": None} for t, r in vocab.items()]
    config = {"pattern": TEKKEN, "num_vocab_tokens": 600, "default_vocab_size": 575, "default_num_special_tokens": 25, "version": "v3"}
    with open(os.path.join(OUT, "tekken.json"), "w", encoding="ascii") as f:
        json.dump({"config": config, "vocab": entries}, f, separators=(",", ":"))
    rows.append(["tekken.json", "tekken", by_tiktoken({t: r for t, r in vocab.items() if r < 550}, TEKKEN, 25)])

    table = next(t for n, t in tokenizer_pipelines.model_documents() if n == "bert")
    pieces = list(table["model"]["vocab"])
    spelled = [p if p[0] == "[" else p[2:] if p[:2] == "##" else "\u2581" + p for p in pieces]
    write_gguf("bert.gguf", "bert", spelled, [3 if p[0] == "[" else 1 for p in pieces], unknown_token_id=1, cls_token_id=2, seperator_token_id=3,
               padding_token_id=0)
    tokenizer = Tokenizer.from_str(json.dumps(table))
    rows.append(["bert.gguf", "gguf", [tokenizer.encode(t, add_special_tokens=False).ids for t in TEXTS]])
    with open(os.path.join(OUT, "formats.json"), "w", encoding="ascii") as f:
        cases = [json.dumps({"file": n, "format": k, "cases": [{"text": t, "ids": i} for t, i in zip(TEXTS, ids)]}, separators=(",", ":"))
                 for n, k, ids in rows]
        f.write("[\n" + ",\n".join(cases) + "\n]\n")


if __name__ == "__main__":
    main()
