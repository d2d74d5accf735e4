/* tokenizer_vocab.h — the byte alphabet, vocabularies (string <-> id) and tries (every known string
 * that a text begins with). Knows nothing of models, normalizers or added tokens. */
#ifndef AM_TOKENIZER_VOCAB_H
#define AM_TOKENIZER_VOCAB_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---- the byte alphabet ------------------------------------------------------------------
 * Byte-level vocabularies spell each byte as one printable character: 0x21-0x7e, 0xa1-0xac and
 * 0xae-0xff as the code point of the same number, the 68 others from U+0100 on, in order. */

uint32_t am_byte_spelling(uint8_t byte);
int am_byte_spelled(uint32_t code_point); /* -1: not in the alphabet */

/* Code point at s (n > 0 bytes of valid UTF-8) and its length. */
uint32_t am_utf8_get(const char *s, size_t n, size_t *length);

/* ---- hashing ---------------------------------------------------------------------------- */

static inline uint64_t am_hash_mix(uint64_t h)
{
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    h ^= h >> 32;
    return h;
}

static inline uint64_t am_hash_bytes(const char *s, size_t n)
{
    uint64_t h = n * 0x9e3779b97f4a7c15u, part;
    for (; n > 8; s += 8, n -= 8) {
        memcpy(&part, s, 8);
        h = am_hash_mix(h ^ part);
    }
    part = 0;
    memcpy(&part, s, n);
    return am_hash_mix(am_hash_mix(h ^ part));
}

/* ---- vocabulary ------------------------------------------------------------------------- */

enum { AM_VOCAB_MAX_ID = (1 << 22) - 1 }; /* so that a small file cannot ask for gigabytes */

typedef struct am_vocab_token {
    const char *text; /* NUL-terminated; NULL: no such id */
    uint32_t bytes;
} am_vocab_token;

/* Both directions. Zeroed is empty. */
typedef struct am_vocab {
    am_vocab_token *tokens; /* by id */
    size_t size, capacity;  /* highest id + 1 */
    size_t count;
    size_t longest;  /* token, in bytes */
    uint32_t *slots; /* open addressing, id + 1 */
    size_t slot_count;
} am_vocab;

/* Copies the text. AM_EFORMAT when the id is out of range, or id or text is there with another. */
int am_vocab_add(am_vocab *v, const char *text, size_t bytes, int64_t id);
int64_t am_vocab_find(const am_vocab *v, const char *text, size_t bytes); /* -1: absent */
void am_vocab_free(am_vocab *v);

/* ---- trie -------------------------------------------------------------------------------
 * The strings of a vocabulary, found byte by byte. One hash table of edges: a node and a byte lead
 * to a node, and to an id where a string ends. Where only one string is left the edge is the last:
 * the bytes behind it are those of the string. */

enum { AM_TRIE_LAST = 0xffffff };

typedef struct am_trie_edge {
    uint32_t from;  /* node * 256 + byte */
    uint32_t child; /* 0: an empty slot; AM_TRIE_LAST: only `value` is left */
    int32_t value;  /* -1: no string ends here */
} am_trie_edge;

/* Begins with `tokens`, which stay, and `skip`; the rest is zero. */
typedef struct am_trie {
    const am_vocab_token *tokens;
    size_t skip; /* bytes at each string's beginning that do not count */
    am_trie_edge *edges;
    size_t slot_count, count;
    uint32_t nodes;
} am_trie;

/* Adds the token's string. The empty string is left out. */
int am_trie_add(am_trie *t, int32_t id);
void am_trie_free(am_trie *t);

/* One step on through the text from a node (0: the root), `done` bytes behind the beginning. False
 * when no string goes this way; else `value` is the id of the string that ends at `done`, or -1. */
static inline int am_trie_next(const am_trie *t, uint32_t *node, const char *text, size_t n,
                               size_t *done, int32_t *value)
{
    if (*node == AM_TRIE_LAST || *done == n || !t->slot_count)
        return 0;
    uint32_t from = *node << 8 | (unsigned char)text[*done];
    size_t i = (from * (uint64_t)0x9e3779b97f4a7c15u >> 32) & (t->slot_count - 1);
    while (t->edges[i].child && t->edges[i].from != from)
        i = (i + 1) & (t->slot_count - 1);
    *node = t->edges[i].child;
    if (!*node)
        return 0;
    ++*done;
    *value = t->edges[i].value;
    if (*node != AM_TRIE_LAST)
        return 1;
    const am_vocab_token *token = &t->tokens[*value];
    size_t at = *done, rest = token->bytes - t->skip - at;
    if (rest > n - at)
        return 0;
    for (size_t k = 0; k < rest; k++) /* few, as a rule */
        if (token->text[t->skip + at + k] != text[at + k])
            return 0;
    *done += rest;
    return 1;
}

#endif
