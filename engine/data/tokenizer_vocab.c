/* tokenizer_vocab.c — the byte alphabet, vocabularies and tries. */
#include "tokenizer_vocab.h"

#include "../core/error.h"
#include "../core/mem.h"

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

uint32_t am_utf8_get(const char *s, size_t n, size_t *length)
{
    const unsigned char *u = (const unsigned char *)s;
    if (u[0] < 0x80 || n < 2) {
        *length = 1;
        return u[0];
    }
    if (u[0] < 0xe0 || n < 3) {
        *length = 2;
        return (u[0] & 0x1fu) << 6 | (u[1] & 0x3fu);
    }
    if (u[0] < 0xf0 || n < 4) {
        *length = 3;
        return (u[0] & 0xfu) << 12 | (u[1] & 0x3fu) << 6 | (u[2] & 0x3fu);
    }
    *length = 4;
    return (u[0] & 7u) << 18 | (u[1] & 0x3fu) << 12 | (u[2] & 0x3fu) << 6 | (u[3] & 0x3fu);
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
        size_t i = am_hash_bytes(v->tokens[id].text, v->tokens[id].bytes) & (slot_count - 1);
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
    size_t i = am_hash_bytes(text, bytes) & (v->slot_count - 1);
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

/* ---- trie ------------------------------------------------------------------------------- */

static am_trie_edge *edge_slot(const am_trie *t, uint32_t from)
{
    size_t i = (from * (uint64_t)0x9e3779b97f4a7c15u >> 32) & (t->slot_count - 1);
    while (t->edges[i].child && t->edges[i].from != from)
        i = (i + 1) & (t->slot_count - 1);
    return &t->edges[i];
}

static int trie_rehash(am_trie *t, size_t slot_count)
{
    void *p;
    AM_TRY(am_alloc(&p, slot_count * sizeof *t->edges));
    am_trie old = *t;
    t->edges = p;
    t->slot_count = slot_count;
    for (size_t i = 0; i < old.slot_count; i++)
        if (old.edges[i].child)
            *edge_slot(t, old.edges[i].from) = old.edges[i];
    am_free(old.edges);
    return AM_OK;
}

static void put_last(am_trie *t, uint32_t node, uint8_t byte, int32_t id)
{
    uint32_t from = node << 8 | byte;
    *edge_slot(t, from) = (am_trie_edge){from, AM_TRIE_LAST, id};
    t->count++;
}

/* The last edge, `done` bytes behind the beginning, gets a node, and its string an edge behind. */
static int open_edge(am_trie *t, am_trie_edge *edge, size_t done)
{
    const int32_t id = edge->value;
    const am_vocab_token *token = &t->tokens[id];
    if (t->nodes + 1 >= AM_TRIE_LAST)
        return am_fail(AM_EUNSUP, "the vocabulary's strings need more than %d nodes", AM_TRIE_LAST);
    edge->child = ++t->nodes;
    if (token->bytes - t->skip > done) {
        edge->value = -1;
        put_last(t, t->nodes, (uint8_t)token->text[t->skip + done], id);
    }
    return AM_OK;
}

int am_trie_add(am_trie *t, int32_t id)
{
    const char *text = t->tokens[id].text + t->skip;
    const size_t bytes = t->tokens[id].bytes - t->skip;
    uint32_t node = 0;
    for (size_t i = 0; i < bytes; i++) {
        if ((t->count + 1) * 2 > t->slot_count)
            AM_TRY(trie_rehash(t, t->slot_count ? t->slot_count * 2 : 1024));
        am_trie_edge *edge = edge_slot(t, node << 8 | (unsigned char)text[i]);
        if (!edge->child) {
            put_last(t, node, (uint8_t)text[i], id);
            return AM_OK;
        }
        if (edge->child == AM_TRIE_LAST)
            AM_TRY(open_edge(t, edge, i + 1));
        if (i + 1 == bytes)
            edge->value = id;
        node = edge->child;
    }
    return AM_OK;
}

void am_trie_free(am_trie *t)
{
    am_free(t->edges);
    memset(t, 0, sizeof *t);
}
