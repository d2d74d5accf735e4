/* tokenizer_normalize.c — the steps that rewrite a text: Unicode normal forms, lower case,
 * replacing, prepending, stripping, the byte alphabet. Each builds the next text byte by byte with
 * its origins. A first pass finds out whether a step changes anything, which on most texts it does
 * not.
 *
 * Origins follow Hugging Face tokenizers (what is inserted comes from the character before it, or
 * at the beginning from the one after), except that the characters of a normalized sequence all
 * come from the whole sequence. */
#include "tokenizer_normalize.h"

#include <string.h>
#include <utf8proc.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../io/json.h"
#include "tokenizer_bpe.h"

typedef struct am_text_store store;

/* ---- building the next text ------------------------------------------------------------- */

static int reserve(store *out, size_t more)
{
    if (out->n + more > AM_TEXT_MAX)
        return am_fail(AM_EINVAL, "the normalized text is longer than the %d bytes that fit",
                       AM_TEXT_MAX);
    void *p = out->bytes;
    int rc = am_grow(&p, &out->byte_capacity, out->n + more, 1);
    out->bytes = p;
    AM_TRY(rc);
    p = out->origin;
    rc = am_grow(&p, &out->origin_capacity, out->n + more, sizeof *out->origin);
    out->origin = p;
    return rc;
}

/* Append bytes that all come from one place. */
static int put(store *out, const char *bytes, size_t n, am_span from)
{
    AM_TRY(reserve(out, n));
    for (size_t i = 0; i < n; i++) {
        out->bytes[out->n] = bytes[i];
        out->origin[out->n++] = from;
    }
    return AM_OK;
}

static int put_char(store *out, uint32_t c, am_span from)
{
    char utf8[4];
    return put(out, utf8, (size_t)am_utf8_put(utf8, c), from);
}

/* Append bytes [start, end) of the text as they are, each character with its own origin. */
static int copy(store *out, const am_text *t, size_t start, size_t end)
{
    if (start == end)
        return AM_OK;
    AM_TRY(reserve(out, end - start));
    memcpy(out->bytes + out->n, t->bytes + start, end - start);
    if (t->origin) {
        memcpy(out->origin + out->n, t->origin + start, (end - start) * sizeof *out->origin);
    } else {
        for (size_t i = start; i < end;) {
            size_t length = (size_t)am_utf8_length(t->bytes + i, end - i);
            length += length == 0;
            for (size_t k = 0; k < length; k++)
                out->origin[out->n + i - start + k] =
                    (am_span){(uint32_t)i, (uint32_t)(i + length)};
            i += length;
        }
    }
    out->n += end - start;
    return AM_OK;
}

/* ---- Unicode normal forms --------------------------------------------------------------- */

/* A growing list of code points: one sequence that normalizes on its own. */
typedef struct sequence {
    int32_t *c;
    size_t n, capacity;
} sequence;

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

/* Can what begins with this (decomposed) character neither be reordered with nor joined to what
 * stands before? Marks and the medial and final letters of Hangul can; no other can. */
static int begins_sequence(int32_t c)
{
    if (c < 0x300 || is_inert((uint32_t)c))
        return 1;
    if (c >= 0x1160 && c <= 0x11ff)
        return 0;
    utf8proc_category_t k = utf8proc_category(c);
    return k != UTF8PROC_CATEGORY_MN && k != UTF8PROC_CATEGORY_MC && k != UTF8PROC_CATEGORY_ME;
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

typedef struct normalizer {
    int options;
    sequence now, scratch;
} normalizer;

/* Find the end of the sequence that begins at `at`, and its decomposition. */
static int next_sequence(normalizer *z, const char *text, size_t n, size_t at, size_t *end)
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
            count = decompose(c, z->options, parts);
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
        if (z->options & UTF8PROC_COMPOSE)
            z->now.n = (size_t)utf8proc_normalize_utf32(z->now.c, (utf8proc_ssize_t)z->now.n,
                                                        (utf8proc_option_t)z->options);
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

/* Normalize a piece into `out`, or with out NULL only tell whether that changes it. */
static int normal_form(normalizer *z, const am_text *t, const am_piece *piece, store *out,
                       int *changed)
{
    const char *text = t->bytes + piece->start;
    size_t n = piece->end - piece->start;
    const uint32_t plain =
        z->options & UTF8PROC_COMPAT || !(z->options & UTF8PROC_COMPOSE) ? 0x80 : 0x300;
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
            AM_TRY(copy(out, t, piece->start + i, piece->start + start));
        if (start == n)
            break;
        AM_TRY(next_sequence(z, text, n, start, &next));
        end = next;
        if (same_sequence(&z->now, text + start, end - start)) {
            if (out)
                AM_TRY(copy(out, t, piece->start + start, piece->start + end));
            continue;
        }
        *changed = 1;
        if (!out)
            return AM_OK;
        am_span from = am_text_origin(t, piece->start + start, piece->start + end);
        for (size_t k = 0; k < z->now.n; k++)
            AM_TRY(put_char(out, (uint32_t)z->now.c[k], from));
    }
    return AM_OK;
}

/* ---- the other steps -------------------------------------------------------------------- */

/* As Rust's char::to_lowercase: each character alone; only U+0130 becomes two. */
static int lowercase(const am_text *t, const am_piece *piece, store *out, int *changed)
{
    for (size_t i = piece->start, length; i < piece->end; i += length) {
        uint32_t c = am_utf8_get(t->bytes + i, piece->end - i, &length);
        uint32_t lower = c == 0x130 ? 'i' : (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
        *changed |= lower != c;
        if (!out)
            continue;
        am_span from = am_text_origin(t, i, i + length);
        AM_TRY(put_char(out, lower, from));
        if (c == 0x130)
            AM_TRY(put_char(out, 0x307, from));
    }
    return AM_OK;
}

static int replace(const am_step *step, const am_text *t, const am_piece *piece, store *out,
                   int *changed)
{
    const char *text = t->bytes + piece->start;
    size_t n = piece->end - piece->start, previous = 0, start, end;
    am_matcher m = {0, 0, 0};
    int found;
    for (;;) {
        AM_TRY(am_pattern_next(&step->pattern, &m, text, n, &start, &end, &found));
        *changed |= found;
        if (!found || !out)
            break;
        AM_TRY(copy(out, t, piece->start + previous, piece->start + start));
        size_t place = start < end || start == 0 ? start : start - 1;
        AM_TRY(put(out, step->content, step->content_bytes,
                   am_text_origin(t, piece->start + place,
                                  piece->start + (start < end ? end : place + 1))));
        previous = end;
    }
    return out ? copy(out, t, piece->start + previous, piece->end) : AM_OK;
}

static int prepend(const am_step *step, const am_text *t, const am_piece *piece, store *out,
                   int *changed)
{
    size_t n = piece->end - piece->start;
    int there = n >= step->content_bytes &&
                memcmp(t->bytes + piece->start, step->content, step->content_bytes) == 0;
    am_span begin = am_text_origin(t, piece->start, piece->start + 1);
    int wanted = step->kind == AM_STEP_PREPEND || (!there && !(step->first && begin.start));
    *changed |= wanted;
    if (out && wanted)
        AM_TRY(put(out, step->content, step->content_bytes, begin));
    return out ? copy(out, t, piece->start, piece->end) : AM_OK;
}

static int strip(const am_step *step, const am_text *t, const am_piece *piece, store *out,
                 int *changed)
{
    size_t start = piece->start, end = piece->end, length;
    while (step->left && start < end &&
           am_is_space(am_utf8_get(t->bytes + start, end - start, &length)))
        start += length;
    size_t last = start;
    for (size_t i = start; step->right && i < end; i += length)
        if (!am_is_space(am_utf8_get(t->bytes + i, end - i, &length)))
            last = i + length;
    if (step->right)
        end = last;
    *changed |= start != piece->start || end != piece->end;
    return out ? copy(out, t, start, end) : AM_OK;
}

static int spell_bytes(const am_text *t, size_t start, size_t end, store *out, int *changed)
{
    *changed = 1;
    for (size_t i = start; out && i < end; i++)
        AM_TRY(put_char(out, am_byte_spelling((uint8_t)t->bytes[i]), am_text_origin(t, i, i + 1)));
    return AM_OK;
}

static int rewrite(const am_step *step, normalizer *z, const am_text *t, const am_piece *piece,
                   store *out, int *changed)
{
    switch (step->kind) {
    case AM_STEP_LOWERCASE:
        return lowercase(t, piece, out, changed);
    case AM_STEP_REPLACE:
        return replace(step, t, piece, out, changed);
    case AM_STEP_PREPEND:
    case AM_STEP_PREFIX:
        return prepend(step, t, piece, out, changed);
    case AM_STEP_STRIP:
        return strip(step, t, piece, out, changed);
    case AM_STEP_BYTES:
        return spell_bytes(t, piece->start, piece->end, out, changed);
    default:
        return normal_form(z, t, piece, out, changed);
    }
}

static int rewrite_all(const am_step *step, normalizer *z, am_text *t)
{
    int changed = 0;
    for (size_t i = 0; i < t->piece_count && !changed; i++)
        if (t->pieces[i].id == AM_PIECE_TEXT)
            AM_TRY(rewrite(step, z, t, &t->pieces[i], NULL, &changed));
    if (!changed)
        return AM_OK;
    store *out = &t->store[t->origin ? !t->current : 0];
    out->n = 0;
    am_text_cut_begin(t);
    for (size_t i = 0; i < t->piece_count; i++) {
        const am_piece *piece = &t->pieces[i];
        size_t start = out->n;
        if (piece->id == AM_PIECE_TEXT)
            AM_TRY(rewrite(step, z, t, piece, out, &changed));
        else if (piece->id == AM_PIECE_RAW && step->kind == AM_STEP_BYTES)
            AM_TRY(spell_bytes(t, piece->start, piece->end, out, &changed));
        else
            AM_TRY(copy(out, t, piece->start, piece->end));
        AM_TRY(am_text_cut_push(t, start, out->n, piece->id));
    }
    am_text_cut_end(t);
    AM_TRY(reserve(out, 1)); /* never NULL */
    t->current = (int)(out - t->store);
    t->bytes = out->bytes;
    t->n = out->n;
    t->origin = out->origin;
    return AM_OK;
}

int am_normalize(const am_step *step, am_text *t)
{
    normalizer z = {.options = form_options(step->kind)};
    int rc = rewrite_all(step, &z, t);
    am_free(z.now.c);
    am_free(z.scratch.c);
    return rc;
}
