/* tokenizer_model.c — what the models share: lists of tokens, the cache of words, set-up, and the
 * places where a long word can be cut. */
#include "tokenizer_model.h"

#include <stdio.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../io/json.h"

static const char MARK[] = "\xe2\x96\x81"; /* U+2581, SentencePiece's space */
enum { MARK_BYTES = 3 };

/* ---- lists ------------------------------------------------------------------------------ */

int am_tokens_reserve(am_tokens *t, size_t more)
{
    size_t capacity = t->capacity;
    void *p = t->ids;
    int rc = am_grow(&p, &capacity, t->count + more, sizeof *t->ids);
    t->ids = p;
    AM_TRY(rc);
    p = t->spans;
    rc = am_grow(&p, &t->capacity, t->count + more, sizeof *t->spans);
    t->spans = p;
    return rc;
}

void am_tokens_free(am_tokens *t)
{
    am_free(t->ids);
    am_free(t->spans);
    memset(t, 0, sizeof *t);
}

void am_work_free(am_work *w)
{
    am_free(w->cache_memory);
    am_free(w->symbols);
    am_free(w->heap);
    am_free(w->spelling);
    am_free(w->ways);
    memset(w, 0, sizeof *w);
}

/* ---- set-up ----------------------------------------------------------------------------- */

int am_model_begin(am_model *m)
{
    for (int i = 0; i < 256; i++) {
        char name[16];
        int n = am_utf8_put(name, am_byte_spelling((uint8_t)i));
        m->byte_ids[i] = (int32_t)am_vocab_find(&m->vocab, name, (size_t)n);
        n = snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        m->fallback_ids[i] = (int32_t)am_vocab_find(&m->vocab, name, (size_t)n);
    }
    return AM_OK;
}

/* Note after which bytes a token made by merges has U+2581 inside it. A word is joined to the next
 * across such a place only; U+2581 is a token itself, so no unknown character reaches over it. */
static void find_cuts(am_model *m)
{
    m->cut = m->kind == AM_MODEL_BPE && !m->spelled && !m->ignore_merges &&
             am_vocab_find(&m->vocab, MARK, MARK_BYTES) >= 0;
    for (size_t i = 0; m->cut && i < m->merge_slots; i++) {
        if (m->merges[i].left < 0)
            continue;
        const am_vocab_token *t = &m->vocab.tokens[m->merges[i].id];
        const char *end = t->text + t->bytes;
        for (const char *s = t->text + 1; s + MARK_BYTES <= end; s++)
            if (memcmp(s, MARK, MARK_BYTES) == 0)
                m->joins[(unsigned char)s[-1]] = 1;
    }
}

static int build_tries(am_model *m)
{
    const size_t n = m->prefix_bytes;
    m->trie.tokens = m->tails.tokens = m->vocab.tokens;
    m->tails.skip = n;
    for (size_t id = 0; id < m->vocab.size; id++) {
        const am_vocab_token *t = &m->vocab.tokens[id];
        if (!t->text)
            continue;
        AM_TRY(am_trie_add(&m->trie, (int32_t)id));
        if (m->kind == AM_MODEL_WORDPIECE && t->bytes > n && memcmp(t->text, m->prefix, n) == 0)
            AM_TRY(am_trie_add(&m->tails, (int32_t)id));
    }
    return AM_OK;
}

/* Page 0 is for the characters of which none is a token. */
static int add_char_page(am_model *m, size_t count)
{
    void *p = m->char_ids;
    AM_TRY(am_realloc(&p, (count + 1) * AM_CHAR_PAGE * sizeof *m->char_ids));
    m->char_ids = p;
    memset(m->char_ids + count * AM_CHAR_PAGE, 0xff, AM_CHAR_PAGE * sizeof *m->char_ids);
    return AM_OK;
}

static int index_chars(am_model *m)
{
    size_t pages = 1;
    AM_TRY(add_char_page(m, 0));
    for (size_t id = 0; id < m->vocab.size; id++) {
        const am_vocab_token *t = &m->vocab.tokens[id];
        size_t length;
        if (!t->text || !t->bytes || t->bytes > 4 ||
            am_utf8_length(t->text, t->bytes) != (int)t->bytes)
            continue;
        uint32_t c = am_utf8_get(t->text, t->bytes, &length);
        uint16_t *page = &m->char_pages[c / AM_CHAR_PAGE];
        if (!*page) {
            AM_TRY(add_char_page(m, pages));
            *page = (uint16_t)pages++;
        }
        m->char_ids[*page * AM_CHAR_PAGE + c % AM_CHAR_PAGE] = (int32_t)id;
    }
    return AM_OK;
}

int am_model_finish(am_model *m)
{
    if (m->kind != AM_MODEL_BPE)
        return build_tries(m);
    find_cuts(m);
    if (!m->spelled)
        AM_TRY(index_chars(m));
    return am_bpe_filter(m);
}

void am_model_free(am_model *m)
{
    am_vocab_free(&m->vocab);
    am_trie_free(&m->trie);
    am_trie_free(&m->tails);
    am_free(m->merges);
    am_free(m->filter);
    am_free(m->char_ids);
    am_free(m->scores);
    am_free(m->prefix);
    memset(m, 0, sizeof *m);
}

/* ---- encoding --------------------------------------------------------------------------- */

/* Keep the tokens from `first` on, if they are few and stand for the word's bytes in turn. */
static void keep(am_cached *slot, const char *word, size_t bytes, size_t base, const am_tokens *out,
                 size_t first)
{
    size_t count = out->count - first, at = base;
    if (!count || count > AM_CACHE_IDS)
        return;
    for (size_t i = 0; i < count; i++) {
        if (out->spans[first + i].start != at)
            return;
        at = out->spans[first + i].end;
    }
    if (at != base + bytes)
        return;
    slot->bytes = (uint8_t)bytes;
    slot->count = (uint8_t)count;
    memcpy(slot->word, word, bytes);
    memcpy(slot->ids, out->ids + first, count * sizeof *slot->ids);
    for (size_t i = 0; i + 1 < count; i++)
        slot->ends[i] = (uint8_t)(out->spans[first + i].end - base);
}

static int cache_begin(am_work *w)
{
    void *p;
    const size_t line = sizeof *w->cache; /* a slot is one line of the processor's cache */
    AM_TRY(am_alloc(&p, (AM_CACHE_SLOTS + 1) * sizeof *w->cache));
    w->cache_memory = p;
    w->cache = (am_cached *)(((uintptr_t)p + line - 1) / line * line);
    return AM_OK;
}

static am_cached *slot_of(const am_work *w, const char *word, size_t bytes)
{
    return &w->cache[am_hash_bytes(word, bytes) & (AM_CACHE_SLOTS - 1)];
}

void am_model_expect(const am_work *w, const char *word, size_t bytes)
{
    if (w->cache && bytes <= AM_CACHE_WORD)
        __builtin_prefetch(slot_of(w, word, bytes));
}

static int encode_word(const am_model *m, am_work *w, const char *word, size_t bytes, size_t base,
                       am_tokens *out)
{
    am_cached *slot = NULL;
    size_t first = out->count;
    if (bytes <= AM_CACHE_WORD) {
        if (!w->cache)
            AM_TRY(cache_begin(w));
        slot = slot_of(w, word, bytes);
        if (slot->count && slot->bytes == bytes && memcmp(slot->word, word, bytes) == 0) {
            if (out->capacity - first < AM_CACHE_IDS)
                AM_TRY(am_tokens_reserve(out, AM_CACHE_IDS));
            size_t at = base, last = slot->count - 1u;
            for (size_t i = 0; i <= last; i++) {
                size_t end = base + (i < last ? slot->ends[i] : bytes);
                out->ids[first + i] = slot->ids[i];
                out->spans[first + i] = (am_span){(uint32_t)at, (uint32_t)end};
                at = end;
            }
            out->count = first + last + 1;
            return AM_OK;
        }
    }
    if (m->kind == AM_MODEL_BPE)
        AM_TRY(am_bpe_encode(m, w, word, bytes, base, out));
    else if (m->kind == AM_MODEL_UNIGRAM)
        AM_TRY(am_unigram_encode(m, w, word, bytes, base, out));
    else
        AM_TRY(am_wordpiece_encode(m, word, bytes, base, out));
    if (slot)
        keep(slot, word, bytes, base, out, first);
    return AM_OK;
}

static int is_mark(const char *s)
{
    return s[0] == MARK[0] && s[1] == MARK[1] && s[2] == MARK[2];
}

/* The next U+2581 that stands behind another character which no token joins it to, or `end`. */
static size_t next_cut(const am_model *m, const char *text, size_t at, size_t end)
{
    for (size_t i = at + 1; i + MARK_BYTES <= end; i++)
        if (is_mark(text + i) && !m->joins[(unsigned char)text[i - 1]] &&
            !(i >= at + MARK_BYTES && is_mark(text + i - MARK_BYTES)))
            return i;
    return end;
}

int am_model_encode(const am_model *m, am_work *w, const char *text, size_t start, size_t end,
                    am_tokens *out)
{
    if (start == end)
        return AM_OK;
    if (!m->cut)
        return encode_word(m, w, text + start, end - start, start, out);
    for (size_t at = start, stop = next_cut(m, text, at, end), after; at < end;
         at = stop, stop = after) {
        after = stop < end ? next_cut(m, text, stop, end) : end;
        am_model_expect(w, text + stop, after - stop);
        AM_TRY(encode_word(m, w, text + at, stop - at, at, out));
    }
    return AM_OK;
}
