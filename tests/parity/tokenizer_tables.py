"""Writes engine/data/tokenizer_tables.c: classes of characters as the Rust crates behind Hugging Face
`tokenizers` have them, which follow older Unicode versions than utf8proc and PCRE2 do.

    python tokenizer_tables.py
"""
import os

import tokenizers
from tokenizers import normalizers, pre_tokenizers

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../engine/data/tokenizer_tables.c")
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]

HEAD = """/* tokenizer_tables.c — classes of characters as Hugging Face tokenizers has them, by Unicode versions
 * older than those of utf8proc and PCRE2. Written by tests/parity/tokenizer_tables.py from
 * tokenizers %s. */
#include "tokenizer_tables.h"

/* clang-format off */
"""
TAIL = """/* clang-format on */

int am_char_class(const am_char_range *ranges, size_t count, uint32_t c)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (ranges[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && ranges[low].first <= c ? (int)ranges[low].class : 0;
}
"""


def bert(**flags):
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return normalizers.BertNormalizer(**{**off, **flags})


def dropped(normalizer):
    return {c: 1 for c in POINTS if normalizer.normalize_str("a" + chr(c) + "b") == "ab"}


def cut_out():
    split = pre_tokenizers.Punctuation().pre_tokenize_str
    return {c: 1 for c in POINTS if len(split("a" + chr(c) + "b")) == 3}


def scripts():
    """A number for each script; characters that go with any have none."""
    split = pre_tokenizers.UnicodeScripts().pre_tokenize_str
    known, classes = [], {}
    for c in POINTS:
        if len(split("a" + chr(c))) == 1 and len(split("\u4e2d" + chr(c))) == 1:
            continue
        if c - 1 in classes and len(split(chr(c - 1) + chr(c))) == 1:
            classes[c] = classes[c - 1]
            continue
        number = next((i for i, r in enumerate(known) if len(split(chr(r) + chr(c))) == 1), None)
        if number is None:
            known.append(c)
            number = len(known) - 1
        classes[c] = number + 1
    return classes


def ranges(classes):
    out = []
    for c in sorted(classes):
        if out and out[-1][1] == c - 1 and out[-1][2] == classes[c]:
            out[-1][1] = c
        else:
            out.append([c, c, classes[c]])
    return out


def table(name, classes):
    rows = ranges(classes)
    text, line = "const am_char_range %s[%d] = {\n" % (name, len(rows)), "   "
    for first, last, number in rows:
        item = " {0x%x, 0x%x, %d}," % (first, last, number)
        if len(line) + len(item) > 99:
            text, line = text + line + "\n", "   "
        line += item
    return text + line + "\n};\n", (name, len(rows))


def main():
    tables = [table("AM_BERT_CONTROL", dropped(bert(clean_text=True))), table("AM_BERT_MARKS", dropped(bert(strip_accents=True))),
              table("AM_MARKS", dropped(normalizers.StripAccents())), table("AM_PUNCTUATION", cut_out()), table("AM_SCRIPTS", scripts())]
    with open(OUT, "w", encoding="utf-8") as f:
        f.write(HEAD % tokenizers.__version__ + "\n".join(t for t, _ in tables) + TAIL)
    for _, (name, count) in tables:
        print(f"extern const am_char_range {name}[{count}];")


if __name__ == "__main__":
    main()
