/* tokenizer_gguf.c — the tokenizer in a GGUF file's metadata, written as the tokenizer.json it was
 * made from. GGUF keeps vocabulary, merges and token kinds but only a name for the way the text is
 * cut
 * (`tokenizer.ggml.pre`); the table below says what the names mean. The rest of the pipeline is
 * that of the models' own files: ignore_merges and NFC come back where those have them. */
#include <string.h>

#include "../core/error.h"
#include "../io/gguf.h"
#include "tokenizer.h"

#define LLAMA3_CUT(digits)                                                                         \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits                           \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* Ways to cut. */
typedef struct cut {
    const char *names; /* of tokenizer.ggml.pre, separated by spaces */
    const char *regex; /* of a Split before ByteLevel; NULL: ByteLevel's own */
    int digits;        /* each digit alone first */
    int ignore_merges;
    int nfc;
} cut;

static const cut CUTS[] = {
    {"default gpt-2 gpt2 phi-2", NULL, 0, 0, 0},
    {"smollm starcoder refact", NULL, 1, 0, 0},
    {"llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2", LLAMA3_CUT("\\p{N}{1,3}"),
     0, 1, 0},
    {"dbrx smaug-bpe", LLAMA3_CUT("\\p{N}{1,3}"), 0, 0, 0},
    {"qwen2 deepseek-r1-qwen", LLAMA3_CUT("\\p{N}"), 0, 0, 1},
};

enum { TOKEN_CONTROL = 3, TOKEN_USER_DEFINED = 4 };

static int names_contain(const char *names, const char *name, size_t n)
{
    for (const char *p = names; *p;) {
        size_t length = strcspn(p, " ");
        if (length == n && memcmp(p, name, n) == 0)
            return 1;
        p += length + (p[length] == ' ');
    }
    return 0;
}

static int find_cut(const cut **out, const am_archive *gguf)
{
    const char *name = "default";
    size_t n = strlen(name);
    AM_TRY(am_gguf_string(&name, &n, gguf, "tokenizer.ggml.pre"));
    for (size_t i = 0; i < sizeof CUTS / sizeof *CUTS; i++)
        if (names_contain(CUTS[i].names, name, n)) {
            *out = &CUTS[i];
            return AM_OK;
        }
    return am_fail(
        AM_EUNSUP,
        "tokenizer.ggml.pre '%.*s' is not supported (supported: %s %s %s %s %s); use the "
        "model's own tokenizer.json",
        (int)(n < 100 ? n : 100), name, CUTS[0].names, CUTS[1].names, CUTS[2].names, CUTS[3].names,
        CUTS[4].names);
}

static int string_array(const am_gguf_array **out, const am_archive *gguf, const char *key)
{
    AM_TRY(am_gguf_array_find(out, gguf, key));
    if (!*out)
        return am_fail(AM_EFORMAT, "'%s' is missing", key);
    if (am_gguf_array_type(*out) != AM_GGUF_STRING)
        return am_fail(AM_EFORMAT, "'%s' is no array of strings", key);
    return AM_OK;
}

/* ---- writing ---------------------------------------------------------------------------- */

static void key(am_buffer *b, const char *name)
{
    am_json_put_key(b, name, strlen(name));
}

static void text(am_buffer *b, const char *name, const char *value)
{
    key(b, name);
    if (value)
        am_json_put_string(b, value, strlen(value));
    else
        am_json_put_null(b);
}

static void flag(am_buffer *b, const char *name, int value)
{
    key(b, name);
    am_json_put_bool(b, value);
}

/* {"type": type, … left open. */
static void open_part(am_buffer *b, const char *name, const char *type)
{
    if (name)
        key(b, name);
    am_json_put_open(b, '{');
    text(b, "type", type);
}

static void byte_level(am_buffer *b, const char *name, int add_prefix_space, int use_regex)
{
    open_part(b, name, "ByteLevel");
    flag(b, "add_prefix_space", add_prefix_space);
    flag(b, "trim_offsets", 1);
    flag(b, "use_regex", use_regex);
    am_json_put_close(b, '}');
}

static void pre_tokenizer(am_buffer *b, const cut *c)
{
    if (!c->regex && !c->digits) {
        byte_level(b, "pre_tokenizer", 0, 1);
        return;
    }
    open_part(b, "pre_tokenizer", "Sequence");
    key(b, "pretokenizers");
    am_json_put_open(b, '[');
    if (c->digits) {
        open_part(b, NULL, "Digits");
        flag(b, "individual_digits", 1);
    } else {
        open_part(b, NULL, "Split");
        key(b, "pattern");
        am_json_put_open(b, '{');
        text(b, "Regex", c->regex);
        am_json_put_close(b, '}');
        text(b, "behavior", "Isolated");
        flag(b, "invert", 0);
    }
    am_json_put_close(b, '}');
    byte_level(b, NULL, 0, !c->regex);
    am_json_put_close(b, ']');
    am_json_put_close(b, '}');
}

static void template_token(am_buffer *b, const char *kind, const char *id, size_t bytes, int type)
{
    am_json_put_open(b, '{');
    key(b, kind);
    am_json_put_open(b, '{');
    key(b, "id");
    am_json_put_string(b, id, bytes);
    key(b, "type_id");
    am_json_put_int(b, type);
    am_json_put_close(b, '}');
    am_json_put_close(b, '}');
}

/* The tokens that stand around a text, as add_bos_token and add_eos_token say. */
typedef struct around {
    int64_t ids[2]; /* before and after; -1: none */
    const char *text[2];
    size_t bytes[2];
} around;

static int find_around(around *out, const am_archive *gguf, const am_gguf_array *tokens)
{
    static const char *const flags[] = {"tokenizer.ggml.add_bos_token",
                                        "tokenizer.ggml.add_eos_token"};
    static const char *const ids[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"};
    for (int i = 0; i < 2; i++) {
        int wanted = 0;
        out->ids[i] = -1;
        AM_TRY(am_gguf_bool(&wanted, gguf, flags[i]));
        if (!wanted)
            continue;
        AM_TRY(am_gguf_int(&out->ids[i], gguf, ids[i]));
        if (out->ids[i] < 0 || out->ids[i] >= am_gguf_array_count(tokens))
            return am_fail(AM_EFORMAT, "'%s' is set, but '%s' names no token", flags[i], ids[i]);
        out->text[i] = am_gguf_array_string(tokens, out->ids[i], &out->bytes[i]);
    }
    return AM_OK;
}

static void template_sequence(am_buffer *b, const around *a, const char *name, int type)
{
    if (a->ids[0] >= 0)
        template_token(b, "SpecialToken", a->text[0], a->bytes[0], type);
    template_token(b, "Sequence", name, 1, type);
    if (a->ids[1] >= 0)
        template_token(b, "SpecialToken", a->text[1], a->bytes[1], type);
}

static void post_processor(am_buffer *b, const around *a)
{
    if (a->ids[0] < 0 && a->ids[1] < 0) {
        text(b, "post_processor", NULL);
        return;
    }
    open_part(b, "post_processor", "TemplateProcessing");
    key(b, "single");
    am_json_put_open(b, '[');
    template_sequence(b, a, "A", 0);
    am_json_put_close(b, ']');
    key(b, "pair");
    am_json_put_open(b, '[');
    template_sequence(b, a, "A", 0);
    template_sequence(b, a, "B", 1);
    am_json_put_close(b, ']');
    key(b, "special_tokens");
    am_json_put_open(b, '{');
    for (int i = 0; i < 2; i++) {
        if (a->ids[i] < 0 || (i == 1 && a->ids[0] == a->ids[1]))
            continue;
        am_json_put_key(b, a->text[i], a->bytes[i]);
        am_json_put_open(b, '{');
        key(b, "id");
        am_json_put_string(b, a->text[i], a->bytes[i]);
        key(b, "ids");
        am_json_put_open(b, '[');
        am_json_put_int(b, a->ids[i]);
        am_json_put_close(b, ']');
        key(b, "tokens");
        am_json_put_open(b, '[');
        am_json_put_string(b, a->text[i], a->bytes[i]);
        am_json_put_close(b, ']');
        am_json_put_close(b, '}');
    }
    am_json_put_close(b, '}');
    am_json_put_close(b, '}');
}

static void added_tokens(am_buffer *b, const am_gguf_array *tokens, const am_gguf_array *kinds)
{
    key(b, "added_tokens");
    am_json_put_open(b, '[');
    for (int64_t i = 0; kinds && i < am_gguf_array_count(tokens); i++) {
        size_t bytes;
        int64_t kind = am_gguf_array_int(kinds, i);
        const char *content = am_gguf_array_string(tokens, i, &bytes);
        if (kind != TOKEN_CONTROL && kind != TOKEN_USER_DEFINED)
            continue;
        am_json_put_open(b, '{');
        key(b, "id");
        am_json_put_int(b, i);
        key(b, "content");
        am_json_put_string(b, content, bytes);
        flag(b, "single_word", 0);
        flag(b, "lstrip", 0);
        flag(b, "rstrip", 0);
        flag(b, "normalized", 0);
        flag(b, "special", kind == TOKEN_CONTROL);
        am_json_put_close(b, '}');
    }
    am_json_put_close(b, ']');
}

static void model(am_buffer *b, const cut *c, const am_gguf_array *tokens,
                  const am_gguf_array *merges)
{
    open_part(b, "model", "BPE");
    text(b, "dropout", NULL);
    text(b, "unk_token", NULL);
    text(b, "continuing_subword_prefix", NULL);
    text(b, "end_of_word_suffix", NULL);
    flag(b, "fuse_unk", 0);
    flag(b, "byte_fallback", 0);
    flag(b, "ignore_merges", c->ignore_merges);
    key(b, "vocab");
    am_json_put_open(b, '{');
    size_t bytes;
    for (int64_t i = 0; i < am_gguf_array_count(tokens); i++) {
        const char *token = am_gguf_array_string(tokens, i, &bytes);
        am_json_put_key(b, token, bytes);
        am_json_put_int(b, i);
    }
    am_json_put_close(b, '}');
    key(b, "merges");
    am_json_put_open(b, '[');
    for (int64_t i = 0; i < am_gguf_array_count(merges); i++) {
        const char *merge = am_gguf_array_string(merges, i, &bytes);
        am_json_put_string(b, merge, bytes);
    }
    am_json_put_close(b, ']');
    am_json_put_close(b, '}');
}

int am_tokenizer_gguf_json(am_buffer *out, const am_archive *gguf)
{
    const char *name = "";
    size_t n = 0;
    const am_gguf_array *tokens, *merges, *kinds;
    const cut *c = NULL;
    around a = {0};
    AM_TRY(am_gguf_string(&name, &n, gguf, "tokenizer.ggml.model"));
    if (!n)
        return am_fail(AM_EFORMAT, "'tokenizer.ggml.model' is missing");
    if (n != 4 || memcmp(name, "gpt2", 4) != 0)
        return am_fail(AM_EUNSUP, "tokenizer.ggml.model '%.*s' is not supported (supported: gpt2)",
                       (int)(n < 100 ? n : 100), name);
    AM_TRY(find_cut(&c, gguf));
    AM_TRY(string_array(&tokens, gguf, "tokenizer.ggml.tokens"));
    AM_TRY(string_array(&merges, gguf, "tokenizer.ggml.merges"));
    AM_TRY(am_gguf_array_find(&kinds, gguf, "tokenizer.ggml.token_type"));
    if (kinds && (am_gguf_array_type(kinds) != AM_GGUF_I32 ||
                  am_gguf_array_count(kinds) != am_gguf_array_count(tokens)))
        return am_fail(AM_EFORMAT, "'tokenizer.ggml.token_type' is no array of integers as long as "
                                   "'tokenizer.ggml.tokens'");
    AM_TRY(find_around(&a, gguf, tokens));
    am_json_put_open(out, '{');
    text(out, "version", "1.0");
    text(out, "truncation", NULL);
    text(out, "padding", NULL);
    added_tokens(out, tokens, kinds);
    if (c->nfc) {
        open_part(out, "normalizer", "NFC");
        am_json_put_close(out, '}');
    } else {
        text(out, "normalizer", NULL);
    }
    pre_tokenizer(out, c);
    post_processor(out, &a);
    byte_level(out, "decoder", 1, 1);
    model(out, c, tokens, merges);
    am_json_put_close(out, '}');
    return out->rc;
}
