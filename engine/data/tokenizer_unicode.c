/* tokenizer_unicode.c — rewriting by the tables of Unicode: normal forms, and the steps that look
 * at one character or grapheme at a time (lower case, accents, BERT's and SentencePiece's
 * cleaning). */
#include <string.h>
#include <utf8proc.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../io/json.h"
#include "tokenizer_normalize.h"
#include "tokenizer_tables.h"

/* ---- Unicode normal forms --------------------------------------------------------------- */

/* One sequence that normalizes on its own. */
typedef am_code_points sequence;

static int form_options(int kind)
{
    return UTF8PROC_STABLE |
           (kind == AM_STEP_NFC || kind == AM_STEP_NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
           (kind == AM_STEP_NFKC || kind == AM_STEP_NFKD ? UTF8PROC_COMPAT : 0);
}

/* The tables of Hugging Face tokenizers are those of Unicode 9: these characters, assigned later,
 * are neither decomposed, reordered nor composed there. (All that utf8proc 2.8, Unicode 15, would.)
 */
static const struct {
    uint32_t first, last;
} INERT[] = {
    {0x07fd, 0x07fd},   {0x0898, 0x089f},   {0x08ca, 0x08d3},   {0x09fe, 0x09fe},
    {0x0c3c, 0x0c3c},   {0x0d3b, 0x0d3c},   {0x0eba, 0x0eba},   {0x1715, 0x1715},
    {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},   {0x32ff, 0x32ff},   {0xa7f2, 0xa7f4},
    {0xa82c, 0xa82c},   {0xab69, 0xab69},   {0x10781, 0x10785}, {0x10787, 0x107b0},
    {0x107b2, 0x107ba}, {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff},
    {0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b},
    {0x1145e, 0x1145e}, {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x11938, 0x11938},
    {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34},
    {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45},
    {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e030, 0x1e06d},
    {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef},
    {0x1e4ec, 0x1e4ef}, {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9},
};

static int is_inert(uint32_t c)
{
    size_t low = 0, high = sizeof INERT / sizeof *INERT;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (INERT[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < sizeof INERT / sizeof *INERT && INERT[low].first <= c;
}

enum { MOST_DECOMPOSED = 18 }; /* U+FDFA's compatibility decomposition is the longest */

static int decompose(uint32_t c, int options, int32_t *out)
{
    int boundary;
    out[0] = (int32_t)c;
    if (is_inert(c))
        return 1;
    utf8proc_ssize_t n = utf8proc_decompose_char(
        (utf8proc_int32_t)c, out, MOST_DECOMPOSED,
        (utf8proc_option_t)((options & ~UTF8PROC_COMPOSE) | UTF8PROC_DECOMPOSE), &boundary);
    if (n < 1 || n > MOST_DECOMPOSED) {
        out[0] = (int32_t)c;
        return 1;
    }
    return (int)n;
}

static int is_mark(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_ME;
}

/* Can what begins with this (decomposed) character neither be reordered with nor joined to what
 * stands before? Marks and the medial and final letters of Hangul can; no other can. */
static int begins_sequence(int32_t c)
{
    if (c < 0x300 || is_inert((uint32_t)c))
        return 1;
    if (c >= 0x1160 && c <= 0x11ff)
        return 0;
    return !is_mark((uint32_t)c);
}

static int combining_class(int32_t c)
{
    return is_inert((uint32_t)c) ? 0 : utf8proc_get_property(c)->combining_class;
}

/* Canonical order: runs of marks by combining class, stable. By counting, since a hostile text can
 * hold a run of any length. */
static int reorder(sequence *s, sequence *scratch)
{
    void *p = scratch->c;
    int rc = am_grow(&p, &scratch->capacity, s->n, sizeof *s->c);
    scratch->c = p;
    AM_TRY(rc);
    for (size_t i = 0; i < s->n;) {
        size_t run = i;
        while (run < s->n && combining_class(s->c[run]))
            run++;
        if (run - i > 1) {
            size_t at[257] = {0};
            for (size_t k = i; k < run; k++)
                at[combining_class(s->c[k]) + 1]++;
            for (int k = 1; k < 257; k++)
                at[k] += at[k - 1];
            for (size_t k = i; k < run; k++)
                scratch->c[at[combining_class(s->c[k])]++] = s->c[k];
            memcpy(s->c + i, scratch->c, (run - i) * sizeof *s->c);
        }
        i = run > i ? run : i + 1;
    }
    return AM_OK;
}

/* Find the end of the sequence that begins at `at`, and its decomposition. */
static int next_sequence(am_normalizer *z, int options, const char *text, size_t n, size_t at,
                         size_t *end)
{
    z->now.n = 0;
    for (*end = at; *end < n;) {
        int32_t parts[MOST_DECOMPOSED];
        size_t length;
        uint32_t c = am_utf8_get(text + *end, n - *end, &length);
        int count = 1;
        if (c < 0x80)
            parts[0] = (int32_t)c;
        else
            count = decompose(c, options, parts);
        if (*end > at && begins_sequence(parts[0]))
            break;
        void *p = z->now.c;
        int rc = am_grow(&p, &z->now.capacity, z->now.n + (size_t)count, sizeof *z->now.c);
        z->now.c = p;
        AM_TRY(rc);
        memcpy(z->now.c + z->now.n, parts, (size_t)count * sizeof *parts);
        z->now.n += (size_t)count;
        *end += length;
    }
    if (z->now.n > 1) {
        AM_TRY(reorder(&z->now, &z->scratch));
        if (options & UTF8PROC_COMPOSE)
            z->now.n = (size_t)utf8proc_normalize_utf32(z->now.c, (utf8proc_ssize_t)z->now.n,
                                                        (utf8proc_option_t)options);
    }
    return AM_OK;
}

static int same_sequence(const sequence *s, const char *text, size_t n)
{
    size_t i = 0, length;
    for (size_t k = 0; k < s->n; k++, i += length) {
        if (i >= n || am_utf8_get(text + i, n - i, &length) != (uint32_t)s->c[k])
            return 0;
    }
    return i == n;
}

int am_normal_form(const am_step *step, am_normalizer *z, const am_text *t, const am_piece *piece,
                   am_store *out, int *changed)
{
    const int options = form_options(step->kind);
    const char *text = t->bytes + piece->start;
    size_t n = piece->end - piece->start;
    const uint32_t plain =
        options & UTF8PROC_COMPAT || !(options & UTF8PROC_COMPOSE) ? 0x80 : 0x300;
    for (size_t i = 0, end; i < n; i = end) {
        /* Below `plain` nothing changes, but marks may join the last such character. */
        size_t length, next, start = i;
        end = i;
        while (end < n && am_utf8_get(text + end, n - end, &length) < plain) {
            start = end;
            end += length;
        }
        if (end == n)
            start = n;
        if (out && start > i)
            AM_TRY(am_store_copy(out, t, piece->start + i, piece->start + start));
        if (start == n)
            break;
        AM_TRY(next_sequence(z, options, text, n, start, &next));
        end = next;
        if (same_sequence(&z->now, text + start, end - start)) {
            if (out)
                AM_TRY(am_store_copy(out, t, piece->start + start, piece->start + end));
            continue;
        }
        *changed = 1;
        if (!out)
            return AM_OK;
        am_span from = am_text_origin(t, piece->start + start, piece->start + end);
        for (size_t k = 0; k < z->now.n; k++)
            AM_TRY(am_store_char(out, t, (uint32_t)z->now.c[k], from));
    }
    return AM_OK;
}

/* ---- characters alone ------------------------------------------------------------------- */

static int is_ideograph(uint32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
           (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
           (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

/* 0: stays; 1: goes; 2: becomes a space. */
static int clean(uint32_t c)
{
    if (AM_CHAR_CLASS(AM_BERT_CONTROL, c))
        return 1;
    return am_is_space(c) ? 2 : 0;
}

static int clean_nmt(uint32_t c)
{
    if ((c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f ||
        c == 0x9f)
        return 1;
    return c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 ||
                   (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                   c == 0xfeff || c == 0xfffd
               ? 2
               : 0;
}

/* What a character becomes: up to three of them. */
static int map_char(int kind, uint32_t c, uint32_t out[3])
{
    int what;
    out[0] = c;
    switch (kind) {
    case AM_STEP_LOWERCASE: /* as Rust's char::to_lowercase: only U+0130 becomes two */
        out[0] = c == 0x130 ? 'i' : (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
        out[1] = 0x307;
        return c == 0x130 ? 2 : 1;
    case AM_STEP_BERT_ACCENTS:
        return !AM_CHAR_CLASS(AM_BERT_MARKS, c);
    case AM_STEP_STRIP_ACCENTS:
        return !AM_CHAR_CLASS(AM_MARKS, c);
    case AM_STEP_CHINESE:
        if (!is_ideograph(c))
            return 1;
        out[0] = out[2] = ' ';
        out[1] = c;
        return 3;
    default:
        what = kind == AM_STEP_CLEAN ? clean(c) : clean_nmt(c);
        if (what == 2)
            out[0] = ' ';
        return what != 1;
    }
}

/* ASCII characters of a step that maps characters alone, or graphemes. */
int am_step_prepare(am_step *step)
{
    int chars = step->kind >= AM_STEP_LOWERCASE && step->kind <= AM_STEP_NMT;
    if (!chars && step->kind != AM_STEP_CHARSMAP)
        return AM_OK;
    void *p;
    AM_TRY(am_alloc(&p, 128));
    step->ascii = p;
    for (uint32_t c = 0; c < 128; c++) {
        uint32_t to[3];
        size_t n = 1;
        const char *mapped = NULL, letter = (char)c;
        if (chars)
            n = (size_t)map_char(step->kind, c, to);
        else if ((mapped = am_charsmap_find(step->charsmap, &letter, 1, &n)))
            to[0] = n ? (unsigned char)mapped[0] : 0;
        else
            to[0] = c;
        step->ascii[c] = n == 0                   ? AM_ASCII_DROPPED
                         : n == 1 && to[0] < 0x80 ? (uint8_t)to[0]
                                                  : AM_ASCII_OTHER;
    }
    return AM_OK;
}

int am_map_chars(const am_step *step, const am_text *t, const am_piece *piece, am_store *out,
                 int *changed)
{
    const uint8_t *ascii = step->ascii;
    size_t same = piece->start; /* what is the same from here on is copied at once */
    for (size_t i = piece->start, length; i < piece->end; i += length) {
        unsigned char byte = (unsigned char)t->bytes[i];
        uint32_t to[3];
        int n = 1;
        length = 1;
        if (byte < 0x80) {
            if (ascii[byte] == byte)
                continue;
            to[0] = ascii[byte];
            n = to[0] != AM_ASCII_DROPPED;
        } else {
            uint32_t c = am_utf8_get(t->bytes + i, piece->end - i, &length);
            n = map_char(step->kind, c, to);
            if (n == 1 && to[0] == c)
                continue;
        }
        *changed = 1;
        if (!out)
            return AM_OK;
        if (same < i)
            AM_TRY(am_store_copy(out, t, same, i));
        same = i + length;
        for (int k = 0; k < n; k++)
            AM_TRY(am_store_char(out, t, to[k], am_text_origin(t, i, i + length)));
    }
    return out ? am_store_copy(out, t, same, piece->end) : AM_OK;
}

/* ---- graphemes -------------------------------------------------------------------------- */

/* The end of the grapheme that begins at `at`. */
static size_t grapheme_end(const char *text, size_t n, size_t at)
{
    size_t length;
    utf8proc_int32_t state = 0;
    uint32_t c = am_utf8_get(text + at, n - at, &length);
    for (at += length; at < n; at += length) {
        uint32_t next = am_utf8_get(text + at, n - at, &length);
        if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)c, (utf8proc_int32_t)next, &state))
            break;
        c = next;
    }
    return at;
}

/* One character or grapheme, if it is mapped. */
static int map_part(const am_step *step, const am_text *t, size_t start, size_t end, am_store *out,
                    int *mapped)
{
    size_t bytes;
    const char *to = am_charsmap_find(step->charsmap, t->bytes + start, end - start, &bytes);
    *mapped = to != NULL;
    return to && out ? am_store_put(out, t, to, bytes, am_text_origin(t, start, end)) : AM_OK;
}

/* As Hugging Face tokenizers: a grapheme of less than six bytes becomes what its shortest mapped
 * beginning does, any other goes character by character. */
int am_map_graphemes(const am_step *step, const am_text *t, const am_piece *piece, am_store *out,
                     int *changed)
{
    const char *text = t->bytes;
    size_t same = piece->start;
    for (size_t i = piece->start, end; i < piece->end; i = end) {
        unsigned char byte = (unsigned char)text[i];
        end = i + 1;
        if (byte < 0x80 && step->ascii[byte] == byte && byte != '\r' &&
            (end == piece->end || (unsigned char)text[end] < 0x80))
            continue;
        end = grapheme_end(text, piece->end, i);
        int mapped = 0, whole = end - i < 6;
        for (size_t k = i, length; k < end; k += length) {
            am_utf8_get(text + k, end - k, &length);
            if (whole)
                length = end - k;
            size_t bytes;
            if (!am_charsmap_find(step->charsmap, text + k, length, &bytes)) {
                if (whole && length > 1) { /* not as a whole */
                    whole = 0;
                    length = 0;
                }
                continue;
            }
            *changed = 1;
            if (!out)
                return AM_OK;
            AM_TRY(am_store_copy(out, t, same, k));
            same = k + length;
            AM_TRY(map_part(step, t, k, k + length, out, &mapped));
        }
    }
    return out ? am_store_copy(out, t, same, piece->end) : AM_OK;
}
