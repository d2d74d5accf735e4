/* tokenizer_sentencepiece.c — SentencePiece's .model files: a protobuf message read by a bounded
 * reader that knows the fields it needs and skips the others. Types BPE and Unigram. */
#include "../core/error.h"
#include "../core/mem.h"
#include "tokenizer_import.h"

#define MARK "\xe2\x96\x81"

/* ---- protobuf --------------------------------------------------------------------------- */

typedef struct reader {
    const uint8_t *at, *end;
} reader;

/* A field: its number, and what is in it. */
typedef struct field {
    uint64_t number;
    int wire;
    uint64_t value; /* wire 0, 1 and 5 */
    reader bytes;   /* wire 2 */
} field;

static int varint(reader *r, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (r->at == r->end)
            return am_fail(AM_EFORMAT, "the protobuf message is cut off");
        uint8_t byte = *r->at++;
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return AM_OK;
    }
    return am_fail(AM_EFORMAT, "the protobuf message has a number of more than ten bytes");
}

static int fixed(reader *r, int bytes, uint64_t *out)
{
    if (r->end - r->at < bytes)
        return am_fail(AM_EFORMAT, "the protobuf message is cut off");
    *out = 0;
    for (int i = 0; i < bytes; i++)
        *out |= (uint64_t)r->at[i] << 8 * i;
    r->at += bytes;
    return AM_OK;
}

static int next_field(reader *r, field *f)
{
    uint64_t tag, length;
    AM_TRY(varint(r, &tag));
    f->number = tag >> 3;
    f->wire = (int)(tag & 7);
    if (f->wire == 0)
        return varint(r, &f->value);
    if (f->wire == 1 || f->wire == 5)
        return fixed(r, f->wire == 1 ? 8 : 4, &f->value);
    if (f->wire != 2)
        return am_fail(AM_EFORMAT, "the protobuf message has a field of the unknown type %d",
                       f->wire);
    AM_TRY(varint(r, &length));
    if (length > (uint64_t)(r->end - r->at))
        return am_fail(AM_EFORMAT, "the protobuf message has a field of %llu bytes where %td are",
                       (unsigned long long)length, r->end - r->at);
    f->bytes = (reader){r->at, r->at + length};
    r->at += length;
    return AM_OK;
}

/* ---- the model -------------------------------------------------------------------------- */

typedef struct source {
    am_import im;
    size_t capacity;
    uint64_t type; /* 1 Unigram, 2 BPE, … */
    int64_t bos, eos;
    uint64_t suffix; /* treat_whitespace_as_suffix */
} source;

static int read_piece(source *s, reader r)
{
    void *p = s->im.tokens;
    if (s->im.count > AM_VOCAB_MAX_ID)
        return am_fail(AM_EFORMAT, "the vocabulary has more than %d pieces", AM_VOCAB_MAX_ID);
    int rc = am_grow(&p, &s->capacity, s->im.count + 1, sizeof *s->im.tokens);
    s->im.tokens = p;
    AM_TRY(rc);
    am_import_token t = {.text = "", .kind = AM_TOKEN_NORMAL};
    while (r.at < r.end) {
        field f;
        AM_TRY(next_field(&r, &f));
        if (f.number == 1 && f.wire == 2) {
            t.text = (const char *)f.bytes.at;
            t.bytes = (size_t)(f.bytes.end - f.bytes.at);
        } else if (f.number == 2 && f.wire == 5) {
            uint32_t bits = (uint32_t)f.value;
            float score;
            memcpy(&score, &bits, sizeof score);
            t.score = (double)score;
        } else if (f.number == 3 && f.wire == 0) {
            t.kind = f.value >= 1 && f.value <= 6 ? (int)f.value : AM_TOKEN_NORMAL;
        }
    }
    if (!(t.score > -1e30 && t.score < 1e30))
        return am_fail(AM_EFORMAT, "piece %zu has a score that is no number", s->im.count);
    s->im.tokens[s->im.count++] = t;
    return AM_OK;
}

static int read_trainer(source *s, reader r)
{
    while (r.at < r.end) {
        field f;
        AM_TRY(next_field(&r, &f));
        if (f.wire != 0)
            continue;
        if (f.number == 3)
            s->type = f.value;
        else if (f.number == 24)
            s->suffix = f.value;
        else if (f.number == 35)
            s->im.byte_fallback = f.value != 0;
        else if (f.number == 41)
            s->bos = (int64_t)f.value;
        else if (f.number == 42)
            s->eos = (int64_t)f.value;
    }
    return AM_OK;
}

static int read_normalizer(source *s, reader r)
{
    while (r.at < r.end) {
        field f;
        AM_TRY(next_field(&r, &f));
        if (f.number == 2 && f.wire == 2) {
            s->im.charsmap = (const char *)f.bytes.at;
            s->im.charsmap_bytes = (size_t)(f.bytes.end - f.bytes.at);
        } else if (f.number == 3 && f.wire == 0) {
            s->im.add_prefix = f.value != 0;
        } else if (f.number == 4 && f.wire == 0) {
            s->im.remove_extra_whitespaces = f.value != 0;
        } else if (f.number == 5 && f.wire == 0 && f.value == 0) {
            return am_fail(AM_EUNSUP, "a model without escape_whitespaces is not supported");
        }
    }
    return AM_OK;
}

static int read_message(source *s, reader r)
{
    while (r.at < r.end) {
        field f;
        AM_TRY(next_field(&r, &f));
        if (f.wire != 2)
            continue;
        if (f.number == 1)
            AM_TRY(read_piece(s, f.bytes));
        else if (f.number == 2)
            AM_TRY(read_trainer(s, f.bytes));
        else if (f.number == 3)
            AM_TRY(read_normalizer(s, f.bytes));
    }
    if (!s->im.count)
        return am_fail(AM_EFORMAT, "there are no pieces: this is no SentencePiece model");
    if (s->type != 1 && s->type != 2)
        return am_fail(AM_EUNSUP,
                       "a model of type %llu is not supported (supported: 1 Unigram, 2 "
                       "BPE)",
                       (unsigned long long)s->type);
    if (s->suffix)
        return am_fail(AM_EUNSUP, "treat_whitespace_as_suffix is not supported");
    return AM_OK;
}

/* Spaces among the user-defined pieces are found like any other token; Unigram scores them so that
 * they are taken wherever they stand. The other user-defined pieces become added tokens. */
static void release_marked(am_import *im)
{
    double highest = 0;
    int any = 0;
    for (size_t i = 0; i < im->count; i++)
        if (im->tokens[i].kind == AM_TOKEN_NORMAL && (!any++ || im->tokens[i].score > highest))
            highest = im->tokens[i].score;
    for (size_t i = 0; i < im->count; i++) {
        am_import_token *t = &im->tokens[i];
        if (t->kind != AM_TOKEN_USER_DEFINED || !memmem(t->text, t->bytes, MARK, 3))
            continue;
        t->kind = AM_TOKEN_NORMAL;
        if (im->model == AM_MODEL_UNIGRAM)
            t->score = (double)t->bytes * highest - 0.1;
    }
}

/* As transformers' LlamaTokenizer: the beginning token goes before a text, that of BPE models. */
static void finish(source *s)
{
    am_import *im = &s->im;
    im->model = s->type == 1 ? AM_MODEL_UNIGRAM : AM_MODEL_BPE;
    for (size_t i = 0; i < im->count; i++)
        if (im->tokens[i].kind == AM_TOKEN_UNKNOWN && im->unk < 0)
            im->unk = (int64_t)i;
    release_marked(im);
    if (s->bos >= 0 && s->bos < (int64_t)im->count && s->type == 2)
        im->before = s->bos;
    if (s->eos >= 0 && s->eos < (int64_t)im->count && s->type == 1)
        im->after = s->eos;
}

int am_tokenizer_from_sentencepiece(am_tokenizer **out, const void *bytes, size_t n)
{
    source s = {.im = {.unk = -1,
                       .before = -1,
                       .after = -1,
                       .add_prefix = 1,
                       .remove_extra_whitespaces = 1},
                .type = 1,
                .bos = 1,
                .eos = 2};
    am_buffer json = {0};
    const uint8_t *begin = bytes;
    int rc = read_message(&s, (reader){begin, begin + n});
    if (!rc) {
        finish(&s);
        rc = am_import_json(&json, &s.im);
    }
    am_free(s.im.tokens);
    if (rc) {
        am_buffer_free(&json);
        return am_fail_context(rc, "SentencePiece model");
    }
    return am_tokenizer_take_json(out, &json, "SentencePiece model");
}
