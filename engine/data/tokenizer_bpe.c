/* tokenizer_bpe.c — byte pair encoding of one word.
 *
 * A word starts as one symbol a character (or byte); then the neighbouring pair whose merge was
 * learned first is joined, leftmost first among equals, until no pair can be. Short words scan for
 * that pair, long ones keep the candidates in a heap, so a word of n symbols costs O(n log n). */
#include "../core/error.h"
#include "../core/mem.h"
#include "../io/json.h"
#include "tokenizer_model.h"

enum { NO_RANK = -1 };
enum { SHORT_WORD = 48 };

/* ---- merges ----------------------------------------------------------------------------- */

static uint64_t hash_pair(int32_t left, int32_t right)
{
    return am_hash_mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right);
}

/* The pair's bit in the filter, which has eight times as many as the table has slots. */
static uint64_t filter_bit(const am_model *m, uint64_t hash)
{
    return hash >> 16 & (m->merge_slots * 8 - 1);
}

static am_merge *merge_slot(const am_model *m, uint64_t hash, int32_t left, int32_t right)
{
    size_t i = hash & (m->merge_slots - 1);
    while (m->merges[i].left >= 0 && (m->merges[i].left != left || m->merges[i].right != right))
        i = (i + 1) & (m->merge_slots - 1);
    return &m->merges[i];
}

static int merge_rehash(am_model *m, size_t slots)
{
    am_merge *old = m->merges;
    size_t old_slots = m->merge_slots;
    void *p;
    AM_TRY(am_alloc(&p, slots * sizeof *m->merges));
    m->merges = p;
    m->merge_slots = slots;
    for (size_t i = 0; i < slots; i++)
        m->merges[i].left = -1;
    for (size_t i = 0; i < old_slots; i++)
        if (old[i].left >= 0)
            *merge_slot(m, hash_pair(old[i].left, old[i].right), old[i].left, old[i].right) =
                old[i];
    am_free(old);
    return AM_OK;
}

static const char *missing_part(int64_t left, int64_t right)
{
    return left < 0 ? "the first" : right < 0 ? "the second" : "the whole";
}

int am_bpe_merge(am_model *m, const char *left, size_t left_bytes, const char *right,
                 size_t right_bytes)
{
    void *p;
    const size_t bytes = left_bytes + right_bytes;
    AM_TRY(am_alloc(&p, bytes + 1));
    memcpy(p, left, left_bytes);
    memcpy((char *)p + left_bytes, right, right_bytes);
    int64_t l = am_vocab_find(&m->vocab, left, left_bytes);
    int64_t r = am_vocab_find(&m->vocab, right, right_bytes);
    int64_t id = am_vocab_find(&m->vocab, p, bytes);
    am_free(p);
    if (l < 0 || r < 0 || id < 0)
        return am_fail(AM_EFORMAT, "merge of '%.*s' and '%.*s': %s is not in the vocabulary",
                       (int)(left_bytes < 100 ? left_bytes : 100), left,
                       (int)(right_bytes < 100 ? right_bytes : 100), right, missing_part(l, r));
    if ((m->merge_count + 1) * 2 > m->merge_slots)
        AM_TRY(merge_rehash(m, m->merge_slots ? m->merge_slots * 2 : 1024));
    am_merge *slot = merge_slot(m, hash_pair((int32_t)l, (int32_t)r), (int32_t)l, (int32_t)r);
    m->merge_count += slot->left < 0;
    *slot = (am_merge){(int32_t)l, (int32_t)r, m->next_rank++, (int32_t)id};
    return AM_OK;
}

int am_bpe_filter(am_model *m)
{
    void *p;
    if (!m->merge_slots)
        return AM_OK;
    AM_TRY(am_alloc(&p, m->merge_slots));
    m->filter = p;
    for (size_t i = 0; i < m->merge_slots; i++)
        if (m->merges[i].left >= 0) {
            uint64_t bit = filter_bit(m, hash_pair(m->merges[i].left, m->merges[i].right));
            m->filter[bit / 64] |= (uint64_t)1 << bit % 64;
        }
    return AM_OK;
}

/* ---- symbols ---------------------------------------------------------------------------- */

/* There is room for one a byte of the word. */
static void add_symbol(am_work *w, int32_t id, size_t start, size_t end)
{
    w->symbols[w->symbol_count++] =
        (am_symbol){.id = id, .start = (uint32_t)start, .end = (uint32_t)end};
}

/* The tokens <0xNN> of an unknown character, when all of them exist. */
static int add_fallback(const am_model *m, am_work *w, const char *c, size_t bytes, size_t start,
                        size_t end)
{
    int all = m->byte_fallback;
    for (size_t i = 0; i < bytes; i++)
        all &= m->fallback_ids[(unsigned char)c[i]] >= 0;
    for (size_t i = 0; all && i < bytes; i++)
        add_symbol(w, m->fallback_ids[(unsigned char)c[i]], start, end);
    return all;
}

static int32_t char_id(const am_model *m, uint32_t c)
{
    return m->char_ids[m->char_pages[c / AM_CHAR_PAGE] * AM_CHAR_PAGE + c % AM_CHAR_PAGE];
}

/* The word as symbols, one a character. An unknown token waits until the next known character, as
 * in Hugging Face tokenizers, so that fallback bytes come before it. */
static int split_word(const am_model *m, am_work *w, const char *word, size_t bytes)
{
    size_t unk_start = 0, unk_end = 0; /* of the waiting unknown token; empty: none */
    const int32_t unk = (int32_t)m->unk;
    const size_t most = (m->spelled ? 2 : 1) * bytes + 1; /* a byte's spelling has up to two */
    void *p = w->symbols;
    int rc = am_grow(&p, &w->symbol_capacity, most, sizeof *w->symbols);
    w->symbols = p;
    AM_TRY(rc);
    w->symbol_count = 0;
    for (size_t i = 0, step; i < bytes; i += step) {
        char spelled[4];
        const char *c = word + i;
        size_t c_bytes;
        int32_t id;
        if (m->spelled) {
            step = 1;
            id = m->byte_ids[(unsigned char)word[i]];
            c_bytes = 0;
        } else {
            step = (size_t)am_utf8_length(word + i, bytes - i);
            step += step == 0; /* never for valid UTF-8 */
            c_bytes = step;
            id = char_id(m, am_utf8_get(c, step, &c_bytes));
        }
        if (id >= 0) {
            if (unk_end > unk_start)
                add_symbol(w, unk, unk_start, unk_end);
            unk_end = unk_start;
            add_symbol(w, id, i, i + step);
            continue;
        }
        if (m->spelled) {
            c_bytes = (size_t)am_utf8_put(spelled, am_byte_spelling((uint8_t)word[i]));
            c = spelled;
        }
        if (add_fallback(m, w, c, c_bytes, i, i + step) || unk < 0)
            continue;
        if (unk_end > unk_start && !m->fuse_unk)
            add_symbol(w, unk, unk_start, unk_end);
        if (unk_end == unk_start || !m->fuse_unk)
            unk_start = i;
        unk_end = i + step;
    }
    if (unk_end > unk_start)
        add_symbol(w, unk, unk_start, unk_end);
    return AM_OK;
}

/* ---- joining ---------------------------------------------------------------------------- */

static void look_up_pair(const am_model *m, am_symbol *left, const am_symbol *right)
{
    left->rank = (uint32_t)NO_RANK;
    if (!right || !m->filter)
        return;
    uint64_t hash = hash_pair(left->id, right->id), bit = filter_bit(m, hash);
    if (!(m->filter[bit / 64] >> bit % 64 & 1))
        return;
    const am_merge *merge = merge_slot(m, hash, left->id, right->id);
    if (merge->left < 0)
        return;
    left->rank = merge->rank;
    left->merged = merge->id;
}

/* Join pairs in a word of few symbols, which stay packed. */
static void merge_short(const am_model *m, am_work *w)
{
    am_symbol *s = w->symbols;
    size_t n = w->symbol_count;
    for (size_t i = 0; i < n; i++)
        look_up_pair(m, &s[i], i + 1 < n ? &s[i + 1] : NULL);
    for (;;) {
        size_t best = 0;
        for (size_t i = 1; i < n; i++)
            if (s[i].rank < s[best].rank)
                best = i;
        if (s[best].rank == (uint32_t)NO_RANK)
            break;
        s[best].id = s[best].merged;
        s[best].end = s[best + 1].end;
        memmove(s + best + 1, s + best + 2, (n - best - 2) * sizeof *s);
        n--;
        look_up_pair(m, &s[best], best + 1 < n ? &s[best + 1] : NULL);
        if (best)
            look_up_pair(m, &s[best - 1], &s[best]);
    }
    w->symbol_count = n;
}

static int before(const am_candidate *a, const am_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

/* Queue the pair that begins at symbol `at`, if it has a merge. */
static int heap_push(const am_model *m, am_work *w, int32_t at)
{
    am_symbol *s = w->symbols;
    if (at < 0 || s[at].next < 0)
        return AM_OK;
    look_up_pair(m, &s[at], &s[s[at].next]);
    if (s[at].rank == (uint32_t)NO_RANK)
        return AM_OK;
    void *p = w->heap;
    int rc = am_grow(&p, &w->heap_capacity, w->heap_count + 1, sizeof *w->heap);
    w->heap = p;
    AM_TRY(rc);
    am_candidate c = {s[at].rank, at, s[at].id, s[s[at].next].id, s[at].merged};
    size_t i = w->heap_count++;
    for (; i && before(&c, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
    return AM_OK;
}

static am_candidate heap_pop(am_work *w)
{
    am_candidate top = w->heap[0], last = w->heap[--w->heap_count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->heap_count; i = child) {
        if (child + 1 < w->heap_count && before(&w->heap[child + 1], &w->heap[child]))
            child++;
        if (!before(&w->heap[child], &last))
            break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return top;
}

/* The same for a long word: symbols are linked, joined ones get id -1 and are packed at the end. */
static int merge_long(const am_model *m, am_work *w)
{
    am_symbol *s = w->symbols;
    int32_t n = (int32_t)w->symbol_count;
    w->heap_count = 0;
    for (int32_t i = 0; i < n; i++) {
        s[i].prev = i - 1;
        s[i].next = i + 1 < n ? i + 1 : -1;
    }
    for (int32_t i = 0; i < n; i++)
        AM_TRY(heap_push(m, w, i));
    while (w->heap_count) {
        am_candidate c = heap_pop(w);
        am_symbol *left = &s[c.at];
        if (left->id != c.left || left->next < 0 || s[left->next].id != c.right)
            continue; /* one of the two was joined since */
        am_symbol *right = &s[left->next];
        left->id = c.id;
        left->end = right->end;
        left->next = right->next;
        right->id = -1;
        if (right->next >= 0)
            s[right->next].prev = c.at;
        AM_TRY(heap_push(m, w, c.at));
        AM_TRY(heap_push(m, w, left->prev));
    }
    w->symbol_count = 0;
    for (int32_t i = 0; i < n; i++)
        if (s[i].id >= 0)
            s[w->symbol_count++] = s[i];
    return AM_OK;
}

/* ---- the whole -------------------------------------------------------------------------- */

/* The id of a word that is a token as a whole, or -1. */
static int whole_word(const am_model *m, am_work *w, const char *word, size_t bytes, int64_t *id)
{
    *id = -1;
    if (bytes > m->vocab.longest)
        return AM_OK;
    if (m->spelled) {
        void *p = w->spelling;
        int rc = am_grow(&p, &w->spelling_capacity, bytes * 2, 1);
        w->spelling = p;
        AM_TRY(rc);
        size_t n = 0;
        for (size_t i = 0; i < bytes; i++)
            n += (size_t)am_utf8_put(w->spelling + n, am_byte_spelling((uint8_t)word[i]));
        word = w->spelling;
        bytes = n;
    }
    *id = am_vocab_find(&m->vocab, word, bytes);
    return AM_OK;
}

int am_bpe_encode(const am_model *m, am_work *w, const char *word, size_t bytes, size_t base,
                  am_tokens *out)
{
    int64_t whole = -1;
    if (m->ignore_merges)
        AM_TRY(whole_word(m, w, word, bytes, &whole));
    if (whole >= 0)
        return am_tokens_push(out, (int32_t)whole, base, base + bytes);
    AM_TRY(split_word(m, w, word, bytes));
    if (w->symbol_count > SHORT_WORD)
        AM_TRY(merge_long(m, w));
    else if (w->symbol_count > 1)
        merge_short(m, w);
    AM_TRY(am_tokens_reserve(out, w->symbol_count));
    for (size_t i = 0; i < w->symbol_count; i++)
        AM_TRY(am_tokens_push(out, w->symbols[i].id, base + w->symbols[i].start,
                              base + w->symbols[i].end));
    return AM_OK;
}
