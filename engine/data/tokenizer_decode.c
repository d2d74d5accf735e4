/* tokenizer_decode.c — ids back to text: the tokens' strings, taken through the decoders in turn. A
 * list of strings is kept as one buffer and the end of each string in it. */
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "tokenizer.h"

typedef struct list {
    am_tokenizer *t;
    int which; /* of t->decoded and t->ends */
    size_t count;
} list;

static void append(list *l, const char *text, size_t n)
{
    am_buffer_put(&l->t->decoded[l->which], text, n);
}

/* End the string that was being appended to. */
static int end_string(list *l)
{
    void *p = l->t->ends[l->which];
    int rc = am_grow(&p, &l->t->ends_capacity[l->which], l->count + 1, sizeof(size_t));
    l->t->ends[l->which] = p;
    AM_TRY(rc);
    l->t->ends[l->which][l->count++] = l->t->decoded[l->which].bytes;
    return AM_OK;
}

static const char *string_at(const list *l, size_t i, size_t *n)
{
    const am_buffer *b = &l->t->decoded[l->which];
    size_t start = i ? l->t->ends[l->which][i - 1] : 0;
    *n = l->t->ends[l->which][i] - start;
    return b->data ? b->data + start : "";
}

/* ---- steps: each appends to `out` what becomes of `in` ---------------------------------- */

/* Bytes of one U+FFFD: the longest beginning of a character, else one byte. As Rust and Python. */
static size_t damaged_length(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    int need = u[0] >= 0xf0 && u[0] <= 0xf4 ? 4 : u[0] >= 0xe0 && u[0] < 0xf0 ? 3 : 1;
    if (need == 1 || n < 2)
        return 1;
    unsigned low = u[0] == 0xe0 ? 0xa0 : u[0] == 0xf0 ? 0x90 : 0x80;
    unsigned high = u[0] == 0xed ? 0x9f : u[0] == 0xf4 ? 0x8f : 0xbf;
    if (u[1] < low || u[1] > high)
        return 1;
    return need == 4 && n > 2 && (u[2] & 0xc0) == 0x80 ? 3 : 2;
}

static void append_valid(list *out, const char *s, size_t n)
{
    size_t start = 0, i = 0;
    while (i < n) {
        int length = am_utf8_length(s + i, n - i);
        if (length) {
            i += (size_t)length;
            continue;
        }
        append(out, s + start, i - start);
        append(out, "\xef\xbf\xbd", 3);
        i += damaged_length(s + i, n - i);
        start = i;
    }
    append(out, s + start, n - start);
}

/* The bytes a token spells, into out when given; 0 when it has other characters too. */
static int spelled_bytes(list *out, const char *s, size_t n)
{
    for (size_t i = 0, length; i < n; i += length) {
        int byte = am_byte_spelled(am_utf8_get(s + i, n - i, &length));
        if (byte < 0)
            return 0;
        if (out)
            append(out, &(char){(char)byte}, 1);
    }
    return 1;
}

static int decode_bytes(list *in, list *out, int keep_raw)
{
    size_t n;
    for (size_t i = 0; i < in->count; i++) {
        const char *s = string_at(in, i, &n);
        if (spelled_bytes(NULL, s, n))
            spelled_bytes(out, s, n);
        else
            append(out, s, n);
    }
    if (keep_raw)
        return end_string(out);
    /* Make it UTF-8 in the buffer that was read, then swap the roles. */
    list back = {in->t, in->which, 0};
    in->t->decoded[in->which].bytes = 0;
    const am_buffer *b = &out->t->decoded[out->which];
    append_valid(&back, b->data ? b->data : "", b->bytes);
    *out = back;
    return end_string(out);
}

static int decode_replace(const am_step *step, list *in, list *out)
{
    for (size_t i = 0; i < in->count; i++) {
        size_t n, previous = 0, start, end;
        const char *s = string_at(in, i, &n);
        am_matcher m = {0, 0, 0};
        for (int found;;) {
            AM_TRY(
                am_pattern_next(&step->pattern, &in->t->scratch, &m, s, n, &start, &end, &found));
            if (!found)
                break;
            append(out, s + previous, start - previous);
            append(out, step->content, step->content_bytes);
            previous = end;
        }
        append(out, s + previous, n - previous);
        AM_TRY(end_string(out));
    }
    return AM_OK;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The byte that a token <0xNN> stands for, or -1. */
static int fallback_byte(const char *s, size_t n)
{
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
        return -1;
    int high = hex_digit(s[3]), low = hex_digit(s[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static int all_valid(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        int length = am_utf8_length(s + i, n - i);
        if (!length)
            return 0;
        i += (size_t)length;
    }
    return 1;
}

/* A run of bytes becomes one string when it is UTF-8, else U+FFFD for each byte. */
static int decode_fallback(list *in, list *out)
{
    size_t n;
    for (size_t i = 0; i < in->count;) {
        const char *s = string_at(in, i, &n);
        if (fallback_byte(s, n) < 0) {
            append(out, s, n);
            AM_TRY(end_string(out));
            i++;
            continue;
        }
        size_t begin = out->t->decoded[out->which].bytes, run = 0;
        for (int byte; i < in->count && (s = string_at(in, i, &n), byte = fallback_byte(s, n)) >= 0;
             i++, run++)
            append(out, &(char){(char)byte}, 1);
        am_buffer *b = &out->t->decoded[out->which];
        AM_TRY(b->rc);
        if (!all_valid(b->data + begin, b->bytes - begin)) {
            b->bytes = begin;
            for (size_t r = 0; r < run; r++)
                append(out, "\xef\xbf\xbd", 3);
        }
        AM_TRY(end_string(out));
    }
    return AM_OK;
}

static int decode_strip(const am_step *step, list *in, list *out)
{
    const size_t width = step->content_bytes;
    for (size_t i = 0; i < in->count; i++) {
        size_t n, start = 0;
        const char *s = string_at(in, i, &n);
        for (int k = 0; k < step->left && n - start >= width; k++, start += width)
            if (memcmp(s + start, step->content, width) != 0)
                break;
        for (int k = 0; k < step->right && n - start >= width; k++, n -= width)
            if (memcmp(s + n - width, step->content, width) != 0)
                break;
        append(out, s + start, n - start);
        AM_TRY(end_string(out));
    }
    return AM_OK;
}

static int decode_metaspace(const am_step *step, list *in, list *out)
{
    for (size_t i = 0; i < in->count; i++) {
        size_t n, width = step->content_bytes;
        const char *s = string_at(in, i, &n), *at;
        while ((at = memmem(s, n, step->content, width))) {
            append(out, s, (size_t)(at - s));
            if (i || !step->first)
                append(out, " ", 1);
            n -= (size_t)(at - s) + width;
            s = at + width;
        }
        append(out, s, n);
        AM_TRY(end_string(out));
    }
    return AM_OK;
}

/* Is there `what` at the beginning of s? */
static int begins(const char *s, size_t n, const char *what)
{
    size_t length = strlen(what);
    return n >= length && memcmp(s, what, length) == 0;
}

/* What WordPiece's cleanup makes of " ." and the like, one replacement after the other as Hugging
 * Face tokenizers does: spaces before marks and contractions go, in this token alone. */
static void append_clean(list *out, const char *s, size_t n)
{
    static const char *const gone[] = {" .",  " ?",  " !",   " ,",  " n't",
                                       " 'm", " 's", " 've", " 're"};
    for (size_t i = 0; i < n; i++) {
        if (begins(s + i, n - i, " ' ")) {
            append(out, "'", 1);
            i += 2;
            continue;
        }
        if (begins(s + i, n - i, " do not")) {
            append(out, " don't", 6);
            i += 6;
            continue;
        }
        int drop = 0;
        for (size_t k = 0; k < sizeof gone / sizeof *gone; k++)
            drop |= begins(s + i, n - i, gone[k]);
        if (!drop)
            append(out, s + i, 1);
    }
}

static int decode_wordpiece(const am_step *step, list *in, list *out)
{
    const size_t width = step->content_bytes;
    for (size_t i = 0; i < in->count; i++) {
        am_buffer token = {0};
        size_t n;
        const char *s = string_at(in, i, &n);
        int inside = n >= width && memcmp(s, step->content, width) == 0;
        if (i && !inside)
            am_buffer_put(&token, " ", 1);
        if (i && inside) {
            s += width;
            n -= width;
        }
        am_buffer_put(&token, s, n);
        int rc = token.rc;
        if (step->left && !rc)
            append_clean(out, token.data, token.bytes);
        else if (!rc)
            append(out, token.data, token.bytes);
        am_buffer_free(&token);
        AM_TRY(rc);
        AM_TRY(end_string(out));
    }
    return AM_OK;
}

static int decode_step(const am_step *step, list *in, list *out, int keep_raw)
{
    switch (step->kind) {
    case AM_DECODER_BYTES:
        return decode_bytes(in, out, keep_raw);
    case AM_DECODER_REPLACE:
        return decode_replace(step, in, out);
    case AM_DECODER_BYTE_FALLBACK:
        return decode_fallback(in, out);
    case AM_DECODER_STRIP:
        return decode_strip(step, in, out);
    case AM_DECODER_WORDPIECE:
        return decode_wordpiece(step, in, out);
    case AM_DECODER_METASPACE:
        return decode_metaspace(step, in, out);
    default: /* AM_DECODER_FUSE */
        append(out, in->t->decoded[in->which].data, in->t->decoded[in->which].bytes);
        return end_string(out);
    }
}

/* ---- the whole -------------------------------------------------------------------------- */

int am_tokenizer_decode(am_tokenizer *t, const int32_t *ids, int64_t n, int flags,
                        const char **text, size_t *bytes)
{
    list now = {t, 0, 0};
    for (int i = 0; i < 2; i++) {
        t->decoded[i].bytes = 0;
        t->decoded[i].rc = AM_OK;
    }
    for (int64_t i = 0; i < n; i++) {
        size_t length;
        const char *token = am_tokenizer_token_text(t, ids[i], &length);
        if (!token)
            return am_fail(AM_EINVAL, "decode: the id %d (number %lld of the list) is no token's",
                           (int)ids[i], (long long)i + 1);
        if ((flags & AM_DECODE_SKIP_SPECIAL) && am_tokenizer_is_special(t, ids[i]))
            continue;
        if (!t->has_decoder && now.count)
            append(&now, " ", 1);
        append(&now, token, length);
        AM_TRY(end_string(&now));
    }
    for (size_t i = 0; i < t->decoder_count; i++) {
        list out = {t, !now.which, 0};
        t->decoded[out.which].bytes = 0;
        int last = i + 1 == t->decoder_count;
        AM_TRY(decode_step(&t->decoders[i], &now, &out, last && (flags & AM_DECODE_RAW)));
        now = out;
    }
    am_buffer *b = &t->decoded[now.which];
    am_buffer_put(b, "", 0); /* so that data is never NULL */
    AM_TRY(t->decoded[0].rc);
    AM_TRY(t->decoded[1].rc);
    *text = b->data ? b->data : "";
    *bytes = b->bytes;
    return AM_OK;
}
