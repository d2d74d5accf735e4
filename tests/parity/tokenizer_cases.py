"""The texts that the tokenizer goldens encode: tricky on purpose, all valid UTF-8, and limited to
characters that Unicode 14 assigns (PCRE2 10.42 knows no later ones)."""
import random
import unicodedata

WORDS = """
Hello world|Hello, world!| Hello World!|HELLO|hELLO wORLD|don't can't I'm you're they've we'll he'd
it's IT'S It'S 'S 's' ''s 'tis 'twas|y'all'd've|rock'n'roll|O'Neill|'|''|'''|'re|'RE 'Ve 'LL 'D
ſ'ſ 'ſ K'K|naïve café Äpfel|e\u0301 vs \u00e9|A\u030a vs \u00c5 vs \u212b|ﬁ ﬂ ﬀ ﬃ|½ ¼ ² ³ ₁ Ⅷ ⅷ ① ㊿
1 12 123 1234 12345 123456 1234567|3.14159 -2.5e-10 0x1F 1_000_000 1,234,567.89|v1.2.3-rc.4+build.5
2024-02-29T23:59:59Z|٠١٢٣٤٥٦٧٨٩ ۰۱۲ ०१२ ๐๑๒|1½2|a1b2c3|x²+y²=z²|i18n l10n|50%off 100€ $5 £6 ¥7
нещо на Български|Съешь же ещё этих мягких французских булок|Ελληνικά αβγ ΣΊΣΥΦΟΣ ς|שלום עולם|
שָׁלוֹם|مرحبا بالعالم|اَلْعَرَبِيَّةُ|हिन्दी में लिखा|कर्मण्येवाधिकारस्ते|தமிழ் மொழி|ภาษาไทยง่ายมาก|ភាសាខ្មែរ|한국어 텍스트|ㅎㅏㄴ 한|
日本語のテキスト、句読点。|カタカナ ｶﾀｶﾅ ひらがな|中文字符，标点！？|我想在apple工作1314151天～|㐀𠀀𪚥|Việt Nam Tiếng Việt|Türkçe İIıi ŞşĞğ|
Straße GROẞ ẞ|Ĳ ĳ Ǆ ǅ ǆ|🦙|this is 🦙.cpp|👍👍🏽👍🏿|👨‍👩‍👧‍👦|🏳️‍🌈 🏴‍☠️|🇩🇪🇫🇷🇺🇦|😶‍🌫️ ✅|❤ ❤️|☃☄★|♞♟|a😀b😀c|1️⃣ #️⃣ *️⃣|
∀x∈ℝ: ⌈x⌉ = −⌊−x⌋|∫₀^∞ e^{-x²} dx = √π/2|𝕳𝖊𝖑𝖑𝖔 𝓦𝓸𝓻𝓵𝓭 𝟙𝟚𝟛|ℵ₀ ℕ⊂ℤ|→ ← ↔ ⇒ ⟹|┌─┐│└┘█▓▒░|“curly” ‘quotes’ „low“ «guillemets»|… — – ‐ ‑ ― ‖|
!!!!!!|???!!!...|@#$%^&*()_+-=[]{}|;':",./<>?`~|\\\\n \\t \\\\|a_b_c __init__ _|#hashtag @user|C++ C# F# .NET|a/b\\c|-->|<!-- c -->|&amp; &lt;|
https://example.com/a/b?c=d&e=f#g|user.name+tag@example.co.uk|/usr/local/lib/x86_64-linux-gnu/libfoo.so.1|C:\\Users\\me\\file.txt|127.0.0.1:8080 ::1
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa|abababababababababababab|supercalifragilisticexpialidocious|antidisestablishmentarianism
the The THE tHe| the  the   the|w048 7tuijk dsdfhu|ied 4 ½ months|asdfghjkl;'|zzzzzzzzzzzzzzzzzzzzzzzzzzzz|camelCaseIdentifier snake_case_identifier SCREAMING_CASE|XMLHttpRequest2
Lorem ipsum dolor sit amet, consectetur adipiscing elit.|The quick brown fox jumps over the lazy dog.|To be, or not to be: that is the question.
Zażółć gęślą jaźń|Příliš žluťoučký kůň|Þetta er íslenska|Gàidhlig|Māori|ʻokina Hawaiʻi|ɸɹʌŋ /ˈfəʊnɪks/|⠃⠗⠁⠊⠇⠇⠑|ᚠᚢᚦᚨᚱᚲ|𐍈𐌰𐌹|𓀀𓁐|ꦗꦮ|ᏣᎳᎩ|አማርኛ|ქართული ᲥᲐᲠᲗᲣᲚᲘ|Հայերեն|བོད་ཡིག|မြန်မာ|සිංහල|ລາວ|ᠮᠣᠩᠭᠣᠯ
"""

WHITESPACE = [
    "", " ", "  ", "   ", "    ", " " * 7, " " * 8, " " * 15, " " * 16, " " * 17, " " * 64, " " * 200,
    "\t", "\t\t", "\t\t\t\t", "\n", "\n\n", "\n\n\n", "\n" * 10, "\r", "\r\n", "\r\n\r\n", "\n\r", "\r\r\n",
    " \n", "\n ", " \n ", "  \n  ", "\t\n", "\n\t", " \t \t ", "\t\n\t\n", "\v", "\f", "\v\f", "\x1c\x1d\x1e\x1f",
    "\x85", "a\x85b", "\xa0", "a\xa0b", "\xa0\xa0 a", "\u1680", "\u180e", "a\u180eb", " \u180e ", "\u2000\u2001\u2002",
    "a\u2003b", "\u2028", "a\u2028b", "\u2029", "\u202f", "\u205f", "\u3000", "a\u3000\u3000b", "\u200b", "a\u200bb",
    "\u200c", "\u200d", "\u2060", "\ufeff", "\ufeffHello", "a\ufeffb",
    "a ", "a  ", "a   ", " a", "  a", "   a", "    a", "a  b", "a   b", "a    b", "a\tb", "a\t\tb", "a \tb", "a\t b",
    "a\nb", "a\n\nb", "a \n b", "a  \n  b", "a\r\nb", "a \r\n b", "a\n\n\n   b", "a\n \n \nb", "\n a\n b", " \n\n  a",
    "a \xa0b", "a\xa0 b", "1  2", "  1", "   12", "\n1", "\n 1", " 1 2  3   4", "a 1", "a  1", "  !", "   !!", "! !", "!\n", "!\n\n", "! \n", ".\r\n", "?\n a",
    "a\n!", " \n!", "\t!", "  'll", " 's", "  's", "\n's",
]

CONTROL = [
    "\x00", "a\x00b", "\x00\x00\x00", "\x01\x02\x03", "\x07\x08", "\x1b[31mred\x1b[0m", "\x7f", "\x80\x81\x9f",
    "".join(map(chr, range(32))), "".join(map(chr, range(127, 161))), "\xad", "co\xadop", "\ufffd", "a\ufffdb", "\ufffc",
    "\u0300", " \u0300", "a\u0300\u0301\u0302\u0303", "\u20dd", "\u0488", "\ue000", "\ufdd0", "\uffff", "\U000e0001", "\U0010ffff", "\U000f0000",
    "\u202eabc\u202c", "\u2066x\u2069", "\u061c", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘",
]

CODE = [
    "def f(x):\n    return x + 1\n", "class A(B):\n\n    def __init__(self):\n        super().__init__()\n",
    "for (int i = 0; i < n; ++i) {\n\ta[i] += b[i]*c;\n}\n", "#include <stdio.h>\n\nint main(void)\n{\n    printf(\"%d\\n\", 42);\n}\n",
    "SELECT * FROM t WHERE id = 1 AND name LIKE '%x%';", "local M = {}\nfunction M.f(...) return select('#', ...) end\nreturn M",
    '{"a": [1, 2.5, null, true], "b": {"c": "\\u00e9"}}', "<div class=\"x\"><p>Hi</p></div>", "if(a&&b||!c){d<<=2;e>>>=3;}",
    "x = [i**2 for i in range(10) if i % 2 == 0]", "    indented\n        more\n\tand a tab\n", "a=1;b=2;c=a+b", "let f = |x: &str| -> Result<(), E> { Ok(()) };",
    "```python\nprint('hi')\n```\n", "| a | b |\n|---|---|\n| 1 | 2 |\n", "\\begin{equation}\n  E = mc^2\n\\end{equation}", "$(x)${y}`z`", "git commit -m \"fix: don't\" && git push",
    "\\u0041\\x42\\103", "0b1010 0o17 0xFFuLL 1e10f", "a->b::c.d()", "/* c */ // d\n# e", "<?php echo $x['y']; ?>", "key: value\n- item\n- 'q'\n",
]

# Each tokenizer's golden replaces these placeholders by its own first special tokens.
SPECIAL = [
    "{0}", "{0}{0}", "{0}{1}{2}", "a{0}b", "a {0} b", " {0}", "{0} ", "  {0}  ", "\n{0}\n", "{0}user\nHi there!{1}\n{0}assistant\n",
    "{0", "0}", "<|", "|>", "<|im_start", "<|im_start |>", "<| im_start |>", "<|IM_START|>", "<<|im_start|>>", "x{1}1{2}2", "{0}'s", "don{0}'t", "é{1}é", "{2}\x00{2}", "{0} {1}  {2}",
    "<s></s><unk><pad>", "<|endoftext|>", "<|endoftext|><|endoftext|>", "text<|endoftext|>text", "<|im_start|>system\nYou are x<|im_end|>\n",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>", "[INST] x [/INST]",
]


def random_texts(count, seed):
    """Short runs of random characters from chosen blocks, spaces and newlines between."""
    blocks = [(0x20, 0x7F), (0x20, 0x7F), (0x09, 0x0E), (0xA0, 0x180), (0x300, 0x370), (0x370, 0x530), (0x5D0, 0x700), (0x900, 0xE80),
              (0x1E00, 0x2070), (0x2070, 0x2800), (0x3000, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0xFE00, 0xFFF0), (0x1D400, 0x1D7FF), (0x1F300, 0x1F650)]
    rng = random.Random(seed)
    texts = []
    while len(texts) < count:
        text = ""
        for _ in range(rng.randint(3, 12)):
            low, high = rng.choice(blocks)
            text += "".join(chr(rng.randrange(low, high)) for _ in range(rng.randint(1, 4)))
            text += rng.choice(["", "", " ", "  ", "\n", "1", "'s"])
        text = "".join(c for c in text if unicodedata.category(c) != "Cn")
        texts.append(text)
    return texts


def texts(specials):
    """All texts, without repeats; `specials` holds at least three special tokens' contents."""
    words = [w for line in WORDS.strip("\n").split("\n") for w in line.split("|") if w]
    special = [s.replace("{0}", specials[0]).replace("{1}", specials[1]).replace("{2}", specials[2]) for s in SPECIAL]
    everything = words + WHITESPACE + CONTROL + CODE + special + random_texts(40, 7)
    everything.append("\n".join(words))
    everything.append(" ".join(words + CODE))
    assert all(unicodedata.category(c) != "Cn" or c in "\ufdd0\uffff\U0010ffff\U000f0000"
               for t in everything for c in t)
    return list(dict.fromkeys(everything))


def id_lists(vocab_size, count, seed):
    """Random ids, to decode: byte-level pieces of them are not valid UTF-8 (-> U+FFFD)."""
    rng = random.Random(seed)
    small = min(vocab_size, 300)
    return [[rng.randrange(small if i % 2 else vocab_size) for _ in range(rng.randint(1, 12))]
            for i in range(count)]
