/* tokenizer_import.c — an am_import written as tokenizer.json. Pipelines are those that the models'
 * own files have: byte-level BPE behind a cut, SentencePiece's BPE and Unigram over U+2581, BERT's
 * WordPiece. */
#include "tokenizer_import.h"

#include "../core/error.h"
#include "../core/mem.h"

#define MARK "\xe2\x96\x81" /* U+2581 */

/* ---- JSON ------------------------------------------------------------------------------- */

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

static void number(am_buffer *b, const char *name, int64_t value)
{
    key(b, name);
    am_json_put_int(b, value);
}

/* {"type": type, … left open. */
static void open_part(am_buffer *b, const char *name, const char *type)
{
    if (name)
        key(b, name);
    am_json_put_open(b, '{');
    text(b, "type", type);
}

static void plain_part(am_buffer *b, const char *name, const char *type)
{
    open_part(b, name, type);
    am_json_put_close(b, '}');
}

static void open_sequence(am_buffer *b, const char *name, const char *items)
{
    open_part(b, name, "Sequence");
    key(b, items);
    am_json_put_open(b, '[');
}

static void close_sequence(am_buffer *b)
{
    am_json_put_close(b, ']');
    am_json_put_close(b, '}');
}

static void byte_level(am_buffer *b, const char *name, int add_prefix_space, int use_regex)
{
    open_part(b, name, "ByteLevel");
    flag(b, "add_prefix_space", add_prefix_space);
    flag(b, "trim_offsets", 1);
    flag(b, "use_regex", use_regex);
    am_json_put_close(b, '}');
}

static void pattern(am_buffer *b, const char *kind, const char *value)
{
    key(b, "pattern");
    am_json_put_open(b, '{');
    text(b, kind, value);
    am_json_put_close(b, '}');
}

static void split(am_buffer *b, const char *regex)
{
    open_part(b, NULL, "Split");
    pattern(b, "Regex", regex);
    text(b, "behavior", "Isolated");
    flag(b, "invert", 0);
    am_json_put_close(b, '}');
}

static void digits(am_buffer *b, int individual)
{
    open_part(b, NULL, "Digits");
    flag(b, "individual_digits", individual);
    am_json_put_close(b, '}');
}

static void replace(am_buffer *b, const char *kind, const char *from, const char *to)
{
    open_part(b, NULL, "Replace");
    pattern(b, kind, from);
    text(b, "content", to);
    am_json_put_close(b, '}');
}

/* ---- pipelines -------------------------------------------------------------------------- */

static void cut_pre_tokenizer(am_buffer *b, const am_cut *c)
{
    if (!c->patterns[0] && !c->digits && !c->falcon) {
        byte_level(b, "pre_tokenizer", 0, 1);
        return;
    }
    open_sequence(b, "pre_tokenizer", "pretokenizers");
    if (c->falcon) {
        open_part(b, NULL, "Punctuation");
        text(b, "behavior", "Contiguous");
        am_json_put_close(b, '}');
        byte_level(b, NULL, 0, 1);
        digits(b, 0);
        split(b, "[0-9][0-9][0-9]");
    } else {
        if (c->digits == 1)
            digits(b, 1);
        for (int i = 0; i < 5 && c->patterns[i]; i++)
            split(b, c->patterns[i]);
        if (c->digits == 2)
            digits(b, 1);
        byte_level(b, NULL, 0, !c->patterns[0]);
    }
    close_sequence(b);
}

static const char BASE64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void precompiled(am_buffer *b, const char *bytes, size_t n)
{
    am_buffer out = {0};
    for (size_t i = 0; i < n; i += 3) {
        uint32_t bits = 0;
        for (size_t k = 0; k < 3; k++)
            bits = bits << 8 | (i + k < n ? (unsigned char)bytes[i + k] : 0);
        char digit[4];
        for (int k = 0; k < 4; k++)
            digit[k] = i + (size_t)k > n ? '=' : BASE64[bits >> (18 - 6 * k) & 63];
        am_buffer_put(&out, digit, 4);
    }
    open_part(b, NULL, "Precompiled");
    key(b, "precompiled_charsmap");
    am_json_put_string(b, out.data ? out.data : "", out.bytes);
    am_json_put_close(b, '}');
    if (out.rc && !b->rc)
        b->rc = out.rc;
    am_buffer_free(&out);
}

static void mark_normalizer(am_buffer *b, const am_import *im)
{
    open_sequence(b, "normalizer", "normalizers");
    if (im->charsmap_bytes)
        precompiled(b, im->charsmap, im->charsmap_bytes);
    if (im->remove_extra_whitespaces) {
        replace(b, "Regex", "\\A +| +\\z", "");
        replace(b, "Regex", " {2,}", " ");
    }
    if (im->add_prefix) {
        open_part(b, NULL, "Prepend");
        text(b, "prepend", MARK);
        am_json_put_close(b, '}');
    }
    replace(b, "String", " ", MARK);
    close_sequence(b);
}

static void mark_decoder(am_buffer *b, const am_import *im)
{
    open_sequence(b, "decoder", "decoders");
    replace(b, "String", MARK, " ");
    plain_part(b, NULL, "ByteFallback");
    plain_part(b, NULL, "Fuse");
    if (im->add_prefix) {
        open_part(b, NULL, "Strip");
        text(b, "content", " ");
        number(b, "start", 1);
        number(b, "stop", 0);
        am_json_put_close(b, '}');
    }
    close_sequence(b);
}

static void bert_pipeline(am_buffer *b, const am_import *im)
{
    open_part(b, "normalizer", "BertNormalizer");
    flag(b, "clean_text", 1);
    flag(b, "handle_chinese_chars", 1);
    key(b, "strip_accents");
    am_json_put_null(b);
    flag(b, "lowercase", im->lowercase);
    am_json_put_close(b, '}');
    plain_part(b, "pre_tokenizer", "BertPreTokenizer");
    open_part(b, "decoder", "WordPiece");
    text(b, "prefix", "##");
    flag(b, "cleanup", 1);
    am_json_put_close(b, '}');
}

static void pipeline(am_buffer *b, const am_import *im)
{
    if (im->model == AM_MODEL_WORDPIECE) {
        bert_pipeline(b, im);
    } else if (!im->cut) {
        mark_normalizer(b, im);
        text(b, "pre_tokenizer", NULL);
        mark_decoder(b, im);
    } else {
        if (im->cut->nfc)
            plain_part(b, "normalizer", "NFC");
        else
            text(b, "normalizer", NULL);
        cut_pre_tokenizer(b, im->cut);
        byte_level(b, "decoder", 1, 1);
    }
}

/* ---- what goes around ------------------------------------------------------------------- */

static void template_part(am_buffer *b, const char *kind, const char *id, size_t bytes, int type)
{
    am_json_put_open(b, '{');
    key(b, kind);
    am_json_put_open(b, '{');
    key(b, "id");
    am_json_put_string(b, id, bytes);
    number(b, "type_id", type);
    am_json_put_close(b, '}');
    am_json_put_close(b, '}');
}

static void template_sequence(am_buffer *b, const am_import *im, const char *name, int type)
{
    const am_import_token *t = im->tokens;
    if (im->before >= 0)
        template_part(b, "SpecialToken", t[im->before].text, t[im->before].bytes, type);
    template_part(b, "Sequence", name, 1, type);
    if (im->after >= 0)
        template_part(b, "SpecialToken", t[im->after].text, t[im->after].bytes, type);
}

static void template_token(am_buffer *b, const am_import *im, int64_t id)
{
    const am_import_token *t = &im->tokens[id];
    am_json_put_key(b, t->text, t->bytes);
    am_json_put_open(b, '{');
    key(b, "id");
    am_json_put_string(b, t->text, t->bytes);
    key(b, "ids");
    am_json_put_open(b, '[');
    am_json_put_int(b, id);
    am_json_put_close(b, ']');
    key(b, "tokens");
    am_json_put_open(b, '[');
    am_json_put_string(b, t->text, t->bytes);
    am_json_put_close(b, ']');
    am_json_put_close(b, '}');
}

static void post_processor(am_buffer *b, const am_import *im)
{
    if (im->before < 0 && im->after < 0) {
        text(b, "post_processor", NULL);
        return;
    }
    open_part(b, "post_processor", "TemplateProcessing");
    key(b, "single");
    am_json_put_open(b, '[');
    template_sequence(b, im, "A", 0);
    am_json_put_close(b, ']');
    key(b, "pair");
    am_json_put_open(b, '[');
    template_sequence(b, im, "A", 0);
    template_sequence(b, im, "B", 1);
    am_json_put_close(b, ']');
    key(b, "special_tokens");
    am_json_put_open(b, '{');
    if (im->before >= 0)
        template_token(b, im, im->before);
    if (im->after >= 0 && im->after != im->before)
        template_token(b, im, im->after);
    am_json_put_close(b, '}');
    am_json_put_close(b, '}');
}

static void added_tokens(am_buffer *b, const am_import *im)
{
    key(b, "added_tokens");
    am_json_put_open(b, '[');
    for (size_t i = 0; i < im->count; i++) {
        const am_import_token *t = &im->tokens[i];
        int special = t->kind == AM_TOKEN_CONTROL || (t->kind == AM_TOKEN_UNKNOWN && !im->cut);
        if (!special && t->kind != AM_TOKEN_USER_DEFINED)
            continue;
        am_json_put_open(b, '{');
        number(b, "id", (int64_t)i);
        key(b, "content");
        am_json_put_string(b, t->text, t->bytes);
        flag(b, "single_word", 0);
        flag(b, "lstrip", 0);
        flag(b, "rstrip", 0);
        flag(b, "normalized", 0);
        flag(b, "special", special);
        am_json_put_close(b, '}');
    }
    am_json_put_close(b, ']');
}

/* ---- the model -------------------------------------------------------------------------- */

/* The string of bytes of a token: as it is, or in the byte alphabet's spelling. */
static void spell(am_buffer *out, const am_import *im, const am_import_token *t, size_t start,
                  size_t end)
{
    out->bytes = 0;
    if (!im->raw_bytes || t->kind != AM_TOKEN_NORMAL) {
        am_buffer_put(out, t->text + start, end - start);
        return;
    }
    for (size_t i = start; i < end; i++) {
        char utf8[4];
        int n = am_utf8_put(utf8, am_byte_spelling((uint8_t)t->text[i]));
        am_buffer_put(out, utf8, (size_t)n);
    }
}

static void vocabulary(am_buffer *b, const am_import *im, am_buffer *scratch)
{
    int unigram = im->model == AM_MODEL_UNIGRAM;
    key(b, "vocab");
    am_json_put_open(b, unigram ? '[' : '{');
    for (size_t i = 0; i < im->count; i++) {
        spell(scratch, im, &im->tokens[i], 0, im->tokens[i].bytes);
        const char *token = scratch->data ? scratch->data : "";
        if (unigram) {
            am_json_put_open(b, '[');
            am_json_put_string(b, token, scratch->bytes);
            am_json_put_double(b, im->tokens[i].score);
            am_json_put_close(b, ']');
        } else {
            am_json_put_key(b, token, scratch->bytes);
            am_json_put_int(b, (int64_t)i);
        }
    }
    am_json_put_close(b, unigram ? ']' : '}');
}

static int found_merges(am_buffer *b, const am_import *im, am_buffer *scratch)
{
    am_found_merge *list = NULL;
    size_t count;
    AM_TRY(am_find_merges(&list, &count, im, !im->raw_bytes));
    for (size_t i = 0; i < count; i++) {
        const am_import_token *t = &im->tokens[list[i].token];
        am_json_put_open(b, '[');
        spell(scratch, im, t, 0, list[i].left_bytes);
        am_json_put_string(b, scratch->data, scratch->bytes);
        spell(scratch, im, t, list[i].left_bytes, t->bytes);
        am_json_put_string(b, scratch->data, scratch->bytes);
        am_json_put_close(b, ']');
    }
    am_free(list);
    return AM_OK;
}

static int merges(am_buffer *b, const am_import *im, am_buffer *scratch)
{
    key(b, "merges");
    am_json_put_open(b, '[');
    if (im->merge) {
        for (int64_t i = 0; i < im->merge_count; i++) {
            size_t bytes;
            const char *merge = im->merge(im->merge_list, i, &bytes);
            am_json_put_string(b, merge, bytes);
        }
    } else {
        AM_TRY(found_merges(b, im, scratch));
    }
    am_json_put_close(b, ']');
    return AM_OK;
}

static void unk_token(am_buffer *b, const am_import *im)
{
    key(b, "unk_token");
    if (im->unk >= 0)
        am_json_put_string(b, im->tokens[im->unk].text, im->tokens[im->unk].bytes);
    else
        am_json_put_null(b);
}

static int model(am_buffer *b, const am_import *im, am_buffer *scratch)
{
    static const char *const names[] = {"BPE", "Unigram", "WordPiece"};
    open_part(b, "model", names[im->model]);
    if (im->model == AM_MODEL_UNIGRAM) {
        key(b, "unk_id");
        if (im->unk >= 0)
            am_json_put_int(b, im->unk);
        else
            am_json_put_null(b);
        flag(b, "byte_fallback", im->byte_fallback);
        vocabulary(b, im, scratch);
    } else if (im->model == AM_MODEL_WORDPIECE) {
        unk_token(b, im);
        text(b, "continuing_subword_prefix", "##");
        number(b, "max_input_chars_per_word", 100);
        vocabulary(b, im, scratch);
    } else {
        text(b, "dropout", NULL);
        unk_token(b, im);
        text(b, "continuing_subword_prefix", NULL);
        text(b, "end_of_word_suffix", NULL);
        flag(b, "fuse_unk", im->unk >= 0);
        flag(b, "byte_fallback", im->byte_fallback);
        flag(b, "ignore_merges", im->ignore_merges);
        vocabulary(b, im, scratch);
        AM_TRY(merges(b, im, scratch));
    }
    am_json_put_close(b, '}');
    return scratch->rc;
}

int am_import_json(am_buffer *out, const am_import *im)
{
    am_buffer scratch = {0};
    am_json_put_open(out, '{');
    text(out, "version", "1.0");
    text(out, "truncation", NULL);
    text(out, "padding", NULL);
    added_tokens(out, im);
    pipeline(out, im);
    post_processor(out, im);
    int rc = model(out, im, &scratch);
    am_buffer_free(&scratch);
    AM_TRY(rc);
    am_json_put_close(out, '}');
    return out->rc;
}
