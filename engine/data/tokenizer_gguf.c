/* tokenizer_gguf.c — the tokenizer in a GGUF file's metadata. Of a way to cut the text GGUF keeps a
 * name only (`tokenizer.ggml.pre`, see tokenizer_cuts.c); models: gpt2 (byte-level BPE), llama
 * (SentencePiece's BPE by scores), gemma4 (the same with merges), t5 (Unigram) and bert
 * (WordPiece). */
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../io/gguf.h"
#include "tokenizer_import.h"

#define MARK      "\xe2\x96\x81"
#define KEY(name) "tokenizer.ggml." name

typedef struct source {
    const am_archive *gguf;
    const am_gguf_array *tokens;
    am_import im;
    am_buffer texts; /* of bert's tokens, which are spelled anew; or the charsmap's bytes */
} source;

static int string_array(const am_gguf_array **out, const am_archive *gguf, const char *key)
{
    AM_TRY(am_gguf_array_find(out, gguf, key));
    if (!*out)
        return am_fail(AM_EFORMAT, "'%s' is missing", key);
    if (am_gguf_array_type(*out) != AM_GGUF_STRING)
        return am_fail(AM_EFORMAT, "'%s' is no array of strings", key);
    return AM_OK;
}

/* An array beside the tokens, of as many items of this type; NULL when absent. */
static int token_array(const am_gguf_array **out, const source *s, const char *key, int type,
                       const char *what)
{
    AM_TRY(am_gguf_array_find(out, s->gguf, key));
    if (*out && (am_gguf_array_type(*out) != type ||
                 am_gguf_array_count(*out) != am_gguf_array_count(s->tokens)))
        return am_fail(AM_EFORMAT, "'%s' is no array of %s as long as '" KEY("tokens") "'", key,
                       what);
    return AM_OK;
}

static int read_tokens(source *s)
{
    const am_gguf_array *kinds, *scores;
    void *p;
    AM_TRY(string_array(&s->tokens, s->gguf, KEY("tokens")));
    AM_TRY(token_array(&kinds, s, KEY("token_type"), AM_GGUF_I32, "integers"));
    AM_TRY(token_array(&scores, s, KEY("scores"), AM_GGUF_F32, "numbers"));
    int64_t count = am_gguf_array_count(s->tokens);
    if (count > AM_VOCAB_MAX_ID)
        return am_fail(AM_EFORMAT, "'" KEY("tokens") "' has %lld tokens, more than %d",
                       (long long)count, AM_VOCAB_MAX_ID);
    AM_TRY(am_alloc(&p, (size_t)count * sizeof *s->im.tokens));
    s->im.tokens = p;
    s->im.count = (size_t)count;
    for (int64_t i = 0; i < count; i++) {
        am_import_token *t = &s->im.tokens[i];
        t->text = am_gguf_array_string(s->tokens, i, &t->bytes);
        t->kind = kinds ? (int)am_gguf_array_int(kinds, i) : AM_TOKEN_NORMAL;
        t->score = scores ? am_gguf_array_double(scores, i) : 0;
    }
    return AM_OK;
}

/* The id under a key, -1 when the key is absent. */
static int token_id(int64_t *out, const source *s, const char *key)
{
    *out = -1;
    AM_TRY(am_gguf_int(out, s->gguf, key));
    if (*out < -1 || *out >= (int64_t)s->im.count)
        return am_fail(AM_EFORMAT, "'%s' names no token", key);
    return AM_OK;
}

/* The token around a text that a flag asks for; `wanted` is the flag's value when it is absent. */
static int around(int64_t *out, const source *s, const char *flag, const char *id, int wanted)
{
    int absent = !am_gguf_has(s->gguf, flag);
    *out = -1;
    AM_TRY(am_gguf_bool(&wanted, s->gguf, flag));
    if (!wanted)
        return AM_OK;
    AM_TRY(token_id(out, s, id));
    if (*out < 0 && !absent)
        return am_fail(AM_EFORMAT, "'%s' is set, but '%s' names no token", flag, id);
    return AM_OK;
}

static int bos_and_eos(source *s, int bos, int eos)
{
    AM_TRY(around(&s->im.before, s, KEY("add_bos_token"), KEY("bos_token_id"), bos));
    return around(&s->im.after, s, KEY("add_eos_token"), KEY("eos_token_id"), eos);
}

static const char *merge_at(const void *list, int64_t i, size_t *bytes)
{
    return am_gguf_array_string(list, i, bytes);
}

static int read_merges(source *s)
{
    const am_gguf_array *merges;
    AM_TRY(string_array(&merges, s->gguf, KEY("merges")));
    s->im.merge = merge_at;
    s->im.merge_list = merges;
    s->im.merge_count = am_gguf_array_count(merges);
    return AM_OK;
}

/* ---- models ----------------------------------------------------------------------------- */

static int read_gpt2(source *s)
{
    const char *name = "default";
    size_t n = strlen(name);
    AM_TRY(am_gguf_string(&name, &n, s->gguf, KEY("pre")));
    s->im.cut = am_cut_find(name, n);
    if (!s->im.cut)
        return am_fail(AM_EUNSUP,
                       "tokenizer.ggml.pre '%.*s' is not supported (supported: %s); use the "
                       "model's own tokenizer.json",
                       (int)(n < 100 ? n : 100), name, am_cut_names());
    s->im.ignore_merges = s->im.cut->ignore_merges;
    AM_TRY(read_merges(s));
    return bos_and_eos(s, s->im.cut->bos, 0);
}

/* Spaces that a vocabulary has as user-defined tokens are found like any other. */
static void release_marked(am_import *im)
{
    for (size_t i = 0; i < im->count; i++)
        if (im->tokens[i].kind == AM_TOKEN_USER_DEFINED &&
            memmem(im->tokens[i].text, im->tokens[i].bytes, MARK, 3))
            im->tokens[i].kind = AM_TOKEN_NORMAL;
}

static int read_marked(source *s, int with_merges)
{
    am_import *im = &s->im;
    im->byte_fallback = 1;
    im->add_prefix = !with_merges;
    AM_TRY(am_gguf_bool(&im->add_prefix, s->gguf, KEY("add_space_prefix")));
    AM_TRY(am_gguf_bool(&im->remove_extra_whitespaces, s->gguf, KEY("remove_extra_whitespaces")));
    AM_TRY(token_id(&im->unk, s, KEY("unknown_token_id")));
    release_marked(im);
    if (with_merges)
        AM_TRY(read_merges(s));
    return bos_and_eos(s, 1, 0);
}

static int read_t5(source *s)
{
    const am_gguf_array *map;
    am_import *im = &s->im;
    im->model = AM_MODEL_UNIGRAM;
    im->add_prefix = 1;
    AM_TRY(am_gguf_bool(&im->add_prefix, s->gguf, KEY("add_space_prefix")));
    AM_TRY(am_gguf_bool(&im->remove_extra_whitespaces, s->gguf, KEY("remove_extra_whitespaces")));
    AM_TRY(token_id(&im->unk, s, KEY("unknown_token_id")));
    AM_TRY(am_gguf_array_find(&map, s->gguf, KEY("precompiled_charsmap")));
    if (map && am_gguf_array_type(map) != AM_GGUF_U8 && am_gguf_array_type(map) != AM_GGUF_I8)
        return am_fail(AM_EFORMAT, "'" KEY("precompiled_charsmap") "' is no array of bytes");
    for (int64_t i = 0; map && i < am_gguf_array_count(map); i++)
        am_buffer_put(&s->texts, &(char){(char)am_gguf_array_int(map, i)}, 1);
    AM_TRY(s->texts.rc);
    im->charsmap = s->texts.data;
    im->charsmap_bytes = s->texts.bytes;
    return bos_and_eos(s, 0, 1);
}

/* GGUF writes a word's beginning with U+2581 and its continuation bare; BERT has them bare and with
 * ## before. Tokens in brackets are as they are. */
static int read_bert(source *s)
{
    am_import *im = &s->im;
    im->model = AM_MODEL_WORDPIECE;
    im->lowercase = 1;
    for (int pass = 0; pass < 2; pass++) {
        size_t at = 0;
        for (size_t i = 0; i < im->count; i++) {
            am_import_token *t = &im->tokens[i];
            const char *text = t->text;
            size_t n = t->bytes;
            int begins = n >= 3 && memcmp(text, MARK, 3) == 0;
            int bracket = n >= 2 && text[0] == '[' && text[n - 1] == ']';
            if (begins || bracket) {
                t->text += begins && pass ? 3 : 0;
                t->bytes -= begins && pass ? 3 : 0;
                continue;
            }
            if (pass) { /* the buffer does not move any more */
                t->text = s->texts.data + at;
                t->bytes = n + 2;
            } else {
                am_buffer_put(&s->texts, "##", 2);
                am_buffer_put(&s->texts, text, n);
            }
            at += n + 2;
        }
        AM_TRY(s->texts.rc);
    }
    AM_TRY(token_id(&im->unk, s, KEY("unknown_token_id")));
    if (im->unk < 0)
        return am_fail(AM_EFORMAT, "'" KEY("unknown_token_id") "' is missing");
    AM_TRY(around(
        &im->before, s, KEY("add_bos_token"),
        am_gguf_has(s->gguf, KEY("cls_token_id")) ? KEY("cls_token_id") : KEY("bos_token_id"), 1));
    return around(&im->after, s, KEY("add_sep_token"), KEY("seperator_token_id"), 1);
}

/* ---- the whole -------------------------------------------------------------------------- */

static int is(const char *name, size_t n, const char *wanted)
{
    return n == strlen(wanted) && memcmp(name, wanted, n) == 0;
}

static int read_source(source *s, am_buffer *out)
{
    const char *name = "";
    size_t n = 0;
    AM_TRY(am_gguf_string(&name, &n, s->gguf, KEY("model")));
    if (!n)
        return am_fail(AM_EFORMAT, "'" KEY("model") "' is missing");
    AM_TRY(read_tokens(s));
    if (is(name, n, "gpt2"))
        AM_TRY(read_gpt2(s));
    else if (is(name, n, "llama") || is(name, n, "gemma4"))
        AM_TRY(read_marked(s, is(name, n, "gemma4")));
    else if (is(name, n, "t5"))
        AM_TRY(read_t5(s));
    else if (is(name, n, "bert"))
        AM_TRY(read_bert(s));
    else
        return am_fail(AM_EUNSUP,
                       "tokenizer.ggml.model '%.*s' is not supported (supported: gpt2, llama, "
                       "gemma4, t5, bert)",
                       (int)(n < 100 ? n : 100), name);
    return am_import_json(out, &s->im);
}

int am_tokenizer_from_gguf(am_tokenizer **out, am_archive *gguf)
{
    source s = {.gguf = gguf, .im = {.unk = -1, .before = -1, .after = -1}};
    am_buffer json = {0};
    int rc = read_source(&s, &json);
    am_free(s.im.tokens);
    am_buffer_free(&s.texts);
    if (rc) {
        am_buffer_free(&json);
        return am_fail_context(rc, "tokenizer of the GGUF file");
    }
    return am_tokenizer_take_json(out, &json, "tokenizer of the GGUF file");
}
