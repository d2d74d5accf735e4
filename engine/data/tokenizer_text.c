/* tokenizer_text.c — the text under way (bytes, origins, pieces) and the pre-tokenizer steps, which
 * cut it. The normalizers, which rewrite it, are in tokenizer_normalize.c. */
#include "tokenizer_text.h"

#include <string.h>
#include <utf8proc.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../io/json.h"
#include "tokenizer_normalize.h"
#include "tokenizer_tables.h"

/* ---- characters ------------------------------------------------------------------------- */

int am_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

int am_is_punctuation(uint32_t c)
{
    if (c < 0x80)
        return c > 0x20 && c < 0x7f && !(c >= '0' && c <= '9') &&
               !((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
    return AM_CHAR_CLASS(AM_PUNCTUATION, c);
}

static int is_numeric(uint32_t c)
{
    if (c < 0x80)
        return c >= '0' && c <= '9';
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

static int in_class(int class, uint32_t c)
{
    return class == AM_CLASS_SPACE     ? am_is_space(c)
           : class == AM_CLASS_NUMERIC ? is_numeric(c)
                                       : am_is_punctuation(c);
}

/* ---- the text --------------------------------------------------------------------------- */

int am_text_begin(am_text *t, const char *bytes, size_t n)
{
    if (n > AM_TEXT_MAX)
        return am_fail(AM_EINVAL, "a text of %zu bytes is longer than the %d that fit", n,
                       AM_TEXT_MAX);
    t->original = t->bytes = bytes;
    t->n = n;
    t->origin = NULL;
    am_text_cut_begin(t);
    size_t start = 0;
    int valid = 1;
    for (size_t i = 0; i < n;) {
        int length = (unsigned char)bytes[i] < 0x80 ? 1 : am_utf8_length(bytes + i, n - i);
        if ((length > 0) != valid) {
            AM_TRY(am_text_cut_push(t, start, i, valid ? AM_PIECE_TEXT : AM_PIECE_RAW));
            start = i;
            valid = length > 0;
        }
        i += length ? (size_t)length : 1;
    }
    AM_TRY(am_text_cut_push(t, start, n, valid ? AM_PIECE_TEXT : AM_PIECE_RAW));
    am_text_cut_end(t);
    return AM_OK;
}

void am_text_free(am_text *t)
{
    for (int i = 0; i < 2; i++) {
        am_free(t->store[i].bytes);
        am_free(t->store[i].origin);
    }
    am_free(t->pieces);
    am_free(t->next);
    am_regex_scratch_free(&t->scratch);
    memset(t, 0, sizeof *t);
}

am_span am_text_origin(const am_text *t, size_t start, size_t end)
{
    if (t->origin)
        return start < end ? (am_span){t->origin[start].start, t->origin[end - 1].end}
                           : (am_span){0, 0};
    /* Widen to whole characters; a byte that is not UTF-8 stays alone. */
    size_t back = start;
    while (back > 0 && start - back < 3 && ((unsigned char)t->bytes[back] & 0xc0) == 0x80)
        back--;
    int length = back < t->n ? am_utf8_length(t->bytes + back, t->n - back) : 0;
    if (back + (size_t)length > start)
        start = back;
    if (end > start && end < t->n && ((unsigned char)t->bytes[end] & 0xc0) == 0x80) {
        back = end - 1;
        while (back > start && end - back < 3 && ((unsigned char)t->bytes[back] & 0xc0) == 0x80)
            back--;
        length = am_utf8_length(t->bytes + back, t->n - back);
        if (back + (size_t)length > end)
            end = back + (size_t)length;
    }
    return (am_span){(uint32_t)start, (uint32_t)end};
}

void am_text_cut_begin(am_text *t)
{
    t->next_count = 0;
}

int am_text_cut_push(am_text *t, size_t start, size_t end, int32_t id)
{
    if (start == end)
        return AM_OK;
    void *p = t->next;
    int rc = am_grow(&p, &t->next_capacity, t->next_count + 1, sizeof *t->next);
    t->next = p;
    AM_TRY(rc);
    t->next[t->next_count++] = (am_piece){(uint32_t)start, (uint32_t)end, id};
    return AM_OK;
}

void am_text_cut_end(am_text *t)
{
    am_piece *pieces = t->pieces;
    size_t capacity = t->piece_capacity;
    t->pieces = t->next;
    t->piece_capacity = t->next_capacity;
    t->piece_count = t->next_count;
    t->next = pieces;
    t->next_capacity = capacity;
}

/* ---- matching --------------------------------------------------------------------------- */

int am_pattern_next(const am_pattern *p, am_regex_scratch *scratch, am_matcher *m, const char *text,
                    size_t n, size_t *start, size_t *end, int *found)
{
    *found = 0;
    if (p->regex) {
        while (m->from <= n) {
            AM_TRY(am_regex_find(p->regex, scratch, text, n, m->from, start, end, found));
            if (!*found)
                return AM_OK;
            if (*start < *end || !m->any || m->last_end != *end) {
                m->from = m->last_end = *end;
                m->any = 1;
                return AM_OK;
            }
            /* An empty match right behind the last one: go on after the next character. */
            *found = 0;
            size_t length = 1;
            if (m->from < n)
                am_utf8_get(text + m->from, n - m->from, &length);
            m->from += length;
        }
        return AM_OK;
    }
    if (p->literal) {
        const char *at =
            m->from < n ? memmem(text + m->from, n - m->from, p->literal, p->bytes) : NULL;
        if (at) {
            *found = 1;
            *start = (size_t)(at - text);
            m->from = *end = *start + p->bytes;
        }
        return AM_OK;
    }
    for (size_t i = m->from, length; i < n; i += length) {
        uint32_t c = am_utf8_get(text + i, n - i, &length);
        if (in_class(p->class, c)) {
            *found = 1;
            *start = i;
            m->from = *end = i + length;
            return AM_OK;
        }
    }
    return AM_OK;
}

/* ---- cutting ---------------------------------------------------------------------------- */

/* Pieces of one text piece as they come: the matches of a pattern and what lies between. */
typedef struct cutter {
    am_text *text;
    int behavior;
    size_t first;   /* pieces there were before this one */
    int last_match; /* was the last part a match? */
} cutter;

static int cut(cutter *c, size_t start, size_t end, int match)
{
    am_text *t = c->text;
    int join = 0, have = t->next_count > c->first;
    switch (c->behavior) {
    case AM_SPLIT_REMOVED:
        if (match)
            return AM_OK;
        break;
    case AM_SPLIT_CONTIGUOUS:
        join = match == c->last_match;
        break;
    case AM_SPLIT_MERGED_WITH_PREVIOUS:
        join = match && !c->last_match;
        break;
    case AM_SPLIT_MERGED_WITH_NEXT:
        join = !match && c->last_match;
        break;
    default:
        break;
    }
    c->last_match = match;
    if (join && have) {
        t->next[t->next_count - 1].end = (uint32_t)end;
        return AM_OK;
    }
    return am_text_cut_push(t, start, end, AM_PIECE_TEXT);
}

static int split_piece(const am_step *step, am_text *t, const am_piece *piece)
{
    cutter c = {t, step->behavior, t->next_count, 0};
    const char *text = t->bytes + piece->start;
    size_t n = piece->end - piece->start, previous = 0, start, end;
    am_matcher m = {0, 0, 0};
    int found;
    for (;;) {
        AM_TRY(am_pattern_next(&step->pattern, &t->scratch, &m, text, n, &start, &end, &found));
        if (!found)
            break;
        if (previous < start)
            AM_TRY(cut(&c, piece->start + previous, piece->start + start, step->invert));
        AM_TRY(cut(&c, piece->start + start, piece->start + end, !step->invert));
        previous = end;
    }
    return previous < n ? cut(&c, piece->start + previous, piece->end, step->invert) : AM_OK;
}

/* As Hugging Face tokenizers, what stands before the first character of a script goes. */
static int split_scripts(am_text *t, const am_piece *piece)
{
    size_t from = piece->end, length;
    int last = 0;
    for (size_t i = piece->start; i < piece->end; i += length) {
        uint32_t c = am_utf8_get(t->bytes + i, piece->end - i, &length);
        int now = AM_CHAR_CLASS(AM_SCRIPTS, c);
        if (!now || now == last)
            continue;
        if (last)
            AM_TRY(am_text_cut_push(t, from, i, AM_PIECE_TEXT));
        from = i;
        last = now;
    }
    return am_text_cut_push(t, from, piece->end, AM_PIECE_TEXT);
}

static int split(const am_step *step, am_text *t)
{
    am_text_cut_begin(t);
    for (size_t i = 0; i < t->piece_count; i++) {
        const am_piece *p = &t->pieces[i];
        if (p->id == AM_PIECE_TEXT && step->kind == AM_STEP_SCRIPTS)
            AM_TRY(split_scripts(t, p));
        else if (p->id == AM_PIECE_TEXT)
            AM_TRY(split_piece(step, t, p));
        else
            AM_TRY(am_text_cut_push(t, p->start, p->end, p->id));
    }
    am_text_cut_end(t);
    return AM_OK;
}

int am_step_run(const am_step *step, am_text *t)
{
    int cuts = step->kind == AM_STEP_SPLIT || step->kind == AM_STEP_SCRIPTS;
    return cuts ? split(step, t) : am_normalize(step, t);
}

void am_step_free(am_step *step)
{
    am_regex_free(step->pattern.regex);
    am_free(step->pattern.literal);
    am_free(step->content);
    am_charsmap_free(step->charsmap);
    am_free(step->ascii);
}
