/* tokenizer_normalize.c — the steps that rewrite a text. Each builds the next text byte by byte,
 * with its origins where these are wanted. A first pass finds out whether a step changes anything,
 * which on most texts it does not. What goes by Unicode's tables is in tokenizer_unicode.c.
 *
 * Origins follow Hugging Face tokenizers (what is inserted comes from the character before it, or
 * at the beginning from the one after), except that the characters of a normalized sequence all
 * come from the whole sequence. */
#include "tokenizer_normalize.h"

#include "../core/error.h"
#include "../core/mem.h"
#include "../io/json.h"

/* ---- writing the next text -------------------------------------------------------------- */

int am_store_reserve(am_store *out, const am_text *t, size_t more)
{
    if (out->n + more > AM_TEXT_MAX)
        return am_fail(AM_EINVAL, "the normalized text is longer than the %d bytes that fit",
                       AM_TEXT_MAX);
    void *p = out->bytes;
    int rc = am_grow(&p, &out->byte_capacity, out->n + more, 1);
    out->bytes = p;
    AM_TRY(rc);
    if (!t->track)
        return AM_OK;
    p = out->origin;
    rc = am_grow(&p, &out->origin_capacity, out->n + more, sizeof *out->origin);
    out->origin = p;
    return rc;
}

int am_store_put(am_store *out, const am_text *t, const char *bytes, size_t n, am_span from)
{
    AM_TRY(am_store_reserve(out, t, n));
    for (size_t i = 0; i < n; i++) {
        out->bytes[out->n + i] = bytes[i];
        if (t->track)
            out->origin[out->n + i] = from;
    }
    out->n += n;
    return AM_OK;
}

int am_store_char(am_store *out, const am_text *t, uint32_t c, am_span from)
{
    char utf8[4];
    return am_store_put(out, t, utf8, (size_t)am_utf8_put(utf8, c), from);
}

int am_store_copy(am_store *out, const am_text *t, size_t start, size_t end)
{
    if (start == end)
        return AM_OK;
    AM_TRY(am_store_reserve(out, t, end - start));
    memcpy(out->bytes + out->n, t->bytes + start, end - start);
    if (t->track && t->origin) {
        memcpy(out->origin + out->n, t->origin + start, (end - start) * sizeof *out->origin);
    } else if (t->track) {
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

/* ---- steps ------------------------------------------------------------------------------ */

static int replace(const am_step *step, am_regex_scratch *scratch, const am_text *t,
                   const am_piece *piece, am_store *out, int *changed)
{
    const char *text = t->bytes + piece->start;
    size_t n = piece->end - piece->start, previous = 0, start, end;
    am_matcher m = {0, 0, 0};
    int found;
    for (;;) {
        AM_TRY(am_pattern_next(&step->pattern, scratch, &m, text, n, &start, &end, &found));
        *changed |= found;
        if (!found || !out)
            break;
        AM_TRY(am_store_copy(out, t, piece->start + previous, piece->start + start));
        size_t place = start < end || start == 0 ? start : start - 1;
        AM_TRY(am_store_put(out, t, step->content, step->content_bytes,
                            am_text_origin(t, piece->start + place,
                                           piece->start + (start < end ? end : place + 1))));
        previous = end;
    }
    return out ? am_store_copy(out, t, piece->start + previous, piece->end) : AM_OK;
}

static int prepend(const am_step *step, const am_text *t, const am_piece *piece, am_store *out,
                   int *changed)
{
    size_t n = piece->end - piece->start;
    int there = n >= step->content_bytes &&
                memcmp(t->bytes + piece->start, step->content, step->content_bytes) == 0;
    int wanted = step->kind == AM_STEP_PREPEND || !there;
    *changed |= wanted;
    if (out && wanted)
        AM_TRY(am_store_put(out, t, step->content, step->content_bytes,
                            am_text_origin(t, piece->start, piece->start + 1)));
    return out ? am_store_copy(out, t, piece->start, piece->end) : AM_OK;
}

/* Metaspace's mark for spaces, and before a piece that does not begin with one. */
static int metaspace(const am_step *step, const am_text *t, const am_piece *piece, am_store *out,
                     int *changed)
{
    const char *text = t->bytes;
    size_t n = piece->end - piece->start, at = piece->start;
    int there = text[at] == ' ' || (n >= step->content_bytes &&
                                    memcmp(text + at, step->content, step->content_bytes) == 0);
    am_span begin = am_text_origin(t, at, at + 1);
    int wanted = step->prefix && !there && !(step->first && begin.start);
    if (!out) {
        *changed |= wanted || memchr(text + at, ' ', n);
        return AM_OK;
    }
    if (wanted)
        AM_TRY(am_store_put(out, t, step->content, step->content_bytes, begin));
    for (const char *space; at < piece->end && (space = memchr(text + at, ' ', piece->end - at));) {
        size_t found = (size_t)(space - text);
        AM_TRY(am_store_copy(out, t, at, found));
        AM_TRY(am_store_put(out, t, step->content, step->content_bytes,
                            am_text_origin(t, found, found + 1)));
        at = found + 1;
    }
    return am_store_copy(out, t, at, piece->end);
}

static int strip(const am_step *step, const am_text *t, const am_piece *piece, am_store *out,
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
    return out ? am_store_copy(out, t, start, end) : AM_OK;
}

static int spell_bytes(const am_text *t, size_t start, size_t end, am_store *out, int *changed)
{
    *changed = 1;
    for (size_t i = start; out && i < end; i++)
        AM_TRY(am_store_char(out, t, am_byte_spelling((uint8_t)t->bytes[i]),
                             am_text_origin(t, i, i + 1)));
    return AM_OK;
}

static int rewrite(const am_step *step, am_normalizer *z, am_text *t, const am_piece *piece,
                   am_store *out, int *changed)
{
    switch (step->kind) {
    case AM_STEP_NFC:
    case AM_STEP_NFD:
    case AM_STEP_NFKC:
    case AM_STEP_NFKD:
        return am_normal_form(step, z, t, piece, out, changed);
    case AM_STEP_CHARSMAP:
        return am_map_graphemes(step, t, piece, out, changed);
    case AM_STEP_REPLACE:
        return replace(step, &t->scratch, t, piece, out, changed);
    case AM_STEP_PREPEND:
    case AM_STEP_PREFIX:
        return prepend(step, t, piece, out, changed);
    case AM_STEP_METASPACE:
        return metaspace(step, t, piece, out, changed);
    case AM_STEP_STRIP:
        return strip(step, t, piece, out, changed);
    case AM_STEP_BYTES:
        return spell_bytes(t, piece->start, piece->end, out, changed);
    default:
        return am_map_chars(step, t, piece, out, changed);
    }
}

static int rewrite_all(const am_step *step, am_normalizer *z, am_text *t)
{
    int changed = 0;
    for (size_t i = 0; i < t->piece_count && !changed; i++)
        if (t->pieces[i].id == AM_PIECE_TEXT)
            AM_TRY(rewrite(step, z, t, &t->pieces[i], NULL, &changed));
    if (!changed)
        return AM_OK;
    am_store *out = &t->store[t->bytes == t->store[t->current].bytes ? !t->current : t->current];
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
            AM_TRY(am_store_copy(out, t, piece->start, piece->end));
        AM_TRY(am_text_cut_push(t, start, out->n, piece->id));
    }
    am_text_cut_end(t);
    AM_TRY(am_store_reserve(out, t, 1)); /* never NULL */
    t->current = (int)(out - t->store);
    t->bytes = out->bytes;
    t->n = out->n;
    t->origin = t->track ? out->origin : NULL;
    return AM_OK;
}

int am_normalize(const am_step *step, am_text *t)
{
    am_normalizer z = {0};
    int rc = rewrite_all(step, &z, t);
    am_free(z.now.c);
    am_free(z.scratch.c);
    return rc;
}
