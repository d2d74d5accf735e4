/* tokenizer_bpe.c — vocabularies and byte pair encoding.
 *
 * A word starts as one symbol a character (or byte); then the neighbouring pair whose merge was
 * learned first is joined, leftmost first among equals, until no pair can be. Short words scan for
 * that pair, long ones keep the candidates in a heap, so a word of n symbols costs O(n log n).
 * Words already seen come out of a small direct-mapped cache. */
#include "tokenizer_bpe.h"

#include <stdio.h>
#include <string.h>

#include "../core/error.h"
#include "../core/mem.h"
#include "../io/json.h"

/* ---- the byte alphabet ------------------------------------------------------------------ */

static int printable(uint32_t c)
{
    return (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff);
}

uint32_t am_byte_spelling(uint8_t byte)
{
    if (printable(byte))
        return byte;
    /* 0x00-0x20 come first, then 0x7f-0xa0, then 0xad. */
    return byte <= 0x20 ? 0x100u + byte : byte <= 0xa0 ? 0x121u + byte - 0x7fu : 0x143u;
}

int am_byte_spelled(uint32_t c)
{
    if (c < 0x100)
        return printable(c) ? (int)c : -1;
    if (c <= 0x120)
        return (int)(c - 0x100);
    if (c <= 0x142)
        return (int)(c - 0x121 + 0x7f);
    return c == 0x143 ? 0xad : -1;
}

/* ---- hashing ---------------------------------------------------------------------------- */

static uint64_t mix(uint64_t h)
{
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    h ^= h >> 32;
    return h;
}

static uint64_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = n * 0x9e3779b97f4a7c15u, part;
    for (; n > 8; s += 8, n -= 8) {
        memcpy(&part, s, 8);
        h = mix(h ^ part);
    }
    part = 0;
    memcpy(&part, s, n);
    return mix(mix(h ^ part));
}

/* ---- vocabulary ------------------------------------------------------------------------- */

static int vocab_rehash(am_vocab *v, size_t slot_count)
{
    void *p;
    AM_TRY(am_alloc(&p, slot_count * sizeof *v->slots));
    uint32_t *slots = p;
    for (size_t id = 0; id < v->size; id++) {
        if (!v->tokens[id].text)
            continue;
        size_t i = hash_bytes(v->tokens[id].text, v->tokens[id].bytes) & (slot_count - 1);
        while (slots[i])
            i = (i + 1) & (slot_count - 1);
        slots[i] = (uint32_t)id + 1;
    }
    am_free(v->slots);
    v->slots = slots;
    v->slot_count = slot_count;
    return AM_OK;
}

static size_t vocab_slot(const am_vocab *v, const char *text, size_t bytes)
{
    size_t i = hash_bytes(text, bytes) & (v->slot_count - 1);
    for (; v->slots[i]; i = (i + 1) & (v->slot_count - 1)) {
        const am_vocab_token *t = &v->tokens[v->slots[i] - 1];
        if (t->bytes == bytes && memcmp(t->text, text, bytes) == 0)
            break;
    }
    return i;
}

int64_t am_vocab_find(const am_vocab *v, const char *text, size_t bytes)
{
    return v->slot_count ? (int64_t)v->slots[vocab_slot(v, text, bytes)] - 1 : -1;
}

int am_vocab_add(am_vocab *v, const char *text, size_t bytes, int64_t id)
{
    if (id < 0 || id > AM_VOCAB_MAX_ID)
        return am_fail(AM_EFORMAT, "token '%.*s' has the id %lld, which is not in 0..%d",
                       (int)(bytes < 100 ? bytes : 100), text, (long long)id, AM_VOCAB_MAX_ID);
    size_t at = (size_t)id;
    int64_t there = am_vocab_find(v, text, bytes);
    if (there == id)
        return AM_OK;
    if (there >= 0 || (at < v->size && v->tokens[at].text))
        return am_fail(AM_EFORMAT, "token '%.*s' and the id %lld are not one to one",
                       (int)(bytes < 100 ? bytes : 100), text, (long long)id);
    if ((v->count + 1) * 2 > v->slot_count)
        AM_TRY(vocab_rehash(v, v->slot_count ? v->slot_count * 2 : 1024));
    void *p = v->tokens;
    int rc = am_grow(&p, &v->capacity, at + 1, sizeof *v->tokens);
    v->tokens = p;
    AM_TRY(rc);
    AM_TRY(am_alloc(&p, bytes + 1));
    memcpy(p, text, bytes);
    if (at >= v->size) {
        memset(v->tokens + v->size, 0, (at + 1 - v->size) * sizeof *v->tokens);
        v->size = at + 1;
    }
    am_vocab_token *t = &v->tokens[at];
    t->text = p;
    t->bytes = (uint32_t)bytes;
    t->chars = 0;
    for (size_t i = 0; i < bytes; i++)
        t->chars += ((unsigned char)text[i] & 0xc0) != 0x80;
    if (bytes > v->longest)
        v->longest = bytes;
    v->count++;
    v->slots[vocab_slot(v, text, bytes)] = (uint32_t)id + 1;
    return AM_OK;
}

void am_vocab_free(am_vocab *v)
{
    for (size_t id = 0; id < v->size; id++)
        am_free((void *)(uintptr_t)v->tokens[id].text);
    am_free(v->tokens);
    am_free(v->slots);
    memset(v, 0, sizeof *v);
}

/* ---- the model -------------------------------------------------------------------------- */

typedef struct merge {
    int32_t left, right; /* left -1: an empty slot */
    uint32_t rank;
    int32_t id;
} merge;

/* A word's symbol. `merge_rank` and `merge_id` belong to the pair of this symbol and the next. */
typedef struct symbol {
    int32_t id;
    uint32_t start, end;
    uint32_t merge_rank;
    int32_t merge_id;
    int32_t prev, next; /* long words only */
} symbol;

typedef struct candidate {
    uint32_t rank;
    int32_t at;
    int32_t left, right, id; /* the pair when it was queued, and what it becomes */
} candidate;

enum { NO_RANK = -1 };
enum { CACHE_SLOTS = 1 << 15, CACHE_WORD = 30, CACHE_IDS = 8, SHORT_WORD = 48 };

typedef struct cached {
    uint8_t bytes, count; /* count 0: empty */
    char word[CACHE_WORD];
    int32_t ids[CACHE_IDS];
} cached;

struct am_bpe {
    am_vocab vocab;
    am_bpe_options options;
    int32_t byte_ids[256];     /* of the byte's spelling; -1: absent */
    int32_t fallback_ids[256]; /* <0x00> … <0xFF>; -1: absent */
    merge *merges;             /* open addressing */
    size_t merge_slots, merge_count;
    uint32_t next_rank;
    cached *cache;
    symbol *symbols;
    size_t symbol_capacity;
    candidate *heap;
    size_t heap_capacity, heap_count;
    am_bpe_token *tokens;
    size_t token_capacity, token_count;
    char *spelling;
    size_t spelling_capacity;
};

static uint64_t hash_pair(int32_t left, int32_t right)
{
    return mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right);
}

static merge *merge_slot(const am_bpe *b, int32_t left, int32_t right)
{
    size_t i = hash_pair(left, right) & (b->merge_slots - 1);
    while (b->merges[i].left >= 0 && (b->merges[i].left != left || b->merges[i].right != right))
        i = (i + 1) & (b->merge_slots - 1);
    return &b->merges[i];
}

static int merge_rehash(am_bpe *b, size_t slots)
{
    merge *old = b->merges;
    size_t old_slots = b->merge_slots;
    void *p;
    AM_TRY(am_alloc(&p, slots * sizeof *b->merges));
    b->merges = p;
    b->merge_slots = slots;
    for (size_t i = 0; i < slots; i++)
        b->merges[i].left = -1;
    for (size_t i = 0; i < old_slots; i++)
        if (old[i].left >= 0)
            *merge_slot(b, old[i].left, old[i].right) = old[i];
    am_free(old);
    return AM_OK;
}

int am_bpe_new(am_bpe **out, am_vocab *vocab, const am_bpe_options *options)
{
    void *p = NULL;
    AM_TRY(am_alloc(&p, sizeof(am_bpe)));
    am_bpe *b = p;
    int rc = AM_OK;
    b->options = *options;
    AM_TRY_OUT(merge_rehash(b, 1024));
    AM_TRY_OUT(am_alloc(&p, CACHE_SLOTS * sizeof *b->cache));
    b->cache = p;
    b->vocab = *vocab;
    memset(vocab, 0, sizeof *vocab);
    for (int i = 0; i < 256; i++) {
        char name[8];
        int n = am_utf8_put(name, am_byte_spelling((uint8_t)i));
        b->byte_ids[i] = (int32_t)am_vocab_find(&b->vocab, name, (size_t)n);
        n = snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        b->fallback_ids[i] = (int32_t)am_vocab_find(&b->vocab, name, (size_t)n);
    }
    *out = b;
    return AM_OK;
out:
    am_bpe_free(b);
    return rc;
}

void am_bpe_free(am_bpe *b)
{
    if (!b)
        return;
    am_vocab_free(&b->vocab);
    am_free(b->merges);
    am_free(b->cache);
    am_free(b->symbols);
    am_free(b->heap);
    am_free(b->tokens);
    am_free(b->spelling);
    am_free(b);
}

const am_vocab *am_bpe_vocab(const am_bpe *b)
{
    return &b->vocab;
}

static int reserve_spelling(am_bpe *b, size_t bytes)
{
    void *p = b->spelling;
    int rc = am_grow(&p, &b->spelling_capacity, bytes, 1);
    b->spelling = p;
    return rc;
}

int am_bpe_merge(am_bpe *b, const char *left, size_t left_bytes, const char *right,
                 size_t right_bytes)
{
    AM_TRY(reserve_spelling(b, left_bytes + right_bytes + 1));
    memcpy(b->spelling, left, left_bytes);
    memcpy(b->spelling + left_bytes, right, right_bytes);
    int64_t l = am_vocab_find(&b->vocab, left, left_bytes);
    int64_t r = am_vocab_find(&b->vocab, right, right_bytes);
    int64_t id = am_vocab_find(&b->vocab, b->spelling, left_bytes + right_bytes);
    if (l < 0 || r < 0 || id < 0)
        return am_fail(AM_EFORMAT, "merge of '%.*s' and '%.*s': %s is not in the vocabulary",
                       (int)(left_bytes < 100 ? left_bytes : 100), left,
                       (int)(right_bytes < 100 ? right_bytes : 100), right,
                       l < 0   ? "the first"
                       : r < 0 ? "the second"
                               : "the whole");
    if ((b->merge_count + 1) * 2 > b->merge_slots)
        AM_TRY(merge_rehash(b, b->merge_slots * 2));
    merge *m = merge_slot(b, (int32_t)l, (int32_t)r);
    b->merge_count += m->left < 0;
    *m = (merge){(int32_t)l, (int32_t)r, b->next_rank++, (int32_t)id};
    return AM_OK;
}

/* ---- encoding --------------------------------------------------------------------------- */

static int add_symbol(am_bpe *b, size_t *n, int32_t id, size_t start, size_t end)
{
    void *p = b->symbols;
    int rc = am_grow(&p, &b->symbol_capacity, *n + 1, sizeof *b->symbols);
    b->symbols = p;
    AM_TRY(rc);
    b->symbols[(*n)++] = (symbol){.id = id, .start = (uint32_t)start, .end = (uint32_t)end};
    return AM_OK;
}

/* The tokens <0xNN> of an unknown character, when all of them exist. */
static int add_fallback(am_bpe *b, size_t *n, const char *c, size_t bytes, size_t start, size_t end,
                        int *done)
{
    *done = b->options.byte_fallback;
    for (size_t i = 0; i < bytes; i++)
        *done &= b->fallback_ids[(unsigned char)c[i]] >= 0;
    for (size_t i = 0; *done && i < bytes; i++)
        AM_TRY(add_symbol(b, n, b->fallback_ids[(unsigned char)c[i]], start, end));
    return AM_OK;
}

/* The word as symbols, one a character. *plain stays 1 when every symbol is the token of its
 * character, so that the tokens' lengths give the ranges. An unknown token waits until the next
 * known character, as in Hugging Face tokenizers, so that fallback bytes come before it. */
static int split_word(am_bpe *b, const char *word, size_t bytes, size_t *n, int *plain)
{
    size_t unk_start = 0, unk_end = 0; /* of the waiting unknown token; empty: none */
    const int32_t unk = (int32_t)b->options.unk;
    for (size_t i = 0, step; i < bytes; i += step) {
        char spelled[4];
        const char *c = word + i;
        size_t c_bytes;
        int32_t id;
        if (b->options.spelled) {
            step = 1;
            id = b->byte_ids[(unsigned char)word[i]];
            c_bytes = 0;
        } else {
            step = (size_t)am_utf8_length(word + i, bytes - i);
            step += step == 0; /* never for valid UTF-8 */
            c_bytes = step;
            id = (int32_t)am_vocab_find(&b->vocab, c, c_bytes);
        }
        if (id >= 0) {
            if (unk_end > unk_start)
                AM_TRY(add_symbol(b, n, unk, unk_start, unk_end));
            unk_end = unk_start;
            AM_TRY(add_symbol(b, n, id, i, i + step));
            continue;
        }
        *plain = 0;
        if (b->options.spelled) {
            c_bytes = (size_t)am_utf8_put(spelled, am_byte_spelling((uint8_t)word[i]));
            c = spelled;
        }
        int done;
        AM_TRY(add_fallback(b, n, c, c_bytes, i, i + step, &done));
        if (done || unk < 0)
            continue;
        if (unk_end > unk_start && !b->options.fuse_unk)
            AM_TRY(add_symbol(b, n, unk, unk_start, unk_end));
        if (unk_end == unk_start || !b->options.fuse_unk)
            unk_start = i;
        unk_end = i + step;
    }
    if (unk_end > unk_start)
        AM_TRY(add_symbol(b, n, unk, unk_start, unk_end));
    return AM_OK;
}

static void look_up_pair(const am_bpe *b, symbol *left, const symbol *right)
{
    const merge *m = right ? merge_slot(b, left->id, right->id) : NULL;
    int found = m && m->left >= 0;
    left->merge_rank = found ? m->rank : (uint32_t)NO_RANK;
    left->merge_id = found ? m->id : -1;
}

/* Join pairs in a word of few symbols, which stay packed. Returns how many are left. */
static size_t merge_short(am_bpe *b, size_t n)
{
    symbol *s = b->symbols;
    for (size_t i = 0; i < n; i++)
        look_up_pair(b, &s[i], i + 1 < n ? &s[i + 1] : NULL);
    for (;;) {
        size_t best = 0;
        for (size_t i = 1; i < n; i++)
            if (s[i].merge_rank < s[best].merge_rank)
                best = i;
        if (s[best].merge_rank == (uint32_t)NO_RANK)
            return n;
        s[best].id = s[best].merge_id;
        s[best].end = s[best + 1].end;
        memmove(s + best + 1, s + best + 2, (n - best - 2) * sizeof *s);
        n--;
        look_up_pair(b, &s[best], best + 1 < n ? &s[best + 1] : NULL);
        if (best)
            look_up_pair(b, &s[best - 1], &s[best]);
    }
}

static int before(const candidate *a, const candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

/* Queue the pair that begins at symbol `at`, if it has a merge. */
static int heap_push(am_bpe *b, int32_t at)
{
    symbol *s = b->symbols;
    if (at < 0 || s[at].next < 0)
        return AM_OK;
    look_up_pair(b, &s[at], &s[s[at].next]);
    if (s[at].merge_rank == (uint32_t)NO_RANK)
        return AM_OK;
    void *p = b->heap;
    int rc = am_grow(&p, &b->heap_capacity, b->heap_count + 1, sizeof *b->heap);
    b->heap = p;
    AM_TRY(rc);
    candidate c = {s[at].merge_rank, at, s[at].id, s[s[at].next].id, s[at].merge_id};
    size_t i = b->heap_count++;
    for (; i && before(&c, &b->heap[(i - 1) / 2]); i = (i - 1) / 2)
        b->heap[i] = b->heap[(i - 1) / 2];
    b->heap[i] = c;
    return AM_OK;
}

static candidate heap_pop(am_bpe *b)
{
    candidate top = b->heap[0], last = b->heap[--b->heap_count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < b->heap_count; i = child) {
        if (child + 1 < b->heap_count && before(&b->heap[child + 1], &b->heap[child]))
            child++;
        if (!before(&b->heap[child], &last))
            break;
        b->heap[i] = b->heap[child];
    }
    b->heap[i] = last;
    return top;
}

/* The same for a long word: symbols are linked, joined ones get id -1 and are packed at the end. */
static int merge_long(am_bpe *b, size_t *count)
{
    symbol *s = b->symbols;
    int32_t n = (int32_t)*count;
    b->heap_count = 0;
    for (int32_t i = 0; i < n; i++) {
        s[i].prev = i - 1;
        s[i].next = i + 1 < n ? i + 1 : -1;
    }
    for (int32_t i = 0; i < n; i++)
        AM_TRY(heap_push(b, i));
    while (b->heap_count) {
        candidate c = heap_pop(b);
        symbol *left = &s[c.at];
        if (left->id != c.left || left->next < 0 || s[left->next].id != c.right)
            continue; /* one of the two was joined since */
        symbol *right = &s[left->next];
        left->id = c.id;
        left->end = right->end;
        left->next = right->next;
        right->id = -1;
        if (right->next >= 0)
            s[right->next].prev = c.at;
        AM_TRY(heap_push(b, c.at));
        AM_TRY(heap_push(b, left->prev));
    }
    *count = 0;
    for (int32_t i = 0; i < n; i++)
        if (s[i].id >= 0)
            s[(*count)++] = s[i];
    return AM_OK;
}

static int add_token(am_bpe *b, int32_t id, uint32_t start, uint32_t end)
{
    void *p = b->tokens;
    int rc = am_grow(&p, &b->token_capacity, b->token_count + 1, sizeof *b->tokens);
    b->tokens = p;
    AM_TRY(rc);
    b->tokens[b->token_count++] = (am_bpe_token){id, start, end};
    return AM_OK;
}

/* The id of a word that is a token as a whole, or -1. */
static int whole_word(am_bpe *b, const char *word, size_t bytes, int64_t *id)
{
    *id = -1;
    if (bytes > b->vocab.longest)
        return AM_OK;
    if (b->options.spelled) {
        AM_TRY(reserve_spelling(b, bytes * 2));
        size_t n = 0;
        for (size_t i = 0; i < bytes; i++)
            n += (size_t)am_utf8_put(b->spelling + n, am_byte_spelling((uint8_t)word[i]));
        word = b->spelling;
        bytes = n;
    }
    *id = am_vocab_find(&b->vocab, word, bytes);
    return AM_OK;
}

/* Bytes of a word that a token stands for, when each of its characters is known. */
static uint32_t token_extent(const am_bpe *b, int32_t id)
{
    const am_vocab_token *t = &b->vocab.tokens[id];
    return b->options.spelled ? t->chars : t->bytes;
}

int am_bpe_encode(am_bpe *b, const char *word, size_t bytes, const am_bpe_token **tokens, size_t *n)
{
    b->token_count = 0;
    cached *slot = NULL;
    if (bytes <= CACHE_WORD) {
        slot = &b->cache[hash_bytes(word, bytes) & (CACHE_SLOTS - 1)];
        if (slot->count && slot->bytes == bytes && memcmp(slot->word, word, bytes) == 0) {
            uint32_t at = 0;
            for (int i = 0; i < slot->count; i++) {
                uint32_t end = at + token_extent(b, slot->ids[i]);
                AM_TRY(add_token(b, slot->ids[i], at, end));
                at = end;
            }
            goto done;
        }
    }
    size_t count = 0;
    int plain = 1;
    int64_t whole = -1;
    if (b->options.ignore_merges)
        AM_TRY(whole_word(b, word, bytes, &whole));
    if (whole >= 0) {
        AM_TRY(add_token(b, (int32_t)whole, 0, (uint32_t)bytes));
    } else {
        AM_TRY(split_word(b, word, bytes, &count, &plain));
        if (count > SHORT_WORD)
            AM_TRY(merge_long(b, &count));
        else if (count > 1)
            count = merge_short(b, count);
        for (size_t i = 0; i < count; i++)
            AM_TRY(add_token(b, b->symbols[i].id, b->symbols[i].start, b->symbols[i].end));
    }
    if (slot && plain && b->token_count && b->token_count <= CACHE_IDS) {
        slot->bytes = (uint8_t)bytes;
        slot->count = (uint8_t)b->token_count;
        memcpy(slot->word, word, bytes);
        for (size_t i = 0; i < b->token_count; i++)
            slot->ids[i] = b->tokens[i].id;
    }
done:
    *tokens = b->tokens;
    *n = b->token_count;
    return AM_OK;
}
