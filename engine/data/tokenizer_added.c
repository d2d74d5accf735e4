/* tokenizer_added.c — finding added tokens in a text: the leftmost, of those the longest, never
 * overlapping, with the options lstrip, rstrip and single_word of Hugging Face tokenizers. */
#include <stdlib.h>
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "tokenizer.h"

/* ---- the set ---------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    const am_added_pattern *x = a, *y = b;
    size_t n = x->bytes < y->bytes ? x->bytes : y->bytes;
    int order = n ? memcmp(x->text, y->text, n) : 0;
    if (order)
        return order;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

int am_added_set_finish(am_added_set *set)
{
    if (set->count > 1)
        qsort(set->patterns, set->count, sizeof *set->patterns, compare);
    size_t kept = 0;
    for (size_t i = 0; i < set->count; i++) {
        am_added_pattern *p = &set->patterns[i], *last = kept ? &set->patterns[kept - 1] : NULL;
        int repeats = last && p->bytes == last->bytes && !memcmp(p->text, last->text, p->bytes);
        if (repeats || p->bytes == 0)
            am_free(p->text);
        else
            set->patterns[kept++] = *p;
    }
    set->count = kept;
    for (size_t i = 0; i < kept; i++) {
        unsigned char first = (unsigned char)set->patterns[i].text[0];
        if (!set->by_byte[first].end) {
            set->by_byte[first].begin = (uint32_t)i;
            set->first_bytes++;
            set->only = first;
        }
        set->by_byte[first].end = (uint32_t)i + 1;
    }
    return AM_OK;
}

void am_added_set_free(am_added_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        am_free(set->patterns[i].text);
    am_free(set->patterns);
    memset(set, 0, sizeof *set);
}

/* The longest pattern that stands at the beginning of the text, or NULL. The patterns that agree
 * with the text so far are a range, which each byte narrows. */
static const am_added_pattern *longest_at(const am_added_set *set, const char *text, size_t n)
{
    unsigned char first = (unsigned char)text[0];
    size_t begin = set->by_byte[first].begin, end = set->by_byte[first].end;
    const am_added_pattern *best = NULL;
    for (size_t k = 1; begin < end; k++) {
        if (set->patterns[begin].bytes == k)
            best = &set->patterns[begin++];
        if (k == n)
            break;
        unsigned char c = (unsigned char)text[k];
        size_t low = begin, high = end;
        while (low < high) {
            size_t middle = (low + high) / 2;
            if ((unsigned char)set->patterns[middle].text[k] < c)
                low = middle + 1;
            else
                high = middle;
        }
        begin = low;
        for (high = end; low < high;) {
            size_t middle = (low + high) / 2;
            if ((unsigned char)set->patterns[middle].text[k] <= c)
                low = middle + 1;
            else
                high = middle;
        }
        end = low;
    }
    return best;
}

/* ---- cutting ---------------------------------------------------------------------------- */

static int is_word(const am_tokenizer *t, am_regex_scratch *scratch, const char *text, size_t n,
                   size_t at, int *yes)
{
    size_t start, end;
    int found;
    AM_TRY(am_regex_find(t->word, scratch, text, n, at, &start, &end, &found));
    *yes = found && start == at;
    return AM_OK;
}

/* May a single_word token stand at [start, end)? */
static int stands_alone(const am_tokenizer *t, am_regex_scratch *scratch, const char *text,
                        size_t n, size_t start, size_t end, int *yes)
{
    int word = 0;
    if (start) {
        size_t back = start - 1;
        while (back && ((unsigned char)text[back] & 0xc0) == 0x80)
            back--;
        AM_TRY(is_word(t, scratch, text, n, back, &word));
    }
    if (!word && end < n)
        AM_TRY(is_word(t, scratch, text, n, end, &word));
    *yes = !word;
    return AM_OK;
}

static size_t space_before(const char *text, size_t from, size_t at)
{
    while (at > from) {
        size_t back = at - 1, length;
        while (back > from && ((unsigned char)text[back] & 0xc0) == 0x80)
            back--;
        if (!am_is_space(am_utf8_get(text + back, at - back, &length)))
            break;
        at = back;
    }
    return at;
}

static size_t space_after(const char *text, size_t n, size_t at)
{
    size_t length;
    while (at < n && am_is_space(am_utf8_get(text + at, n - at, &length)))
        at += length;
    return at;
}

static int cut_piece(const am_tokenizer *t, am_text *x, const am_added_set *set,
                     const am_piece *piece)
{
    const char *text = x->bytes + piece->start;
    const size_t n = piece->end - piece->start, base = piece->start;
    size_t done = 0; /* everything before is pushed */
    for (size_t i = 0; i < n;) {
        const am_added_pattern *p = NULL;
        if (set->first_bytes == 1) { /* often they all begin with < */
            const char *next = memchr(text + i, set->only, n - i);
            if (!next)
                break;
            i = (size_t)(next - text);
        }
        if (set->by_byte[(unsigned char)text[i]].end)
            p = longest_at(set, text + i, n - i);
        if (!p) {
            i++;
            continue;
        }
        const am_added *token = &t->added[p->token];
        size_t start = i, end = i + p->bytes;
        i = end;
        if (token->single_word) {
            int alone;
            AM_TRY(stands_alone(t, &x->scratch, text, n, start, end, &alone));
            if (!alone)
                continue;
        }
        if (token->lstrip)
            start = space_before(text, done < start ? done : start, start);
        if (token->rstrip)
            end = space_after(text, n, end);
        if (done < start)
            AM_TRY(am_text_cut_push(x, base + done, base + start, AM_PIECE_TEXT));
        AM_TRY(am_text_cut_push(x, base + start, base + end, token->id));
        done = end;
    }
    if (done < n)
        AM_TRY(am_text_cut_push(x, base + done, piece->end, AM_PIECE_TEXT));
    return AM_OK;
}

int am_tokenizer_cut_added(const am_tokenizer *t, am_text *text, const am_added_set *set)
{
    if (!set->count)
        return AM_OK;
    am_text_cut_begin(text);
    for (size_t i = 0; i < text->piece_count; i++) {
        const am_piece *p = &text->pieces[i];
        if (p->id == AM_PIECE_TEXT)
            AM_TRY(cut_piece(t, text, set, p));
        else
            AM_TRY(am_text_cut_push(text, p->start, p->end, p->id));
    }
    am_text_cut_end(text);
    return AM_OK;
}
